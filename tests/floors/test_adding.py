"""Three files add a provider: those of docs/adding-a-provider.md pass all tests that run over the registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
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
NEW = "acme"
SUITES = ("tests/floors/test_providers.py", "tests/providers", "tests/wire/test_routes.py")

pytestmark = [pytest.mark.long, pytest.mark.timeout(860)]


def example(name: str) -> str:
    """Return a block of the page."""
    page = (ROOT / "docs" / "adding-a-provider.md").read_text(encoding="utf-8")
    _, found, rest = page.partition(f"<!-- example: {name} -->")
    assert found, name
    return rest.partition("```python\n")[2].partition("```\n")[0]


def add(project: Path) -> set[str]:
    """Add the page's provider; return the files that were added or changed."""
    routes = (project / ROUTES).read_text(encoding="utf-8")
    table = "ROUTES: Final = (\n"
    assert table in routes
    entry = textwrap.indent(example("route").rstrip(), "    ") + ",\n"
    (project / ROUTES).write_text(routes.replace(table, table + entry), encoding="utf-8")
    for folder, name in (("providers", "adapter"), ("sandbox/providers", "emulator")):
        file = project / "batchling_worker" / folder / f"{NEW}.py"
        file.write_text(example(name), encoding="utf-8")
    return {
        path.relative_to(project).as_posix()
        for path in project.rglob("*.py")
        if not (ROOT / path.relative_to(project)).is_file()
        or path.read_bytes() != (ROOT / path.relative_to(project)).read_bytes()
    }


def test_a_new_provider_of_three_files_passes_the_registry_tests(tmp_path: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)

    assert add(tmp_path) == files_of(NEW)

    words = ["-m", "pytest", "-q", "-n", "2", "-k", NEW, "-p", "no:cacheprovider", *SUITES]
    ran = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    n_passed = int(ran.stdout.rpartition(" passed")[0].rpartition("\n")[2].rpartition(" ")[2] or 0)
    assert n_passed > 50, ran.stdout[-500:]
