"""The record that a client keeps of each call; a written line survives the death of the client."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

What: TypeAlias = Literal["opened", "asked", "answered", "failed", "cancelled", "closed", "broken"]


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line: `opened` and `closed` of a round, `broken` for an error that no caller should see, or one of a call."""

    what: What
    at: float
    life: int
    """How often this client had been started before."""
    call: str = ""
    round: int = -1
    status: int = 0
    text: str = ""
    run: str = ""
    """The provider's id of the request that gave the answer."""


class History:
    """Appends to a client's file with one system call a line."""

    def __init__(self, path: Path, life: int) -> None:
        self._life = life
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(
        self, what: What, *, call: str = "", number: int = -1, status: int = 0, text: str = "", run: str = ""
    ) -> None:
        """Write one line."""
        event = Event(
            what=what,
            at=time.time(),
            life=self._life,
            call=call,
            round=number,
            status=status,
            text=text,
            run=run,
        )
        os.write(self._file, msgspec.json.encode(event) + b"\n")


_decoder = msgspec.json.Decoder(Event)


def read(path: Path) -> list[Event]:
    """Return every line of a client's file."""
    if not path.exists():
        return []
    return [_decoder.decode(line) for line in path.read_bytes().splitlines()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a client continues: it repeats the interrupted round and the round before it."""

    first_round: int
    torn_round: int
    life: int


def place(events: Iterable[Event]) -> Place:
    """Return where a client that wrote these events continues."""
    opened = closed = last_life = -1
    for event in events:
        last_life = max(last_life, event.life)
        if event.what == "opened":
            opened = max(opened, event.round)
        elif event.what == "closed":
            closed = max(closed, event.round)
    first = max(0, opened - 1) if opened > closed else closed + 1
    return Place(first_round=first, torn_round=opened, life=last_life + 1)
