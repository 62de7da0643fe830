"""A provider is three files, and no other file names it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from batchling_worker import providers

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("batchling_client", "batchling_worker")
SDKS = "batchling_client/operate/installed_sdks.py"
"""Names distributions, some of which have the name of their provider."""
ROUTES = "batchling_client/wire/routes.py"
SHOWN_FIRST = frozenset({"groq", "openai"})
"""Providers that the demo and the help use as their example."""


def files_of(name: str) -> set[str]:
    return {
        ROUTES,
        f"batchling_worker/providers/{name}.py",
        f"batchling_worker/sandbox/providers/{name}.py",
    }


def imported(path: Path) -> set[str]:
    """Return the last part of each name that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").rpartition(".")[2])
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name.rpartition(".")[2] for alias in node.names)
    return found


@cache
def words_of_code() -> dict[str, set[str]]:
    """Return the strings in each module of the packages."""
    return {
        path.relative_to(ROOT).as_posix(): {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }


def speaking_of(name: str) -> set[str]:
    """Return the modules of the packages whose code contains the provider's name."""
    return {module for module, words in words_of_code().items() if name in words}


@pytest.mark.parametrize("name", providers.names())
def test_a_provider_is_exactly_three_files(name: str) -> None:
    assert {one for one in files_of(name) if (ROOT / one).is_file()} == files_of(name)
    if name not in SHOWN_FIRST:
        assert speaking_of(name) <= files_of(name) | {SDKS}


@pytest.mark.parametrize("folder", ["batchling_worker/providers", "batchling_worker/sandbox/providers"])
@pytest.mark.parametrize("name", providers.names())
def test_a_provider_imports_no_other(name: str, folder: str) -> None:
    others = set(providers.names()) - {name}
    assert not imported(ROOT / folder / f"{name}.py") & others


def test_every_provider_is_held_to_its_documents() -> None:
    tested = {path.name for path in (ROOT / "tests" / "facts").glob("test_*.py")}
    assert tested == {f"test_{name}.py" for name in providers.names()}
