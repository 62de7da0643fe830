"""The tables of the documentation that are made from the code: `python docs/tables.py` writes them into their pages."""

from __future__ import annotations

import ast
import datetime as dt
import enum
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec

from batchling_client import errors
from batchling_client.intercept.passed import Why
from batchling_client.views.batch_detail import BatchDetail
from batchling_client.views.batch_view import BatchView
from batchling_client.views.failures import Failures
from batchling_client.views.overview import Overview
from batchling_client.views.run_view import RunView
from batchling_client.wire.keys import BROKER_KEYSPACE, KEYSPACE
from batchling_client.wire.no_batches import ANY_PATH, NO_BATCHES
from batchling_client.wire.routes import ROUTES, Routes, window_words
from batchling_client.wire.states import CHANGES
from batchling_worker import providers

ROOT: Final = Path(__file__).resolve().parent.parent
VERIFIED: Final = {"SDK": "official SDK", "capture": "wire captures", "docs": "documents"}
"""What an adapter and its emulator were checked against, in the words of the page of providers."""


def providers_table() -> str:
    """Return a line for each registered provider: what its batches take, and how far the adapter was checked."""
    heading = (
        "provider",
        "endpoints",
        "rows",
        "bytes",
        "completion windows",
        "discount",
        "found after a crash",
        "early results",
        "cancel",
        "verified against",
    )
    return _table(heading, [_provider_row(name) for name in providers.names()])


def keys_table() -> str:
    """Return a line for each family of Redis keys."""
    heading = ("key", "type", "lifetime", "holds")
    named = {"schedule", "batches", "runs", "lanes", "workers", "paused"}
    rows = [
        (
            f"`{kind.word}`" if kind.word in named else f"`{kind.word}:...`",
            kind.redis_type,
            kind.lifetime.shown,
            kind.holds,
        )
        for kind in KEYSPACE
    ]
    return _table(heading, rows)


def roles_table() -> str:
    """Return a line for each family of Redis keys: what the users of each role may do with it."""
    rows = [(f"`{kind.word}`", kind.client, kind.operator, kind.dashboard) for kind in KEYSPACE]
    broker = [(f"Celery's `{one.pattern}`", "nothing", "nothing", one.dashboard) for one in BROKER_KEYSPACE]
    return _table(("key", "client", "operator", "dashboard"), [*rows, *broker])


def states_diagram() -> str:
    """Return a diagram of a batch's states, with the scripts that change them."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for change in CHANGES:
        for source in change.sources or ("[*]",):
            arrows.setdefault((source, change.target), []).append(change.script)
    lines = [f"    {source} --> {target}: {', '.join(names)}" for (source, target), names in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    direction LR", *lines, "```"])


def states_table() -> str:
    """Return a line for each change of a batch's state."""
    rows = [
        (f"`{change.script}`", ", ".join(change.sources) or "none", change.target, change.when)
        for change in CHANGES
    ]
    return _table(("script", "from", "to", "when"), rows)


def lifetimes_table() -> str:
    """Return a line for each lifetime of Redis keys, with its reason."""
    lifetimes = dict.fromkeys(kind.lifetime for kind in KEYSPACE)
    return _table(("lifetime", "why"), [(one.shown, one.why) for one in lifetimes])


def hosts_table() -> str:
    """Return a line for each registered provider: the hosts at which its calls are batched."""
    rows = [
        (
            route.provider,
            ", ".join(f"`{host}`" for host in route.hosts if host not in route.calls_only),
            "a key that belongs to the workers is sent there only if settings name the host"
            if set(route.own_keys) == set(route.hosts)
            else ", ".join(f"`{host}` takes keys of its own" for host in route.own_keys),
        )
        for route in ROUTES
    ]
    return _table(("provider", "hosts", "keys"), rows)


def no_batches_table() -> str:
    """Return a line for each known place whose calls are not batched."""
    rows = [
        (
            ", ".join(f"`{host}`" for host in each.hosts),
            "all" if each.paths == ANY_PATH else f"`{each.paths}`",
            each.reason,
        )
        for each in NO_BATCHES
    ]
    return _table(("hosts", "paths", "reason"), rows)


def sdks_table() -> str:
    """Return a line for each tested SDK: its providers, and its version in each environment of `make test-sdks`."""
    matrix = tomllib.loads((ROOT / "tests" / "sdks" / "matrix.toml").read_text(encoding="utf-8"))
    columns = {name: column for name, column in matrix["columns"].items() if column["tests"] == "tests/sdks"}
    heading = ("SDK", "batches of", *(f"{name}: {column['says']}" for name, column in columns.items()))
    rows = []
    for sdk, pointed_at in matrix["sdks"].items():
        registered = [name for name in pointed_at if name in providers.names()]
        if registered:
            versions = (column["packages"][sdk] for column in columns.values())
            rows.append((f"`{sdk}`", ", ".join(registered), *versions))
    return _table(heading, rows)


def passing_reasons() -> str:
    """The reasons for which a call goes out at full price, in one paragraph."""
    return f"Reasons: {', '.join(f'`{why.value}`' for why in Why)}."


def exceptions_tree() -> str:
    """The public exceptions below their bases, as a block of text."""
    lines = [*_tree(errors.BatchlingError, 0), *_tree(errors.DryRun, 0)]
    return "\n".join(["```", *lines, "```"])


def long_tests() -> str:
    """The folders and files whose tests are long, each once, in lines."""
    tree = ast.parse((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    [listed] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "LONG" and node.value is not None
    ]
    return "\n".join(f"- `tests/{path}`" for path in ast.literal_eval(listed))


def json_fields(view: type[msgspec.Struct], shown_before: type[msgspec.Struct] | None = None) -> str:
    """Return a line for each field of a view as `--json` prints it; those of `shown_before` are left out."""
    left_out = {field.name for field in msgspec.structs.fields(shown_before)} if shown_before else set()
    rows = [row for row in _fields(view) if row[0].partition("[")[0] not in left_out]
    return _table(("field", "type", "meaning"), [(f"`{path}`", kind, says) for path, kind, says in rows])


def _fields(view: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield path, type and meaning of each field, those of inner records too."""
    for field in msgspec.structs.fields(view):
        wanted, says = field.type, ""
        if get_origin(wanted) is Annotated:
            wanted, meta = get_args(wanted)
            says = meta.description or ""
        yield f"{prefix}{field.name}", _word_of(wanted), says
        if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
            yield from _fields(wanted, f"{prefix}{field.name}.")
        for inner in get_args(wanted):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                yield from _fields(inner, f"{prefix}{field.name}[].")


def _word_of(wanted: Any) -> str:
    """Return the word of docs/json.md for a Python type."""
    if isinstance(wanted, UnionType) or get_origin(wanted) is Union:
        return " or ".join(_word_of(one) for one in get_args(wanted))
    if get_origin(wanted) is tuple:
        inner = get_args(wanted)[0]
        inner = getattr(inner, "__supertype__", inner)
        return "list of strings" if inner is str else "list of objects"
    wanted = getattr(wanted, "__supertype__", wanted)
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return "string"
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return "object"
    words = {
        str: "string",
        int: "integer",
        float: "number",
        bool: "boolean",
        dt.datetime: "time",
        NoneType: "null",
    }
    return words[wanted]


def written(page: str, tables: Mapping[str, str]) -> str:
    """Return the page with each table between `<!-- table: NAME -->` and `<!-- end -->`, or raise ValueError."""
    for name, table in tables.items():
        opening = f"<!-- table: {name} -->\n"
        before, found, rest = page.partition(opening)
        _, end, after = rest.partition("\n<!-- end -->")
        if not found or not end:
            raise ValueError(f"the page has no place for the table {name}")
        page = f"{before}{opening}\n{table}\n{end}{after}"
    return page


PAGES: Final[dict[str, dict[str, Callable[[], str]]]] = {
    "docs/providers.md": {"providers": providers_table, "sdks": sdks_table},
    "docs/how-it-works.md": {
        "states": states_diagram,
        "changes": states_table,
        "keys": keys_table,
        "lifetimes": lifetimes_table,
    },
    "docs/security.md": {"roles": roles_table},
    "docs/reference.md": {"passing-reasons": passing_reasons, "exceptions": exceptions_tree},
    "docs/test-harness.md": {"long": long_tests},
    "docs/json.md": {
        "batches": partial(json_fields, BatchView),
        "batch": partial(json_fields, BatchDetail, BatchView),
        "overview": partial(json_fields, Overview),
        "runs": partial(json_fields, RunView),
        "run": partial(json_fields, RunView),
        "failures": partial(json_fields, Failures),
    },
    "docs/hosts.md": {"hosts": hosts_table, "no-batches": no_batches_table},
}


def rendered(page: str) -> str:
    """Return the text that a page should have."""
    tables = {name: make() for name, make in PAGES[page].items()}
    return written((ROOT / page).read_text(encoding="utf-8"), tables)


def _provider_row(name: str) -> tuple[str, ...]:
    facts, route = providers.load(name).facts, Routes().named(name)
    endpoints = sorted(set(route.endpoints.values())) if route is not None else []
    return (
        f"[{facts.name}]({facts.source})",
        ", ".join(f"`{endpoint}`" for endpoint in endpoints),
        f"{facts.max_rows:,}" if facts.min_rows == 1 else f"{facts.min_rows:,} to {facts.max_rows:,}",
        f"{facts.max_bytes / 1_000_000:,.0f} MB",
        _windows(facts.windows),
        f"{facts.discount_percent} %" if facts.discount_percent else "not told",
        "by label" if facts.searchable else "by rows",
        "yes" if facts.early_results else "no",
        "yes" if facts.cancels else "no",
        f"{', '.join(VERIFIED[word] for word in facts.verified)}, never live ({facts.checked_on:%Y-%m-%d})",
    )


def _tree(kind: type[BaseException], depth: int) -> Iterator[str]:
    """A class, its bases and its subclasses of the module, each two spaces further in."""
    yield f"{'  ' * depth}{kind.__name__} ({', '.join(base.__name__ for base in kind.__bases__)})"
    for one in vars(errors).values():
        if isinstance(one, type) and kind in one.__bases__:
            yield from _tree(one, depth + 1)


def _windows(windows: Iterable[str]) -> str:
    """Word the windows briefly enough for a table: windows in days also exist in hours, so days are left out."""
    hours = [window for window in windows if window.endswith("h")]
    return window_words(hours or list(windows))


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = list(heading)
    lines = [cells, ["---"] * len(cells), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def main() -> None:
    """Write the tables into their pages."""
    for page in PAGES:
        (ROOT / page).write_text(rendered(page), encoding="utf-8")


if __name__ == "__main__":
    main()
