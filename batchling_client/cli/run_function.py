"""Runs a function of a user's file under `batchify`, for `batchling run FILE.py:FUNC`."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import sys
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from .. import errors
from ..block.run import Run, handler_of
from ..composition import batchify
from ..errors import DryRun, QueueUnreachable
from ..intercept import scope
from . import target
from .target import WrongTarget, own_part, reason, say

DONE: Final = 0
FAILED: Final = 1
UNREACHABLE: Final = 3
COMMANDS: Final = ("click", "cloup", "rich_click", "typer")
"""Libraries whose commands are callables, and read `sys.argv` when they are called."""

UserFunction = Callable[..., object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A function of a file, with the arguments it is called with."""

    file: Path
    name: str
    function: UserFunction = field(repr=False)
    args: tuple[str, ...] = ()
    kwargs: Mapping[str, str | bool] = field(default_factory=dict)


def is_place(word: str) -> bool:
    """Return whether the word names a function, FILE.py:FUNC, rather than a script."""
    return ":" in word and not Path(word).is_file()


def load(place: str, words: Sequence[str]) -> Target:
    """Load `FILE.py:FUNC` and fit the words to the function's parameters; raise `WrongTarget`."""
    path, colon, name = place.rpartition(":")
    if not colon or not path.endswith(".py") or not name.isidentifier():
        raise WrongTarget(f"{place!r} is not FILE.py:FUNC, such as {_meant(path, name)}.")
    file = Path(path)
    if not file.is_file():
        raise WrongTarget(target.absent(path))
    function = getattr(_module(file.absolute()), name, None)
    if function is None:
        has = f": it has {', '.join(names)}" if (names := target.functions_in(file)) else ""
        raise WrongTarget(f"{path} has no function {name}{has or ': check the name'}.")
    _check(path, name, function)
    args, kwargs = split(words)
    try:
        signature = inspect.signature(function)
    except ValueError:
        # Some functions written in C do not reveal their parameters.
        return Target(file=file.absolute(), name=name, function=function, args=tuple(args), kwargs=kwargs)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise WrongTarget(
            f"{name}{signature} cannot be called like that: {error}{_hint(signature, kwargs)}."
        ) from None
    return Target(file=file.absolute(), name=name, function=function, args=tuple(args), kwargs=kwargs)


def split(words: Sequence[str]) -> tuple[list[str], dict[str, str | bool]]:
    """Split words into positional strings and named ones: `--name value`, `--name=value`, or `--name` alone for True.

    The first `--` alone is left out.
    """
    args: list[str] = []
    kwargs: dict[str, str | bool] = {}
    rest = deque(words)
    separated = False
    while rest:
        word = rest.popleft()
        if word == "--" and not separated:
            separated = True
        elif not word.startswith("--") or word == "--":
            args.append(word)
        else:
            name, equals, value = word[2:].partition("=")
            is_bare = not equals and (not rest or rest[0].startswith("--"))
            given: str | bool = True if is_bare else value if equals else rest.popleft()
            kwargs[name.replace("-", "_")] = given
    return args, kwargs


def run(target: Target, options: Mapping[str, Any]) -> int:
    """Run the function under `batchify(**options)` and return the exit code.

    The function's own error is printed with its traceback. Raises what entering the block raises
    (`WrongSettings`, `QueueUnreachable`, `QueueUnfit`, `NotIntercepted`), and KeyboardInterrupt.
    """
    if _is_async(target.function):
        return asyncio.run(_run(target, options))
    return _run_blocking(target, options)


async def _run(target: Target, options: Mapping[str, Any]) -> int:
    block: Run | None = None
    try:
        async with batchify(**options) as block:
            # The threads that the function starts are in the block, too: nobody can open a plain one around it.
            scope.enter_process(handler_of(block))
            try:
                await _awaited(target.function(*target.args, **target.kwargs))
            finally:
                scope.leave_process(handler_of(block))
    except DryRun:
        return DONE
    except Exception as error:
        if block is None:
            raise
        return _blame(target, error)
    return _code_of(block)


def _run_blocking(target: Target, options: Mapping[str, Any]) -> int:
    block: Run | None = None
    try:
        with batchify(**options) as block:
            result = target.function(*target.args, **target.kwargs)
            if inspect.isawaitable(result):
                asyncio.run(_awaited(result))
    except DryRun:
        return DONE
    except Exception as error:
        if block is None:
            raise
        return _blame(target, error)
    return _code_of(block)


async def _awaited(result: Any) -> object:
    return await result


def _code_of(block: Run) -> int:
    n_failed, n_requests = block.progress.n_failed, block.progress.n_requests
    if n_failed:
        say(f"{n_failed} of {n_requests} requests failed.")
        return FAILED
    return DONE


def _blame(target: Target, error: Exception) -> int:
    ours = errors.of(error)
    if isinstance(ours, QueueUnreachable):
        say(str(ours))
        return UNREACHABLE
    traceback.print_exception(error.with_traceback(own_part(error, str(target.file))))
    return FAILED


def _module(file: Path) -> ModuleType:
    # A loaded module of the same name, such as `test` for a script called test.py, must not be replaced.
    name = file.stem if file.stem not in sys.modules else f"batchling_run_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise WrongTarget(f"{file} cannot be loaded as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Like `python FILE`: modules beside the file can be imported.
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - a person's file may raise anything
        del sys.modules[name]
        if isinstance(error, ImportError) and "relative import" in str(error):
            return _module_of_package(file, error)
        raise WrongTarget(f"{file.name} cannot be imported: {reason(str(file), error)}.") from None
    return module


def _module_of_package(file: Path, failure: ImportError) -> ModuleType:
    """Import a file by its name in its package, as its relative imports need it."""
    root = file.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    name = ".".join(file.with_suffix("").relative_to(root).parts)
    if root == file.parent:
        raise WrongTarget(f"{file.name} cannot be imported: {reason(str(file), failure)}.")
    sys.path.insert(0, str(root))
    try:
        return importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - as above
        raise WrongTarget(f"{name} cannot be imported: {reason(str(file), error)}.") from None


def _meant(path: str, name: str) -> str:
    """Return what a person may have meant, where such a file is there."""
    path, _, more = path.partition(":")
    name = more or name
    for file in (f"{path}.py", f"{path.replace('.', os.sep)}.py"):
        if path and name.isidentifier() and Path(file).is_file():
            return f"{file}:{name}"
    names = target.functions_in(Path(path)) if path.endswith(".py") else []
    names = [name] if name in names else names
    return f"{path}:{names[0]}" if names else "script.py:main"


def _hint(signature: inspect.Signature, kwargs: Mapping[str, object]) -> str:
    ours = {*inspect.signature(batchify).parameters, "sandbox"}
    misplaced = [name for name in kwargs if name in ours and name not in signature.parameters]
    if not misplaced:
        return ""
    options = " and ".join(f"--{name.replace('_', '-')}" for name in misplaced)
    return f". To give {options} to batchling, type it before FILE.py:FUNC"


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - of an object whose call is a coroutine function
    )


def _check(path: str, name: str, function: object) -> None:
    if not callable(function):
        raise WrongTarget(f"{name} in {path} is not a function.")
    if inspect.isclass(function):
        raise WrongTarget(f"{name} in {path} is a class: name a function.")
    if type(function).__module__.partition(".")[0] in COMMANDS:
        raise WrongTarget(
            f"{name} in {path} is a command that reads its own arguments: `batchling run {path} ARGS`."
        )
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise WrongTarget(f"{name} in {path} yields: name a function that calls it and uses what it yields.")
