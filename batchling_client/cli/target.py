"""The target of `batchling run`, and the errors for a target that cannot be run."""

from __future__ import annotations

import ast
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

from ..errors import BatchlingError
from ..progress.folding import folded, width_of
from ..wire.shown import lines

LARGEST: Final = 1_000_000
"""A larger file is not parsed for the names of its functions."""


class WrongTarget(BatchlingError):
    """What was to be run is not there, or cannot be run like that."""

    code = "wrong_target"
    sentence = "What was to be run is not there, or cannot be run like that."


def functions_in(file: Path) -> list[str]:
    """Return the names of the file's own functions that `FILE.py:FUNC` can run, the likeliest first."""
    try:
        if file.stat().st_size > LARGEST:
            return []
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = [step for step in body if isinstance(step, ast.FunctionDef | ast.AsyncFunctionDef)]
    found.sort(key=lambda step: (step.name != "main", isinstance(step, ast.FunctionDef)))
    return [step.name for step in found if not step.name.startswith("_")]


def idle_functions_in(file: Path) -> list[str]:
    """Return the functions of a file that does nothing as a program: it never asks whether it is `__main__`."""
    return [] if b"__main__" in file.read_bytes() else functions_in(file)


def absent(path: str) -> str:
    """Say that there is no file of this path to run."""
    if path and Path(path).is_dir():
        return f"{path} is a folder: name a script in it, or run a package with -m PACKAGE."
    dotted = in_dots(path)
    if dotted:
        return f"There is no file {path}: type `batchling run {dotted}` to run a function of a file."
    return f"There is no file {path or repr(path)}: check the path."


def in_dots(path: str) -> str | None:
    """Return FILE.py:FUNC where a person typed it as Python imports it, as in `package.file.func`; else None."""
    *folders, name = path.split(".")
    if not folders or not all(part.isidentifier() for part in (*folders, name)):
        return None
    file = Path(*folders).with_suffix(".py")
    return f"{file}:{name}" if file.is_file() else None


def without_function(path: str) -> str:
    """Say what to type instead of `batchling FILE.py`."""
    if not Path(path).is_file():
        return absent(path)
    name = next(iter(functions_in(Path(path))), "FUNC")
    typed = f"type `batchling {path}:{name}`, or `batchling run {path}` to run it as a program"
    return f"{path} names no function: {typed}."


def own_part(error: BaseException, file: str) -> TracebackType | None:
    """Return the traceback from the person's file on: the frames above it are batchling's."""
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename != file:
        step = step.tb_next
    return step or error.__traceback__


def reason(file: str, error: BaseException) -> str:
    """Say in one line why a file cannot be loaded."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} in line {error.lineno}" if error.lineno else error.msg
    numbers = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" in line {numbers[-1]}" if numbers else ""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}{where}{f', {text}' if text else ''}"


def say(sentence: str) -> None:
    """Print a sentence of the command's own on stderr."""
    line = folded(f"batchling: {lines(sentence)}", width_of(sys.stderr))
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the command's own words
