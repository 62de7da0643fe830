"""The command line of `batchling run`: batchling's options, the target, and the words that belong to the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

ORIGINAL: Final = frozenset(
    {
        "batch_size",
        "batch_window_seconds",
        "batch_poll_interval_seconds",
        "completion_window",
        "dry_run",
        "cache",
        "live_display",
        "vertex_gcs_prefix",
    }
)
"""The options that the original, in-process batchling reads behind `FILE.py:FUNC`."""


class RunCommand(click.Command):
    """Stop reading options at the target: `-m MODULE`, SCRIPT.py or FILE.py:FUNC."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Hand over every word from the target on unread."""
        at = self._target_at(args)
        return super().parse_args(ctx, [*args[:at], "--", *args[at:]])

    def _target_at(self, args: list[str]) -> int:
        with_value = {
            name
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }
        at = 0
        while at < len(args) and args[at].startswith("-") and not args[at].startswith("-m"):
            if args[at] == "--":
                del args[at]
                return at
            at += 2 if args[at] in with_value else 1
        return min(at, len(args))


def options_behind(ctx: click.Context, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Split the words behind FILE.py:FUNC into the original's options and the words of the function.

    Words behind `--` belong to the function, whatever they are.
    """
    at = words.index("--") if "--" in words else len(words)
    reader = click.Command(
        ctx.info_name,
        params=[option for option in ctx.command.params if option.name in ORIGINAL],
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    behind = reader.make_context(ctx.info_name, list(words[:at]), parent=ctx.parent)
    given = {name: value for name, value in behind.params.items() if value is not None}
    return given, [*behind.args, *words[at:]]
