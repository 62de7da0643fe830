"""Runs a script or a module as `__main__` inside a plain block, as `python SCRIPT.py` and `python -m MODULE` would."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final, NoReturn

from .. import errors
from ..block import sigint
from ..block.run import handler_of
from ..block.run_handler import RunHandler
from ..composition import batchify
from ..errors import DryRun, QueueUnreachable
from ..intercept import scope, switch
from . import target
from .target import WrongTarget

FAILED: Final = 1
UNREACHABLE: Final = 3
HEAD: Final = 512
"""A command that pip or uv installed names its Python within this many bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A script or a module, and the words that it finds in `sys.argv`."""

    name: str
    """Path of the script, or name of the module."""
    is_module: bool
    args: tuple[str, ...]


def script(path: str, args: Sequence[str]) -> Program:
    """Return the script at the path, or the installed Python command of that name; raise `WrongTarget`."""
    if Path(path).is_file():
        return Program(name=path, is_module=False, args=tuple(args))
    if Path(path).is_dir():
        raise WrongTarget(target.absent(path))
    command = None if os.sep in path or path.endswith(".py") else _command(path)
    if command is None:
        raise WrongTarget(target.absent(path))
    with Path(command).open("rb") as file:
        head = file.read(HEAD)
    if not head.startswith(b"#!") or b"python" not in head:
        raise WrongTarget(f"{command} is not a Python program: batchling runs Python programs only.")
    if Path(command).parent.resolve() != Path(sys.executable).parent.resolve():
        raise WrongTarget(
            f"{command} belongs to another Python environment: install batchling there, and run it from there."
        )
    return Program(name=command, is_module=False, args=tuple(args))


def _command(name: str) -> str | None:
    """Find a command beside this Python, whose environment need not be active, or on PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def module(words: Sequence[str]) -> Program:
    """Return the module of `-m MODULE ARGS`, or `-mMODULE ARGS`; raise `WrongTarget`."""
    name, args = (words[0][2:], words[1:]) if words[0] != "-m" else (words[1] if words[1:] else "", words[2:])
    if not name:
        raise WrongTarget("-m needs a module: `batchling run -m MODULE`.")
    if name.endswith(".py") and Path(name).is_file():
        raise WrongTarget(f"-m takes a module, and {name} is a file: `batchling run {name}`.")
    if ":" in name:
        raise WrongTarget(f"-m takes a module, and {name} names a function: `batchling run FILE.py:FUNC`.")
    return Program(name=name, is_module=True, args=tuple(args))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    """How a program ended; `broken` by an error of its own or an interrupt."""

    raised: SystemExit | KeyboardInterrupt
    broken: bool = False


def run(program: Program, options: Mapping[str, Any], stage: contextlib.ExitStack) -> NoReturn:
    """Run the program to its end, leave the block and the stage, and exit with the program's own code.

    Raises `WrongTarget` for a program that is not there, and what entering the block raises.
    """
    with contextlib.ExitStack() as entering:
        entering.push(stage)
        code, main = _loaded(program)
        block = handler_of(stage.enter_context(batchify(**options)))
        entering.pop_all()
    sys.modules["__main__"] = main
    ending = _ending_of(code, main, block)
    if _threads():
        # Python itself ends the threads of pools, before it calls this.
        atexit.register(_leave_at_exit, program, stage, block, ending)
        sigint.only_release()
    else:
        _leave(program, stage, block, ending)
    raise ending.raised


def _ending_of(code: CodeType, main: ModuleType, block: RunHandler) -> _Ending:
    ending = _Ending(raised=SystemExit(0))
    try:
        exec(code, main.__dict__)  # noqa: S102 - the program that the person named
    except SystemExit as raised:
        if not isinstance(raised, DryRun):
            ending = _Ending(raised=raised)
    except KeyboardInterrupt as raised:
        return _Ending(raised=raised, broken=True)
    except BaseException as error:  # noqa: BLE001 - as Python does, for whatever a program lets through
        is_dry_end = isinstance(error, DryRun) or (block.is_dry and isinstance(error, asyncio.CancelledError))
        if not is_dry_end:
            ending = _Ending(raised=SystemExit(_blame(error, code)), broken=True)
    try:
        while threads := [thread for thread in _threads() if not _is_of_a_pool(thread)]:
            threads[0].join()
    except KeyboardInterrupt as raised:
        return _Ending(raised=raised, broken=True)
    if block.is_dry and block.progress.n_requests and not ending.broken:
        # Calls that a dry run ends may look like failures to the program.
        return _Ending(raised=SystemExit(0))
    return ending


def _blame(error: BaseException, code: CodeType) -> int:
    ours = errors.of(error)
    if isinstance(ours, QueueUnreachable):
        target.say(str(ours))
        return UNREACHABLE
    trace = target.own_part(error, code.co_filename)
    sys.excepthook(type(error), error.with_traceback(trace), trace)
    return FAILED


def _leave_at_exit(program: Program, stage: contextlib.ExitStack, block: RunHandler, ending: _Ending) -> None:
    # Python would print a traceback of batchling; the next run finds interrupted requests in Redis.
    with contextlib.suppress(KeyboardInterrupt):
        _leave(program, stage, block, ending)


def _leave(program: Program, stage: contextlib.ExitStack, block: RunHandler, ending: _Ending) -> None:
    """Leave the block as a program that ends: calls of daemon threads are left behind, as those threads are."""
    is_torn = ending.broken or block.progress.n_waiting > 0
    # Calls that daemon threads begin from here on end with the program, too, and never reach the provider.
    switch.install()
    scope.enter_process(block)
    threading.excepthook = _quietly(threading.excepthook)
    block.end.release()
    with contextlib.suppress(DryRun):
        if is_torn:
            stage.__exit__(type(ending.raised), ending.raised, None)
        else:
            stage.close()
    names = [] if program.is_module or ending.broken else target.idle_functions_in(Path(program.name))
    if names and not (block.progress.n_requests or block.progress.passed or block.has_inner_block):
        target.say(f"To run a function of {program.name}: `batchling run {program.name}:{names[0]}`.")


def _quietly(
    hook: Callable[[threading.ExceptHookArgs], object],
) -> Callable[[threading.ExceptHookArgs], object]:
    """Leave out that a thread ends with its call: without batchling, daemon threads end in silence, too."""

    def quietly(args: threading.ExceptHookArgs, /) -> object:
        return None if issubclass(args.exc_type, asyncio.CancelledError) else hook(args)

    return quietly


def _threads() -> list[threading.Thread]:
    """Return the threads whose end Python waits for before it exits."""
    here = threading.current_thread()
    return [thread for thread in threading.enumerate() if not thread.daemon and thread is not here]


def _is_of_a_pool(thread: threading.Thread) -> bool:
    """Return whether the thread belongs to an executor, which keeps it until Python exits."""
    return any(
        thread in getattr(sys.modules.get(f"concurrent.futures.{pool}"), threads, ())
        for pool, threads in (("thread", "_threads_queues"), ("process", "_threads_wakeups"))
    )


def _loaded(program: Program) -> tuple[CodeType, ModuleType]:
    main = ModuleType("__main__")
    if program.is_module:
        _search_first(str(Path.cwd()))
        sys.argv = ["-m", *program.args]
        spec = _spec(program.name)
        code = _compiled(program.name, spec)
        sys.argv[0] = spec.origin or "-m"
        main.__spec__, main.__loader__, main.__package__ = spec, spec.loader, spec.parent
        main.__dict__.update(__file__=spec.origin, __cached__=spec.cached)
        return code, main
    path = os.path.abspath(program.name)  # noqa: PTH100 - as Python does it, without following links
    _search_first(str(Path(path).resolve().parent))
    sys.argv = [program.name, *program.args]
    loader = SourceFileLoader("__main__", path)
    main.__loader__, main.__file__ = loader, path
    try:
        return loader.source_to_code(loader.get_data(path), path), main
    except (OSError, SyntaxError, ValueError) as error:
        raise WrongTarget(f"{program.name} cannot be run: {target.reason(path, error)}.") from None


def _search_first(folder: str) -> None:
    """Search modules where Python does for such a program, in place of the folder of the `batchling` command."""
    if not sys.flags.safe_path:
        sys.path[:1] = [folder]


def _spec(name: str) -> ModuleSpec:
    spec = _found(name)
    if spec is None:
        raise WrongTarget(f"There is no module {name}: check the name, and that it is installed.")
    if spec.submodule_search_locations is None:
        return spec
    inner = _found(f"{name}.__main__")
    if inner is None:
        raise WrongTarget(f"{name} is a package without a __main__: name a module of it.")
    return inner


def _found(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(f"{error.name}."):
            return None
        raise WrongTarget(f"{name} cannot be imported: {target.reason('', error)}.") from None
    except Exception as error:  # noqa: BLE001 - the packages around a module are imported, and may raise anything
        raise WrongTarget(f"{name} cannot be imported: {target.reason('', error)}.") from None


def _compiled(name: str, spec: ModuleSpec) -> CodeType:
    read = getattr(spec.loader, "get_code", None)
    try:
        code = None if read is None else read(spec.name)
    except (ImportError, OSError, SyntaxError, ValueError) as error:
        raise WrongTarget(f"{name} cannot be run: {target.reason('', error)}.") from None
    if not isinstance(code, CodeType):
        raise WrongTarget(f"{name} is not written in Python: name a module that is.")
    return code
