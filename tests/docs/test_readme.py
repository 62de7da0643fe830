"""README and docs say what the code does: their tables and the README's example are held against it."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path
from typing import Any

import click
import pytest

from batchling_client import batchify, errors
from batchling_client.cli.main import main
from batchling_client.settings import ClientSettings
from batchling_client.wire.deployment.provider_settings import EndpointSettings
from batchling_client.wire.deployment.setting_files import PROVIDERS_WITH_FILE, WITH_FILE
from batchling_worker.settings import ProviderSettings, WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 130
TABLES: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "tables.py"))


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without headings."""
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines]


def fields() -> dict[str, tuple[str, object]]:
    """Every variable that is read, by whom, and its default."""
    found: dict[str, tuple[str, object]] = {}
    for reader, kind in (("caller", ClientSettings), ("worker", WorkerSettings)):
        for name, field in kind.model_fields.items():
            if name == "providers":
                continue
            variable = f"BATCHLING_{name.upper()}"
            found[variable] = ("both" if variable in found else reader, field.default)
    for name in ProviderSettings.model_fields:
        reader = "both" if name in EndpointSettings.model_fields else "worker"
        found[f"BATCHLING_PROVIDERS__<NAME>__{name.upper()}"] = (reader, None)
    for name in (*WITH_FILE, *(f"PROVIDERS__<NAME>__{one}" for one in PROVIDERS_WITH_FILE)):
        found[f"BATCHLING_{name}_FILE"] = (found[f"BATCHLING_{name}"][0], None)
    return found


def test_the_settings_table_names_every_setting_and_no_other() -> None:
    told = {row[0].strip("`"): row[2] for row in rows(page("settings"))}

    assert told == {name: reader for name, (reader, _) in fields().items()}


def test_the_settings_table_tells_the_defaults() -> None:
    told = {row[0].strip("`"): row[1] for row in rows(page("settings"))}

    for name, (_, default) in fields().items():
        if isinstance(default, bool):
            assert told[name] == f"`{str(default).lower()}`", name
        elif isinstance(default, int | float):
            assert float(told[name].split()[0]) == default, name


def test_the_parameters_table_is_the_signature() -> None:
    told = {row[0].strip("`"): row[1].strip("`") for row in rows(page("batchify"))}

    signature = inspect.signature(batchify)
    expected = {name: str(parameter.default) for name, parameter in signature.parameters.items()}
    assert {name: default.strip('"') for name, default in told.items()} == expected


def test_the_commands_table_names_every_command_and_no_other() -> None:
    cells = [row[0] for row in rows(page("commands"))]
    told = {
        words.removeprefix("batchling ").split()[0]
        for cell in cells
        for words in re.findall(r"`(.+?)`", cell)
    }

    assert isinstance(main, click.Group)
    assert told == set(main.list_commands(click.Context(main)))


def test_every_error_that_is_named_exists_and_every_one_is_named() -> None:
    named = set(re.findall(r"`([A-Z]\w+)`", page("batchify"))) - {"None", "False"}
    ours = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, errors.BatchlingError)
        and kind is not errors.BatchlingError
    }

    assert ours <= named


@pytest.mark.parametrize("path", sorted(TABLES["PAGES"]))
def test_tables_made_from_the_code_are_up_to_date(path: str) -> None:
    rendered = TABLES["rendered"]

    assert (ROOT / path).read_text(encoding="utf-8") == rendered(path), "run `python docs/tables.py`"


def test_the_readme_opens_with_an_example_that_runs() -> None:
    """`test_examples.py` runs it."""
    _, _, rest = README.partition("```python\n")

    assert rest.partition("```")[0] == (ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8")


def test_the_readme_stays_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= MOST_LINES


def test_the_readme_names_every_provider() -> None:
    section = README.partition("\n## Providers\n")[2].partition("\n## ")[0].lower()

    assert [name for name in TABLES["providers"].names() if name not in section] == []


def test_the_env_example_knows_every_setting_a_deployment_has() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")

    for name in fields():
        assert re.search(re.escape(name).replace("<NAME>", "[A-Z]+") + "=", example), name
