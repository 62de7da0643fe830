"""Every sentence on how to install batchling is made in one place, and what it says can be typed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from batchling_client.wire.deployment.installing import install
from batchling_worker.errors import PermanentError
from batchling_worker.providers import load

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*ROOT.glob("batchling*/**/*.py"), *ROOT.glob("examples/*.py"), ROOT / "batchling.py"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), ROOT / ".env.example"]
BY_NAME = re.compile(r"(?:pip install|uv add|pipx? run|uvx)[^`\n;]*?[\s'\"]batchling\b")
WORDS = re.compile(r"pip install '\.\[(\w+)\]'")


@pytest.mark.parametrize("file", [*SOURCES, *PAGES], ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_tells_people_to_install_another_projects_package(file: Path) -> None:
    text = file.read_text(encoding="utf-8")

    assert not BY_NAME.search(text)
    if file in SOURCES and file.name != "installing.py":
        assert not re.search(r"pip install ['\"]?\.", text), (
            "batchling_client.wire.deployment.installing says it"
        )


def test_the_words_name_a_checkout_and_an_extra_that_there_is() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    named = {"all", "embedded", "worker"}
    for page in PAGES:
        named |= set(WORDS.findall(page.read_text(encoding="utf-8")))

    assert named <= set(extras)
    for extra in named:
        assert install(extra) == f"`pip install '.[{extra}]'` in a checkout of batchling"
    assert WORDS.search((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("provider", "extra"), [("vertex", "vertex"), ("groq", "worker")])
def test_a_provider_without_its_library_names_the_extra(
    provider: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name="its_library")

    monkeypatch.setattr("batchling_worker.providers.importlib.import_module", missing)
    with pytest.raises(
        PermanentError,
        match=re.escape(f"needs its_library, which this worker does not have: run {install(extra)}."),
    ):
        load.__wrapped__(provider)
