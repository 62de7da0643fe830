"""docs/log-events.md has every named event of the log, with its levels and fields, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import batchling_worker
from batchling_worker import log_lines

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(batchling_worker.__file__).parent
SANDBOX = WORKER / "sandbox"
LEVELS = {"log": "info", "warn": "warning", "debug": "debug"}
OF_A_BATCH = frozenset({"batch_id", "provider", "model"})
VARIABLE = {"event": ("results_held", "results_incomplete")}
"""The one call whose event is a variable."""


def calls() -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield event, level and fields of every call that logs one."""
    for path in WORKER.rglob("*.py"):
        if SANDBOX in path.parents:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        dicts = {
            ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target): node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            if isinstance(node.func, ast.Name) and node.func.id == "emit":
                level, event, fields = node.args[1:]
                if isinstance(event, ast.Constant):
                    spelled = fields if isinstance(fields, ast.Dict) else dicts[ast.unparse(fields)]
                    names = frozenset(str(ast.literal_eval(key)) for key in spelled.keys if key is not None)
                    yield str(event.value), ast.unparse(level).rpartition(".")[2].lower(), names
            elif isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                owner, first = ast.unparse(node.func.value), node.args[0]
                if not (owner.endswith("telemetry") or owner == "self"):
                    continue
                said = first.value if isinstance(first, ast.Constant) else None
                given = frozenset(keyword.arg or "" for keyword in node.keywords)
                names = given - {"batch"} | OF_A_BATCH if "batch" in given else given
                for name in VARIABLE.get(ast.unparse(first), (said,)):
                    assert isinstance(name, str), f"{path}:{node.lineno} logs an event that is not a constant"
                    yield name, LEVELS[node.func.attr], names


def unnamed() -> Iterator[str]:
    """Yield the lines that log something else than an event of `emit` and `Telemetry`."""
    for path in WORKER.rglob("*.py"):
        if SANDBOX in path.parents or path.name == "log_lines.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func.value) == "logger"
                and node.func.attr in ("debug", "info", "warning", "error", "critical", "exception", "log")
                and not any(keyword.arg == "exc_info" for keyword in node.keywords)
            ):
                yield f"{path.name}:{node.lineno}"


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

    listed = {
        event: (set(re.findall(r"\w+", levels)), set(re.findall(r"`(\w+)`", fields)))
        for event, levels, fields in rows
    }
    assert listed == written()
    assert len(listed) == len(rows)


def test_the_worker_logs_nothing_but_named_events() -> None:
    assert list(unnamed()) == []


def test_no_field_of_an_event_hides_one_that_every_line_has() -> None:
    assert not {name for _, names in written().values() for name in names} & set(log_lines.HEAD)


def test_every_event_of_a_batch_names_its_provider_and_its_model() -> None:
    assert {
        event for event, (_, names) in written().items() if "batch_id" in names and not names >= OF_A_BATCH
    } == set()
