"""docs/json.md has a section for each command that takes --json, with an example that has the fields of its table."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from batchling_client.cli.main import main

from .json_page import fields, fits, sections

SECTIONS = sections()
NO_COMMANDS = {"OUT.jsonl"}
"""What a command writes beside its --json."""


def with_json(group: click.Group) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from (f"{name} {inner}" for inner in with_json(command))
        elif any("--json" in parameter.opts for parameter in command.params):
            yield name


def test_every_command_with_json_has_a_section_and_no_other() -> None:
    assert isinstance(main, click.Group)

    commands = set(with_json(main))
    named = {
        " ".join(word for word in command.split() if word.islower())
        for command in SECTIONS.keys() - NO_COMMANDS
    }
    assert {
        next((one for one in commands if f"{name} ".startswith(f"{one} ")), name) for name in named
    } == commands


SHOWN_TOO = {"show BATCH": "batches", "status": "up"}
"""Commands that print the fields of another one, and more."""


@pytest.mark.parametrize("command", sorted(SECTIONS))
def test_the_example_has_the_fields_of_its_table(command: str) -> None:
    section = SECTIONS[command]
    shown_too = SECTIONS[SHOWN_TOO[command]].types if command in SHOWN_TOO else {}
    types = {**shown_too, **section.types}

    found = list(fields(section.example, types))

    assert {path for path, _ in found} | (types.keys() - section.required) == types.keys() | shown_too.keys()
    for path, value in found:
        assert fits(value, types[path]), f"{path} is {value!r}"
