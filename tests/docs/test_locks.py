"""What `make`, CI and images install is pinned with hashes, complete, and the same everywhere."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
LOCKS: Final = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("locks/*.txt"), *ROOT.glob("tests/sdks/constraints/*.txt"))
)
ENTRY: Final = re.compile(
    r"([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)(?: ; [^\\\n]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
)


def entries(name: str) -> dict[str, str]:
    return {
        canonicalize_name(found[1]): found[2]
        for found in ENTRY.finditer((ROOT / name).read_text(encoding="utf-8"))
    }


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_is_a_version_with_hashes_and_no_address(name: str) -> None:
    assert ENTRY.sub("", (ROOT / name).read_text(encoding="utf-8")) == ""


@pytest.mark.parametrize("name", ["locks/all.txt", "locks/dev.txt"])
def test_versions_are_those_of_the_constraints(name: str) -> None:
    constraints = dict(
        re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )

    assert entries(name).items() <= constraints.items()


def wanted(requirement: str, extras: set[str], seen: set[tuple[str, str]]) -> set[str]:
    """Return the names of what a requirement installs here, with what that requires."""
    parsed = Requirement(requirement)
    if parsed.marker and not any(parsed.marker.evaluate({"extra": one}) for one in ("", *extras)):
        return set()
    name, found = canonicalize_name(parsed.name), set[str]()
    if name != "batchling":
        found.add(name)
    for extra in ("", *parsed.extras):
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            children = of_project(extra) if name == "batchling" else requires(name) or []
        except PackageNotFoundError:
            continue
        for child in children:
            found |= wanted(child, {extra}, seen)
    return found


def of_project(extra: str) -> list[str]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed: list[str] = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return listed


@pytest.mark.parametrize("extra", ["all", "dev"])
def test_a_lock_holds_all_that_its_extra_needs_and_what_builds_the_project(extra: str) -> None:
    needed = wanted(f"batchling[{extra}]", set(), set())
    built_with = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirement in (*built_with, "editables"):
        needed |= wanted(requirement, set(), set())

    assert needed <= entries(f"locks/{extra}.txt").keys()


def test_the_install_script_downloads_nothing_without_a_hash() -> None:
    script = (ROOT / "tools" / "install").read_text(encoding="utf-8")

    assert script.count("--require-hashes") == 1
    assert "--no-deps" in script
    assert "--no-build-isolation" in script
    assert "constraint " not in script


def test_every_package_of_the_extra_all_has_its_licence_on_the_page() -> None:
    licences = tool("licences")
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| ([a-z0-9._-]+) \| ([^|]+) \|$", page, re.MULTILINE))

    for name, everywhere in licences.pinned((ROOT / "locks" / "all.txt").read_text(encoding="utf-8")).items():
        if name in told:
            assert told[name] == (licences.licence_of(name) or told[name])
        else:
            assert not everywhere, name


ANSWERS: Final[dict[str, tuple[str, str, int, int]]] = {
    "no hole": (
        json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}),
        "no known holes",
        0,
        0,
    ),
    "a hole": (
        json.dumps(
            {
                "dependencies": [
                    {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
                ]
            }
        ),
        "a 1: CVE-1, mended in 2",
        1,
        1,
    ),
    "a mirror without advisories": (
        json.dumps({"dependencies": [{"name": "a", "skip_reason": "not found"}]}),
        "No advisory service could be asked",
        0,
        1,
    ),
    "no connection": ("", "No advisory service could be asked", 0, 1),
    "some unknown": (
        json.dumps(
            {"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "?"}]}
        ),
        "Nothing is known of b.",
        0,
        1,
    ),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_audit_says_what_it_knows_and_when_it_knows_nothing(answer: str, tmp_path: Path) -> None:
    printed, sentence, code, strict = ANSWERS[answer]
    (tmp_path / "pip_audit.py").write_text(f"print({printed!r})\n")
    for words, expected in ((("locks/all.txt",), code), (("--strict", "locks/all.txt"), strict)):
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools" / "audit.py"), *words],
            env={"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert sentence in done.stdout, done
        assert done.returncode == expected
