"""Errors in a call or a file, as FastAPI words them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from .dialect import Refusal

Flaw: TypeAlias = dict[str, object]

_MOST_FLAWS = 100


def invalid(kind: str, loc: Sequence[str], message: str) -> Refusal:
    """Return the refusal of a call for one error."""
    return unfit([flaw(kind, loc, message)])


def unfit(flaws: Sequence[Flaw]) -> Refusal:
    """Return the refusal of a call for several errors."""
    return Refusal(422, "", raw=msgspec.json.encode({"detail": flaws}).decode())


def flaw(kind: str, loc: Sequence[str], message: str) -> Flaw:
    """Return one entry of the list of errors."""
    return {"type": kind, "loc": loc, "msg": message}


def flaws_in(path: Path, shape: type[msgspec.Struct]) -> list[Flaw]:
    """Return the errors in the lines of a file, each of which must have that shape."""
    flaws: list[Flaw] = []
    decode = msgspec.json.Decoder(shape).decode
    with path.open("rb", buffering=1 << 18) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                decode(line)
            except msgspec.ValidationError as error:
                message, _, place = str(error).partition(" - at `$")
                steps = [step for step in place.rstrip("`").split(".") if step]
                flaws.append(flaw("value_error", [f"line {number}", *steps], message))
            except (msgspec.DecodeError, UnicodeDecodeError):
                flaws.append(flaw("json_invalid", [f"line {number}"], "JSON decode error"))
            if len(flaws) >= _MOST_FLAWS:
                break
    return flaws
