"""docs/log-events.md has every named event of the log, with its levels and fields, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import batchling_worker

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(batchling_worker.__file__).parent
SANDBOX = WORKER / "sandbox"
LEVELS = {"log": "info", "warn": "warning", "debug": "debug"}
EVENT = re.compile(r"^([a-z]+(?:_[a-z]+)+)(?: |$)")
VARIABLE = {"event": ("results_held", "results_incomplete")}
"""The one call whose event is a variable."""


def calls() -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield event, level and fields of every call that logs one."""
    for path in WORKER.rglob("*.py"):
        if SANDBOX in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            owner, first = ast.unparse(node.func.value), node.args[0]
            said = first.value if isinstance(first, ast.Constant) else None
            if owner == "logger" and isinstance(said, str) and (match := EVENT.match(said)):
                yield match[1], node.func.attr, frozenset(re.findall(r"(\w+)=%", said))
            elif node.func.attr in LEVELS and (owner.endswith("telemetry") or owner == "self"):
                fields = frozenset(keyword.arg or "" for keyword in node.keywords)
                for event in VARIABLE.get(ast.unparse(first), (said,)):
                    if isinstance(event, str):
                        yield event, LEVELS[node.func.attr], fields


def written() -> dict[str, tuple[set[str], set[str]]]:
    found: dict[str, tuple[set[str], set[str]]] = {}
    for event, level, fields in calls():
        levels, names = found.setdefault(event, (set(), set()))
        levels.add(level)
        names.update(fields)
    return found


def test_the_page_has_every_event_with_its_levels_and_fields() -> None:
    text = (ROOT / "docs" / "log-events.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*) \| [^|]+ \|$", text, re.MULTILINE)

    told = {
        event: (set(re.findall(r"\w+", levels)), set(re.findall(r"`(\w+)`", fields)))
        for event, levels, fields in rows
    }
    assert told == written()
    assert len(told) == len(rows)
