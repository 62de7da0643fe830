"""docs/test-harness.md is a whole map: every folder, module, class and fixture of the tests, and no other."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PAGE = (ROOT / "docs" / "test-harness.md").read_text(encoding="utf-8")
UNNAMED = "tests/sdks/callers/"
"""A module an SDK: the page names their folder."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def section(*headings: str) -> str:
    """The text below these headings."""
    parts = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")}
    return "\n".join(parts[heading] for heading in headings)


def classes(path: Path) -> set[str]:
    return {
        node.name
        for node in tree(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }


def fixtures(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def modules() -> dict[str, Path]:
    """Return the modules that hold neither tests nor fixtures; a package counts if it has classes."""
    found = {}
    for path in TESTS.rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        is_empty = path.name == "__init__.py" and not classes(path)
        if not path.name.startswith("test_") and path.name != "conftest.py" and not is_empty:
            found[name] = path
    return {name: path for name, path in found.items() if not name.startswith(UNNAMED)}


def test_the_page_has_every_folder() -> None:
    told = re.findall(r"^\| `(tests/\w+/)` \|", section("Folders"), re.MULTILINE)
    there = {
        f"tests/{path.name}/"
        for path in TESTS.iterdir()
        if path.is_dir() and (path / "__init__.py").is_file()
    }

    assert set(told) == there
    assert len(told) == len(there)


def test_the_page_has_every_module_with_its_classes() -> None:
    rows = re.findall(
        r"^\| `(tests/[\w/]+\.py)` \| (.*?) ?\| ",
        section("Shared modules", "Modules of one folder"),
        re.MULTILINE,
    )
    told = {name: set(re.findall(r"`(\w+)`", cell)) for name, cell in rows}

    assert told == {name: classes(path) for name, path in modules().items()}
    assert UNNAMED in PAGE


def test_the_page_has_every_fixture() -> None:
    rows = re.findall(r"^\| `(tests/(?:\w+/)?)` \| (.+) \|$", section("Fixtures"), re.MULTILINE)
    told = {folder: set(re.findall(r"`(\w+)`", cell)) for folder, cell in rows}
    there = {f"{path.parent.relative_to(ROOT).as_posix()}/": path for path in TESTS.rglob("conftest.py")}
    assert told.keys() == there.keys()

    for folder, path in there.items():
        assert fixtures(path) <= told[folder], folder
        others = told[folder] - fixtures(path) - {"needs", "Desk", "Wire", "Answerer"}
        assert others == set(), folder


def test_the_harness_of_each_kind_of_test_is_where_the_page_says() -> None:
    known = {name for path in modules().values() for name in classes(path)}
    for what, place in re.findall(
        r"^\| [^|]+ \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", section("Which harness to take"), re.MULTILINE
    ):
        named = {word.partition(".")[0] for word in re.findall(r"`([A-Z][\w.]+)", what)}
        assert named <= known, what
        for folder in re.findall(r"`(tests/\w+/)`", place):
            assert (ROOT / folder).is_dir()


def test_methods_that_the_page_names_exist() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in modules().values())
    for name in re.findall(r"`(?:\w+\.)?(\w+)\(", section("Shared modules", "Modules of one folder")):
        assert re.search(rf"def {name}\(", code), name
