"""The supported versions of SDKs, from `matrix.toml`.

As a program it prints the columns, or the packages that a named column installs.
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One environment of the matrix."""

    name: str
    place: int
    """Its number in the matrix."""
    says: str
    """The versions in it, in words."""
    tests: str
    """The folder of tests that run in it."""
    packages: dict[str, str]
    """Distribution -> version."""
    warnings: tuple[str, ...] = ()
    """Warnings that are not errors there, in the format of Python's `-W`."""

    @property
    def constraints(self) -> Path:
        """Return the file that pins the column's other packages."""
        return HERE / "constraints" / f"{self.name}.txt"

    def requirements(self) -> list[str]:
        """Return the packages as requirements for pip."""
        return [f"{name}=={version}" for name, version in self.packages.items()]


def sdks() -> dict[str, tuple[str, ...]]:
    """Return the providers that each SDK is pointed at."""
    return {name: tuple(providers) for name, providers in _read()["sdks"].items()}


def columns() -> dict[str, Column]:
    """Return every column by name, oldest first."""
    tables = _read()["columns"]
    return {
        name: Column(name=name, place=place, **{**table, "warnings": tuple(table.get("warnings", ()))})
        for place, (name, table) in enumerate(tables.items())
    }


def _read() -> dict[str, Any]:
    return tomllib.loads((HERE / "matrix.toml").read_text(encoding="utf-8"))


if __name__ == "__main__":
    lines = columns()[sys.argv[1]].requirements() if sys.argv[1:] else columns()
    sys.stdout.writelines(f"{line}\n" for line in lines)
