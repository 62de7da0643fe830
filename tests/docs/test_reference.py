"""docs/reference.md names the public objects, their members and the exceptions, and no others."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

import batchling
import batchling_client
from batchling import errors
from batchling_client.block.failures import Failure
from batchling_client.intercept.passed import Passing
from batchling_client.intercept.scope import outside

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
CONTRACT = {"id", "name", "progress", "summary()"}


def rows(place: str, first: str) -> dict[str, list[str]]:
    """The rows of the table with that first column below a place of the page; first cells without backticks."""
    _, found, below = TEXT.partition(place)
    assert found, place
    table = below.partition(f"\n| {first} |")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
    return {name.strip().strip("`"): rest for name, *rest in cells}


def typed(owner: type) -> dict[str, str]:
    """Name and annotated type of the fields and properties of a class."""
    found = {field.name: str(field.type) for field in dataclasses.fields(owner)}
    for name, member in vars(owner).items():
        if isinstance(member, property) and member.fget is not None:
            found[name] = str(member.fget.__annotations__["return"])
    return found


def exceptions() -> dict[str, type[errors.BatchlingError]]:
    return {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, errors.BatchlingError)
        and kind is not errors.BatchlingError
    }


def test_the_page_names_what_is_exported() -> None:
    named = set(rows("# Reference", "name"))

    assert named == set(batchling.__all__)
    by_name = {*exceptions(), "BatchlingError", "DryRun", "Run", "Progress"}
    assert set(batchling_client.__all__) == (named - {"errors"}) | by_name
    assert batchling_client.errors is batchling.errors
    assert batchling.DryRunEarlyExit is errors.DryRun
    assert batchling.outside is outside


def test_a_run_has_the_members_of_the_page() -> None:
    members = rows("## Run", "member")

    assert set(members) == CONTRACT
    for name in members:
        assert hasattr(batchling_client.Run, name.removesuffix("()"))


@pytest.mark.parametrize(
    ("place", "owner"),
    [
        ("## Progress", batchling_client.Progress),
        ("An element of `passed`", Passing),
        ("An element of `failures`", Failure),
    ],
)
def test_the_fields_of_the_page_are_those_of_the_class(place: str, owner: type) -> None:
    told = {name: cells[0].strip("`") for name, cells in rows(place, "field").items()}

    assert told == typed(owner)


def test_an_exception_of_the_page_has_its_code_and_no_other_is_there() -> None:
    told = {name: cells[0].strip("`") for name, cells in rows("## Exceptions", "exception").items()}

    assert told == {name: kind.code for name, kind in exceptions().items()}
    for kind in exceptions().values():
        assert set(vars(kind("a sentence"))) == set()
        assert str(kind()) == kind.sentence


def test_a_dry_run_ends_with_what_the_page_says() -> None:
    assert issubclass(errors.DryRunCall, asyncio.CancelledError)
    assert issubclass(errors.DryRunOver, SystemExit)
    assert not issubclass(errors.DryRun, Exception)
