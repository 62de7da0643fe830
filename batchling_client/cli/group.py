"""The `batchling` command group: commands that others add, the short form of `run`, and errors in one sentence."""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, NoReturn

import click

from ..errors import BatchlingError, NotIntercepted, QueueFull, QueueUnreachable
from ..progress.folding import folded, width_of
from ..wire.deployment.installing import install
from ..wire.shown import lines
from .target import WrongTarget, absent, in_dots, say, without_function

GROUP: Final = "batchling.commands"
WORKER_COMMANDS: Final = ("demo", "down", "sandbox", "up")
"""Known by name without the worker, to distinguish a missing worker from a misspelt command."""

WRONG_USE: Final = 2
INTERRUPTED: Final = 130
_CLOSE: Final = 0.6
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_CODES: Final[dict[type[BatchlingError], int]] = {QueueFull: 3, QueueUnreachable: 3, NotIntercepted: 1}


class CommandGroup(click.Group):
    """Joins the commands of the entry point group `batchling.commands`; a command's int is the exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_added(), *WORKER_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        added = _added().get(cmd_name)
        if added is None:
            return _absent(cmd_name) if cmd_name in WORKER_COMMANDS else None
        try:
            loaded = added.load()
        except ImportError:
            return _absent(cmd_name)
        return loaded if isinstance(loaded, click.Command) else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read `batchling FILE.py:FUNC` as `batchling run FILE.py:FUNC`, with options on either side."""
        first = args[0] if args else ""
        if first.startswith("-m"):
            raise WrongTarget(f"-m is an option of `run`: type `batchling run {' '.join(args[:2])}`.")
        if in_dots(first):
            raise WrongTarget(absent(first))
        if first.endswith(".py"):
            raise WrongTarget(without_function(first))
        if (
            ":" in first
            or os.sep in first
            or (first.startswith("--") and any(".py:" in word for word in args))
        ):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for a misspelt name, suggest the commands that were probably meant."""
        name = args[0] if args else ""
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.UsageError(_unknown(name, self.list_commands(ctx)), ctx)
        return super().resolve_command(ctx, args)

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **extra: Any
    ) -> NoReturn:
        """Run a command and exit; a wrong use or an outage ends in one sentence on stderr."""
        extra["standalone_mode"] = False
        # The worker's commands report errors through the context, as they cannot import this package.
        extra.setdefault("obj", say)
        try:
            code = super().main(args, prog_name or "batchling", *rest, **extra)
            if callable(code):
                code = code()
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            code = 0
        except click.ClickException as error:
            code = _say(_sentence(error), error.exit_code)
        except BatchlingError as error:
            code = _say(str(error), _CODES.get(type(error), WRONG_USE))
        except BrokenPipeError:
            # The reader of our output, such as `head`, has closed the pipe.
            _give_up_stdout()
            code = 1
        except OSError as error:
            if error.errno not in _FULL:
                raise
            _give_up_stdout()
            code = _say(f"The output cannot be written: {error.strerror}.", WRONG_USE)
        except (KeyboardInterrupt, click.Abort):
            code = _say("Interrupted.", INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


def _added() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _unknown(name: str, commands: Sequence[str]) -> str:
    """Return the error for a first word that is not a command, with the commands that it resembles."""
    close = difflib.get_close_matches(name, commands, n=3, cutoff=_CLOSE)
    close = close or [one for one in commands if name and one.startswith(name)]
    meant = " or ".join(f"`batchling {one}`" for one in close[:3])
    return (
        f"There is no command {name!r}: did you mean {meant}?" if meant else f"There is no command {name!r}."
    )


def _absent(name: str) -> click.Command:
    def refuse() -> NoReturn:
        raise click.UsageError(f"`batchling {name}` is part of the worker: run {install()}.")

    return click.Command(
        name,
        callback=refuse,
        short_help=f"Needs {install()}.",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


def _sentence(error: click.ClickException) -> str:
    text = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None and "pip install" not in text:
        see = f"see `{error.ctx.command_path} --help`."
        return f"{text} {see.capitalize()}" if text.endswith("?") else f"{text.rstrip('.')}: {see}"
    return text


def _give_up_stdout() -> None:
    """Discard unwritten output: Python would report the broken pipe once more at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(sentence: str, code: int) -> int:
    click.echo(folded(f"batchling: {lines(sentence)}", width_of(sys.stderr)), err=True)
    return code
