"""The worker's errors: two kinds steer every retry (`decisions/after_error.py`).

WorkerError
├── PermanentError      the provider refused: the callers get its own words
│   └── CreateRefused   ... a create, and surely made no batch
├── TemporaryError      worth another look after a delay
│   ├── Denied          the provider does not know what was asked for, or the key has no right to it
│   ├── MaybeDone       ... and the provider may have done it: look before doing it again
│   ├── Limited         a create met a rate limit: the provider made no batch of it, but a gateway may have
│   ├── NotOnDisk       Redis does not confirm that a write is on disk
│   ├── CreateBegun     a create was begun that only the provider knows of: it is continued there
│   ├── TooLarge        the answer is larger than any of its kind: no more of it was read
│   ├── FileNotReady    an uploaded file is not visible yet
│   ├── QuotaFull       the limit of enqueued tokens is reached: nothing was created
│   └── Postponed       nothing went wrong, and nothing counts as a stumble
│       ├── NotYet      ... the time for the next move has not come
│       └── Waiting     ... the batch waits for something outside of it
├── UnfitWorker         the worker cannot run as it was started
└── StaleClaim          another worker holds the batch now; what this one did changes nothing
"""

from __future__ import annotations


class WorkerError(Exception):
    """Something went wrong in a step; the text never holds a credential."""

    _recorded = ""

    @property
    def recorded(self) -> str:
        """What logs and records hold of it: the text, without the words of a provider that may quote a request."""
        return self._recorded or str(self)

    @recorded.setter
    def recorded(self, words: str) -> None:
        self._recorded = words


class PermanentError(WorkerError):
    """The provider refused for good; `status` and `body` are its own, fit to be handed to the SDK."""

    def __init__(self, reason: str, *, status: int = 400, body: bytes = b"") -> None:
        super().__init__(reason)
        self.status = status
        self.body = body


class CreateRefused(PermanentError):
    """The provider refused a create for good and surely made no batch."""


class TemporaryError(WorkerError):
    """The provider or the way to it is out of order; `delay_s` is the pause that the provider asks for, else None."""

    def __init__(self, reason: str, *, delay_s: float | None = None) -> None:
        super().__init__(reason)
        self.delay_s = delay_s


class Denied(TemporaryError):
    """The provider does not know the object (not yet, or no longer), or the key has no right to it at present."""


class MaybeDone(TemporaryError):
    """The answer to a call got lost: it may or may not have had its effect.

    `refusal` is the refusal of the call, if the call may have had its effect all the same.
    """

    def __init__(
        self, reason: str, *, delay_s: float | None = None, refusal: PermanentError | None = None
    ) -> None:
        super().__init__(reason, delay_s=delay_s)
        self.refusal = refusal


class Limited(TemporaryError):
    """A create was answered with 425 or 429.

    From the provider itself this proves that no batch was made. Gateways send a create again by themselves, and their
    429 may be the answer to the second time.
    """


class CreateBegun(TemporaryError):
    """A create was begun that our records do not mention: it must be continued in `file_id`, and nowhere else."""

    def __init__(self, file_id: str) -> None:
        super().__init__(f"a create was begun in {file_id}")
        self.file_id = file_id


class FileNotReady(TemporaryError):
    """The provider does not see the input file yet that it has just accepted."""


class TooLarge(TemporaryError):
    """The provider's answer is larger than any of its kind may be; no more of it was read."""


class NotOnDisk(TemporaryError):
    """Redis has not confirmed that the record of a create is on disk: the create was not sent."""


class QuotaFull(TemporaryError):
    """The provider took no batch, as too many tokens are enqueued; the text is its own sentence."""


class Postponed(TemporaryError):
    """Ends a step early although nothing went wrong, so that nothing is counted as a stumble."""


class NotYet(Postponed):
    """The time for the next move has not come."""


class Waiting(Postponed):
    """The batch waits for room in a quota, or until its account may be called again.

    `refusal` is what the provider last said of a refused key. `away` = the account cannot be called.
    """

    def __init__(
        self, reason: str, *, delay_s: float, refusal: PermanentError | None = None, away: bool = False
    ) -> None:
        super().__init__(reason, delay_s=delay_s)
        self.refusal = refusal
        self.away = away


class StaleClaim(WorkerError):
    """The lease expired and the batch was claimed anew."""


class UnfitWorker(WorkerError):
    """The worker was started in a way that would lose work; the text says how to start it."""
