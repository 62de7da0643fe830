"""The worker's part of the `batchling` command, joined to it through entry points: converts, calls, prints."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option("--flower", is_flag=True, help="Start the dashboard too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def up(*, flower: bool, as_json: bool) -> int:
    """Start the embedded stack in the background, or mend it."""
    return _stack("up", flower=flower, as_json=as_json)


@click.command()
def down() -> int:
    """Stop the embedded stack; what waits in it is kept."""
    return _stack("down")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(*, as_json: bool) -> int:
    """Show what of the embedded stack is running."""
    return _stack("status", as_json=as_json)


@click.command()
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
def sandbox(port: int, speeds: tuple[str, ...]) -> None:
    """Serve the provider emulators, and print the settings that point at them."""
    part = _part("batchling_worker.sandbox")
    try:
        part.serve(port, speeds=dict(_speed(word) for word in speeds))
    except OSError as error:
        raise click.UsageError(
            f"Port {port} cannot be served ({error.strerror}): choose another --port."
        ) from None


@click.command()
def demo() -> int:
    """Show it all without an account: a few hundred requests, two models, a sandbox for a provider."""
    play = _part("batchling_worker.demo").play
    code: int = play(_home())
    return code


def _stack(command: str, *, flower: bool = False, as_json: bool = False) -> int:
    words = [command, *(["--flower"] if flower else []), *(["--json"] if as_json else [])]
    code: int = _part("batchling_worker.stack.__main__").main(words)
    return code


def _home() -> Path:
    part = _part("batchling_worker.settings")
    try:
        home: Path = part.load().home
    except part.WrongSetting as error:
        raise click.UsageError(str(error)) from None
    return home


def _part(name: str) -> Any:
    """A part of the worker, whose libraries an installation of the client alone does not have."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise click.UsageError(f'This command needs {error.name}: pip install "batchling[all]".') from None


def _speed(word: str) -> tuple[str, float]:
    model, _, seconds = word.rpartition("=")
    try:
        return model or "*", float(seconds)
    except ValueError:
        raise click.UsageError(f"--seconds {word} is not MODEL=SECONDS") from None
