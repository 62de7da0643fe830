"""The worker's part of the `batchling` command, joined to it through entry points: converts, calls, prints."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from batchling_client.wire.deployment.installing import install

_ISOLATED: Final = (
    "{} with -I, -E or -S does not load batchling: calls whose host the code names reach real providers. Leave the "
    "option out to rehearse them."
)


class Refused(click.ClickException):
    """Ends a command with one sentence about a setting, not about how the command was typed."""

    exit_code = 2


class Unreachable(click.ClickException):
    """Ends a command with one sentence about a stack that cannot be started or stopped."""

    exit_code = 3


@click.command()
@click.option("--flower", is_flag=True, help="Start the dashboard too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def up(*, flower: bool, as_json: bool) -> int:
    """Start the embedded stack in the background, or mend it."""
    return _stack("up", flower=flower, as_json=as_json)


@click.command()
def down() -> int:
    """Stop the embedded stack; its requests are kept."""
    return _stack("down")


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="a free one",
    help="Port on the loopback interface.",
)
@click.option(
    "--seconds", "speeds", multiple=True, metavar="MODEL=S", help="Seconds a batch of MODEL takes; * = any."
)
@click.option(
    "--provider", "served", multiple=True, metavar="NAME", help="Refuse calls to all other providers."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD...]")
def sandbox(port: int, speeds: tuple[str, ...], served: tuple[str, ...], command: tuple[str, ...]) -> int:
    """Run CMD against the provider emulators and pass its exit code on.

    The calls of every Python process that CMD starts go to the emulators or are refused, whatever host and key its code
    names, if batchling is installed for that Python. Elsewhere they go by the base URLs in the environment, and Python
    refuses other connections to known providers. Programs that are not Python, python -I, -E and -S, and processes
    that are started with an environment of their own reach the hosts that their code names.

    Without CMD, serve the emulators and print the environment that points programs at them.
    """
    part = _part("batchling_worker.sandbox")
    quick = dict(_speed(word) for word in speeds)
    _check_providers(part, served)
    try:
        if command:
            return _perform(command, port=port, speeds=quick, served=served)
        part.serve(port, speeds=quick, served=served)
    except OSError as error:
        raise click.UsageError(
            f"Port {port} cannot be served ({error.strerror}): choose another --port."
        ) from None
    return 0


def _perform(
    command: tuple[str, ...], *, port: int, speeds: dict[str, float], served: tuple[str, ...]
) -> int:
    if shutil.which(command[0]) is None:
        raise click.UsageError(f"There is no command {command[0]!r}: check its name and PATH.")
    part = _part("batchling_worker.rehearsal.stage")
    if part.ignores_environment(command):
        _say(_ISOLATED.format(command[0]))
    try:
        code: int = part.perform(_home(), command, port=port, speeds=speeds, served=served)
    except part.settings.WrongSetting as error:
        raise Refused(str(error)) from None
    except part.StackError as error:
        raise Unreachable(str(error)) from None
    return code


def _check_providers(part: Any, served: tuple[str, ...]) -> None:
    unknown = [name for name in served if name not in part.names()]
    if unknown:
        raise click.UsageError(f"--provider {unknown[0]} is none of {', '.join(part.names())}")


@click.command(short_help="Show a run without an account, on a sandbox.")
def demo() -> int:
    """Show it all without an account: a few hundred requests, two models, a sandbox for a provider."""
    part = _part("batchling_worker.rehearsal.demo")
    errors = _part("batchling_worker.stack.errors")
    try:
        code: int = part.play(_home())
    except errors.StackError as error:
        raise Unreachable(str(error)) from None
    return code


def _stack(command: str, *, flower: bool = False, as_json: bool = False) -> int:
    part = _part("batchling_worker.stack.__main__")
    try:
        status = part.run(command, flower=flower)
    except part.StackError as error:
        kind = Refused if isinstance(error, part.WrongSetting) else Unreachable
        raise kind(str(error)) from None
    if status.notice:
        _say(status.notice)
    click.echo(part.spelt(status, as_json=as_json))
    return 0


def _say(sentence: str) -> None:
    """Print a sentence on stderr, as the command group does."""
    say: Callable[[str], None] = click.get_current_context().obj
    say(sentence)


def _home() -> Path:
    part = _part("batchling_worker.settings")
    try:
        home: Path = part.load().home
    except part.WrongSetting as error:
        raise Refused(str(error)) from None
    return home


def _part(name: str) -> Any:
    """Return a part of the worker; its libraries are missing if only the client is installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise click.UsageError(f"This command needs {error.name}: run {install()}.") from None


def _speed(word: str) -> tuple[str, float]:
    model, _, seconds = word.rpartition("=")
    try:
        return model or "*", float(seconds)
    except ValueError:
        raise click.UsageError(f"--seconds {word} is not MODEL=SECONDS") from None
