"""docs/changing-a-script.md tells the truth: each script has its header, one method and a place among the tests."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path

import pytest

from batchling_client.wire.account_scripts import AccountScripts
from batchling_client.wire.scripts import Scripts
from batchling_client.wire.states import Verdict
from tests.scripts.test_fence import MOVES

ROOT = Path(__file__).resolve().parents[2]
LUA = ROOT / "batchling_client" / "wire" / "lua"
SCRIPTS = sorted(path.stem for path in LUA.glob("[a-z]*.lua"))
INCLUDES = sorted(path.stem for path in LUA.glob("_*.lua"))
PAGE = (ROOT / "docs" / "changing-a-script.md").read_text(encoding="utf-8")
TOKEN = re.compile(r"\b\d +token\b")
NAMED = (
    *("holds(", "let_go(", "go_on_when_full(", "now_ms("),
    *(
        "KEYSPACE",
        "KeyKind",
        "Delivered",
        "HeaderMismatch",
        "AccountStore",
        "StaleClaim",
        "Life",
        "ENDS_THE_CLAIM",
        "WORKS_IN",
    ),
    *(
        "HeaderMismatch",
        "MOVES",
        "POINTS",
        "MODEL_LIVES",
        "poll.recorded",
        "WIRE_VERSION",
        "DRAINED_VERSIONS",
    ),
)
"""What the page calls by name."""


def text(name: str) -> str:
    return (LUA / f"{name}.lua").read_text(encoding="utf-8")


def header(name: str) -> str:
    """The comment lines that a script opens with."""
    opening = re.match(r"(?:--(?!@).*\n)*", text(name))
    return opening[0] if opening else ""


@cache
def code() -> str:
    """All that the page may be naming."""
    folders = ("batchling_client/wire", "batchling_worker", "tests/scripts", "tests/pipeline")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".lua"))


def test_the_example_is_the_script() -> None:
    shown = PAGE.partition("<!-- script: extend -->")[2].partition("```lua\n")[2].partition("```")[0]

    assert shown == text("extend")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_opens_with_its_contract(name: str) -> None:
    head = header(name)

    assert re.match(r"-- [A-Z][^\n]+", head)
    for word in ("-- KEYS  ", "-- ARGV  ", "-- Verdict"):
        assert word in head, word


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_one_stub_of_its_name(name: str) -> None:
    owners = [owner for owner in (Scripts, AccountScripts) if hasattr(owner, name)]
    assert len(owners) == 1
    stub = getattr(owners[0], name)

    assert stub.__module__ == owners[0].__module__
    assert inspect.getdoc(stub)


def test_every_stub_has_a_script_and_every_verdict_is_answered_by_one() -> None:
    stubs = {name for owner in (Scripts, AccountScripts) for name in vars(owner) if name[0] != "_"}
    assert stubs == {*SCRIPTS}

    answered = {word for name in SCRIPTS for word in re.findall(r"'([A-Z_]+)'", header(name))}
    assert answered == {verdict.value for verdict in Verdict}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_builds_no_key_and_looks_for_none(name: str) -> None:
    body = text(name).removeprefix(header(name))

    assert not re.search(r"redis\.p?call\('(?:KEYS|SCAN)'", body)
    keyed = re.findall(r"redis\.p?call\('[A-Z]+', '([^']*)'", body)
    assert keyed == []


@pytest.mark.parametrize("name", [name for name in SCRIPTS if TOKEN.search(header(name))])
def test_a_script_with_a_token_is_tried_with_a_stale_one(name: str) -> None:
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "scripts").glob("test_*.py")]

    assert name in MOVES or any(f".{name}(" in one and "STALE" in one for one in tests)


@pytest.mark.parametrize("name", INCLUDES)
def test_an_included_file_defines_local_functions_only(name: str) -> None:
    outside = [
        line
        for line in text(name).splitlines()
        if line and not line.startswith(("--", " ", "local ", "end", "}"))
    ]

    assert outside == []


def test_what_the_page_calls_by_name_is_there() -> None:
    for word in NAMED:
        assert word.rstrip("(") in PAGE, word
        assert word in code(), word


def test_the_page_names_every_place_in_order() -> None:
    steps = [int(number) for number in re.findall(r"^### (\d+)\. ", PAGE, re.MULTILINE)]

    assert steps == list(range(1, len(steps) + 1))
    for path in re.findall(r"^### \d+\. [^`\n]+`([^`]+)`", PAGE, re.MULTILINE):
        assert (ROOT / path).exists(), path
