"""Four files add a provider: in a copy of the project they pass all tests that run over the registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .test_providers import ROOT, ROUTES, files_of

COPIED = (
    "batchling_client",
    "batchling_worker",
    "tests",
    "docs",
    "batchling.py",
    "pyproject.toml",
    "README.md",
)
MODEL, NEW = "groq", "acme"
SUITES = ("tests/floors/test_providers.py", "tests/providers", "tests/wire/test_routes.py")

pytestmark = [pytest.mark.long, pytest.mark.timeout(460)]


def renamed(text: str) -> str:
    for old, new in ((MODEL, NEW), (MODEL.capitalize(), NEW.capitalize()), (MODEL.upper(), NEW.upper())):
        text = text.replace(old, new)
    return text.replace(f"api.{NEW}.com", f"api.{NEW}.example")


def add(project: Path) -> set[str]:
    """Add the provider; return the files added."""
    routes = (project / ROUTES).read_text(encoding="utf-8")
    start = routes.index(f'    Route(\n        provider="{MODEL}"')
    end = routes.index("\n    ),\n", start) + len("\n    ),\n")
    entry = routes[start:end]
    (project / ROUTES).write_text(routes.replace(entry, entry + renamed(entry)), encoding="utf-8")
    for folder in ("batchling_worker/providers", "batchling_worker/sandbox/providers"):
        text = (project / folder / f"{MODEL}.py").read_text(encoding="utf-8")
        (project / folder / f"{NEW}.py").write_text(renamed(text), encoding="utf-8")
    facts = "from tests.form import CHAT_FORM\n\nFORM = CHAT_FORM\n"
    (project / f"tests/facts/test_{NEW}.py").write_text(facts, encoding="utf-8")
    return {
        path.relative_to(project).as_posix()
        for path in project.rglob("*.py")
        if not (ROOT / path.relative_to(project)).is_file()
        or path.read_bytes() != (ROOT / path.relative_to(project)).read_bytes()
    }


def test_a_new_provider_of_four_files_passes_the_registry_tests(tmp_path: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)

    assert add(tmp_path) == files_of(NEW)

    words = ["-m", "pytest", "-q", "-k", NEW, "-p", "no:cacheprovider", *SUITES]
    ran = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    n_passed = int(ran.stdout.rpartition(" passed")[0].rpartition("\n")[2].rpartition(" ")[2] or 0)
    assert n_passed > 50, ran.stdout[-500:]
