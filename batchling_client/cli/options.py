"""Options of several commands."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

JSON_LINES: Final = "jsonl"

redis_url = click.option(
    "--redis-url", metavar="URL", help="Instead of BATCHLING_REDIS_URL, which hides a password."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit = click.option("--limit", default=1000, show_default=True, help="How many to list.")


def list_as_json(command: F) -> F:
    """Add `--json`, which prints one list, and `--jsonl`, which prints a line for each of its objects."""
    for spelt, what in (("json", "Print one JSON list."), (JSON_LINES, "Print one JSON object a line.")):
        option = click.option(f"--{spelt}", "as_json", flag_value=spelt, default="", help=what)
        command = option(command)
    return command
