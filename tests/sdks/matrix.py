"""The versions of SDKs that are promised to work, as `matrix.toml` has them.

Run as a program it prints the columns, or what a column that is named installs.
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
    """Which versions stand in it, in words."""
    tests: str
    """The folder of tests that run in it."""
    packages: dict[str, str]
    """Distribution -> version."""
    warnings: tuple[str, ...] = ()
    """Warnings that are no errors there, as Python's `-W` takes them."""

    @property
    def constraints(self) -> Path:
        """What else is installed there, pinned."""
        return HERE / "constraints" / f"{self.name}.txt"

    def requirements(self) -> list[str]:
        """The packages as pip takes them."""
        return [f"{name}=={version}" for name, version in self.packages.items()]


def sdks() -> dict[str, tuple[str, ...]]:
    """The providers that each SDK is pointed at."""
    return {name: tuple(providers) for name, providers in _read()["sdks"].items()}


def columns() -> dict[str, Column]:
    """Every column by name, oldest first."""
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
