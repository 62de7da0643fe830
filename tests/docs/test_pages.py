"""What the pages name is there: tests, files and the pages they link to."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PAGE_IDS = [str(page.relative_to(ROOT)) for page in PAGES]

TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
CODE_FILE = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|lua|conf|md))`")
PACKAGES = ("batchling_client", "batchling_worker")
ROOM = re.compile(r"`([a-z_]+(?:/|\.py))`")


@cache
def names_in(file: Path) -> set[str]:
    """The names of all tests of a file, those in classes too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def promises(page: str) -> list[tuple[str, list[str]]]:
    """The promises of a page: the heading of each, and the lines under it."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    parts = [part.split("\n## ")[0] for part in text.split("\n### ")[1:]]
    return [(part.splitlines()[0], [line for line in part.splitlines()[1:] if line]) for part in parts]


@pytest.mark.parametrize("page", ["guarantees.md", "security.md"])
def test_every_guarantee_has_a_promise_a_limit_and_a_test(page: str) -> None:
    assert promises(page)
    for heading, lines in promises(page):
        begins = [line.partition(":**")[0].removesuffix("s") for line in lines]
        assert begins == ["- **Promise", "- **Limit", "- **Test"], heading


@pytest.mark.parametrize("page", ["guarantees.md", "security.md"])
def test_every_guarantee_names_a_test_that_exists(page: str) -> None:
    for heading, lines in promises(page):
        named = TEST.findall(lines[-1])
        assert named, f"no test: {heading}"
        for file, test in named:
            assert (ROOT / file).is_file(), file
            assert test in names_in(ROOT / file), f"{file}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_files_of_the_code_that_are_named_exist(page: Path) -> None:
    """A path starts at the root of the project, or at a package's, or beside the page."""
    places = (ROOT, *(ROOT / package for package in PACKAGES), page.parent)
    for file in CODE_FILE.findall(page.read_text(encoding="utf-8")):
        if "acme" not in file and "NAME" not in file:
            assert any((place / file).is_file() for place in places), f"{page.name} names {file}"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_of_rooms_names_every_room(package: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition(f"| `{package}/` |")[2].partition("\n\n")[0]
    there = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / package).iterdir()
        if (path / "__init__.py").is_file() or path.suffix == ".py"
    }

    assert {room for room in ROOM.findall(table) if room in there} == there - {"__init__.py"}
