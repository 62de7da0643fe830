"""The matrix of SDKs: its versions rise from column to column, and what a column installs is pinned in its file."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.sdks.matrix import HERE, Column, columns

COLUMNS = columns()


def release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_each_sdk_has_an_oldest_a_previous_and_a_newest_version() -> None:
    oldest, previous, newest = (COLUMNS[name].packages for name in ("oldest", "previous", "newest"))

    assert set(oldest) == set(previous) == set(newest)
    for name in newest:
        assert release(oldest[name]) < release(previous[name]) < release(newest[name]), name
        assert release(previous[name])[0] == release(newest[name])[0] - 1, f"{name}: the major version before"


@pytest.mark.parametrize("column", COLUMNS.values(), ids=lambda column: column.name)
def test_every_package_of_a_column_is_pinned(column: Column) -> None:
    pinned = dict(
        re.findall(r"^([\w.-]+)==([^\s;]+)", column.constraints.read_text(encoding="utf-8"), re.MULTILINE)
    )

    assert {name: pinned.get(name) for name in column.packages} == column.packages
    assert {"celery", "httpx", "pytest", "redis"} <= set(pinned)


@pytest.mark.parametrize("column", COLUMNS.values(), ids=lambda column: column.name)
def test_pins_name_no_place_to_install_from(column: Column) -> None:
    text = column.constraints.read_text(encoding="utf-8")

    assert not re.search(r"://|--(?!hash=sha256:)|@", text)


def test_the_makefile_is_told_the_columns_and_what_each_installs() -> None:
    def printed(*words: str) -> list[str]:
        program = [sys.executable, str(HERE / "matrix.py"), *words]
        return subprocess.run(program, check=True, capture_output=True, text=True).stdout.splitlines()

    assert printed() == list(COLUMNS)
    assert "openai==2.0.0" in printed("oldest")
