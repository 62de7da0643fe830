"""Runs an async function of a person's file under `batchify`, as `batchling run` does."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from . import errors
from .batchify import batchify
from .errors import BatchlingError, QueueUnreachable

DONE: Final = 0
FAILED: Final = 1
UNREACHABLE: Final = 3

UserFunction = Callable[..., Awaitable[object]]


class WrongTarget(BatchlingError):
    """What was to be run is not there, or cannot be run like that."""

    code = "wrong_target"
    sentence = "What was to be run is not there, or cannot be run like that."


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A function of a file, with the arguments it is called with."""

    file: Path
    name: str
    function: UserFunction = field(repr=False)
    args: tuple[str, ...] = ()
    kwargs: Mapping[str, str] = field(default_factory=dict)


def load(place: str, words: Sequence[str]) -> Target:
    """Loads `FILE.py:FUNC` and fits the words to the function's parameters; raises `WrongTarget`."""
    path, colon, name = place.rpartition(":")
    if not colon or not path.endswith(".py") or not name.isidentifier():
        raise WrongTarget(f"{place!r} is not FILE.py:FUNC, such as script.py:main.")
    file = Path(path)
    if not file.is_file():
        raise WrongTarget(f"There is no file {path}: check the path.")
    function = getattr(_module(file.absolute()), name, None)
    if function is None:
        raise WrongTarget(f"{path} has no function {name}: check the name.")
    _check_async(path, name, function)
    args, kwargs = split(words)
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise WrongTarget(
            f"{name}{inspect.signature(function)} cannot be called like that: {error}."
        ) from None
    return Target(file=file.absolute(), name=name, function=function, args=tuple(args), kwargs=kwargs)


def split(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Words of a command line as positional strings and `--name value` pairs; raises `WrongTarget`."""
    args: list[str] = []
    kwargs: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--") or word == "--":
            args.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        given = value if equals else next(rest, None)
        if given is None:
            raise WrongTarget(f"{word} needs a value: {word} VALUE.")
        kwargs[name.replace("-", "_")] = given
    return args, kwargs


def run(target: Target, options: Mapping[str, Any]) -> int:
    """Runs the function under `batchify(**options)` and answers the exit code.

    The function's own error is printed with its traceback. Raises what entering the block raises
    (`WrongSettings`, `QueueUnreachable`, `QueueUnfit`, `NotIntercepted`), and KeyboardInterrupt.
    """
    return asyncio.run(_run(target, options))


async def _run(target: Target, options: Mapping[str, Any]) -> int:
    entered = False
    try:
        async with batchify(**options) as block:
            entered = True
            await target.function(*target.args, **target.kwargs)
    except Exception as error:
        if not entered:
            raise
        return _blame(target, error)
    n_failed, n_requests = block.progress.n_failed, block.progress.n_requests
    if n_failed:
        _say(f"{n_failed} of {n_requests} requests failed.")
        return FAILED
    return DONE


def _blame(target: Target, error: Exception) -> int:
    ours = errors.of(error)
    if isinstance(ours, QueueUnreachable):
        _say(str(ours))
        return UNREACHABLE
    traceback.print_exception(error.with_traceback(_own_part(target, error)))
    return FAILED


def _own_part(target: Target, error: Exception) -> Any:
    """The traceback from the person's file on: the frames above it are ours and say nothing."""
    step = error.__traceback__
    while step is not None and Path(step.tb_frame.f_code.co_filename) != target.file:
        step = step.tb_next
    return step or error.__traceback__


def _module(file: Path) -> ModuleType:
    # A loaded module of the same name, such as a script called test.py meets, must stay what it is.
    name = file.stem if file.stem not in sys.modules else f"batchling_run_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise WrongTarget(f"{file} cannot be loaded as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # As `python FILE` does it: the file's neighbours can be imported.
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - a person's file may raise anything
        del sys.modules[name]
        raise WrongTarget(f"{file.name} cannot be imported: {_reason(file, error)}.") from None
    return module


def _reason(file: Path, error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.msg} in line {error.lineno}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)
    ]
    where = f" in line {lines[-1]}" if lines else ""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}{where}{f', {text}' if text else ''}"


def _check_async(path: str, name: str, function: object) -> None:
    if not callable(function):
        raise WrongTarget(f"{name} in {path} is no function.")
    if inspect.isasyncgenfunction(function):
        raise WrongTarget(f"{name} in {path} yields: write an `async def` that awaits it all.")
    if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(function.__call__):
        raise WrongTarget(f"{name} in {path} is not async: declare it with `async def`.")


def _say(sentence: str) -> None:
    print(f"batchling: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 - the command's own words
