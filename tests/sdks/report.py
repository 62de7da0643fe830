"""The results of the tests for each SDK, read from their reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree as ET

from .matrix import Column


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Seen:
    """One promise that held or failed, for one call of one version of an SDK."""

    title: str
    """The SDK and the call."""
    place: int
    """The number of the column in the matrix."""
    version: str
    what: str


def read(report: Path, column: Column) -> list[Seen]:
    """Return the records of one column's passed tests, and the failed tests by name."""
    found = []
    for case in ET.parse(report).iter("testcase"):
        failed = case.find("failure") is not None or case.find("error") is not None
        for told in case.iter("property"):
            title, what = told.attrib["name"], told.attrib["value"]
            version = column.packages.get(title.partition(" ")[0], "?")
            found.append(
                Seen(
                    title=title,
                    place=column.place,
                    version=version,
                    what=f"FAILED {what}" if failed else what,
                )
            )
    return found


def table(seen: Iterable[Seen]) -> str:
    """Return a table with a line per call and version."""
    lines = [("SDK and call", "version", "seen")]
    for (title, _, version), told in groupby(
        sorted(set(seen)), lambda one: (one.title, one.place, one.version)
    ):
        lines.append((title, version, ", ".join(one.what for one in told)))
    widths = [max(len(line[n]) for line in lines) for n in (0, 1)]
    return "\n".join(f"{title:{widths[0]}}  {version:{widths[1]}}  {what}" for title, version, what in lines)
