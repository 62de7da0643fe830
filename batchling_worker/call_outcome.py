"""What the calls of one step have shown of an account: its last word, and for how long it has been silent."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, cast

from .errors import PermanentError, TemporaryError, WorkerError

HEADERS: Final = ".receive_response_headers."
MOVES: Final = 16 * 1024
"""An answer that is streamed moves once it has brought so many bytes: a byte at a time is as slow as silence."""


@dataclass(slots=True, eq=False)
class Underway:
    """A call that has not ended: what it was made for, and when it last got any further."""

    provider: str
    does: str
    patience: float
    """So many times longer than usual its answer may take."""
    waits: bool = True
    """Whether it waits for the provider, and not for us."""
    _moved_at: float = field(default_factory=time.monotonic)
    _n_bytes: int = 0

    def moved(self) -> None:
        """Note that the call got further: connected, sent bytes, or began to receive an answer."""
        self._moved_at = time.monotonic()

    def brought(self, n_bytes: int) -> None:
        """Note that more bytes of the answer have arrived."""
        self._n_bytes += n_bytes
        if self._n_bytes >= MOVES:
            self._n_bytes = 0
            self.moved()

    @contextlib.contextmanager
    def ours(self) -> Iterator[None]:
        """Mark a block in which the step takes its time, not the provider."""
        started_at, self.waits = time.monotonic(), False
        try:
            yield
        finally:
            self._moved_at += time.monotonic() - started_at
            self.waits = True

    def watched(self, file: BinaryIO) -> BinaryIO:
        """Return the file as one whose reading shows that an upload gets further."""
        return cast("BinaryIO", _Watched(file, self))

    @property
    def stalled_s(self) -> float:
        """For how long nothing has moved."""
        return time.monotonic() - self._moved_at if self.waits else 0.0


class _Watched:
    """A file whose reader is a call; everything else is the file's own."""

    def __init__(self, file: BinaryIO, call: Underway) -> None:
        self._file = file
        self._call = call

    def read(self, size: int = -1) -> bytes:
        self._call.moved()
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@dataclass(slots=True)
class CallOutcomes:
    """One step's view of an account; the last call counts, since it is the one a step ends with."""

    called: bool = False
    error: PermanentError | TemporaryError | None = None
    """What the last call ended with; None = a success."""
    _asked_at: float | None = None
    _underway: set[Underway] = field(default_factory=set)

    @contextlib.contextmanager
    def call(self, provider: str, does: str, patience: float = 1.0) -> Iterator[Underway]:
        """Mark a block in which a call is made; the call moves while the provider receives or sends bytes."""
        one = Underway(provider, does, patience)
        self._underway.add(one)
        try:
            yield one
        finally:
            self._underway.discard(one)

    def asked(self) -> None:
        """Note that a library that does not trace its calls has sent a call."""
        self._asked_at = time.monotonic()

    def saw(self, error: WorkerError | None) -> None:
        """Note that a call has ended, with an error of ours or (None) with success."""
        self.called = True
        self.error = error if isinstance(error, (PermanentError, TemporaryError)) else None
        self._asked_at = None

    async def trace(self, event: str, _: object) -> None:
        """Handle httpcore's trace of a call: a provider is silent from the moment the call was sent in full."""
        if HEADERS in event:
            self._asked_at = time.monotonic() if event.endswith(".started") else None

    @property
    def silent_s(self) -> float:
        """For how long a call that was sent in full has had no answer."""
        return 0.0 if self._asked_at is None else time.monotonic() - self._asked_at

    @property
    def slowest(self) -> Underway | None:
        """The call under way that has been stalled the longest, measured by its patience."""
        return max(self._underway, key=lambda one: one.stalled_s / one.patience, default=None)
