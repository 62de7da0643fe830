"""What the calls of one step have shown of an account: its last word, and for how long it has been silent."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from .errors import PermanentError, TemporaryError, WorkerError

HEADERS: Final = ".receive_response_headers."


@dataclass(slots=True)
class Weather:
    """One step's view of an account; the last call counts, since it is the one a step ends with."""

    called: bool = False
    error: PermanentError | TemporaryError | None = None
    """What the last call ended with; None = a success."""
    _asked_at: float | None = None

    def asked(self) -> None:
        """A call was sent, by a library that does not trace it."""
        self._asked_at = time.monotonic()

    def saw(self, error: WorkerError | None) -> None:
        """A call has ended, with an error of ours or well."""
        self.called = True
        self.error = error if isinstance(error, (PermanentError, TemporaryError)) else None
        self._asked_at = None

    async def trace(self, event: str, _: object) -> None:
        """Takes httpcore's trace of a call: a provider is silent from the moment the call was sent in full."""
        if HEADERS in event:
            self._asked_at = time.monotonic() if event.endswith(".started") else None

    @property
    def silent_s(self) -> float:
        """For how long a call that was sent in full has had no answer."""
        return 0.0 if self._asked_at is None else time.monotonic() - self._asked_at
