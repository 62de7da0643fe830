"""The records of an account at a provider: its circuit, and its quotas of enqueued tokens."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..keys import BatchId
from .moment import moment
from .row_and_result import CorruptRecord

IN_FLIGHT: Final = b"in:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """Why an account, or one lane of it, is left alone; `status` is that of a refused key, else 0."""

    until: dt.datetime | None
    """When it may be tried again; None while failures are only counted."""
    why: str
    status: int
    n_failures: int
    n_refused: int

    @property
    def word(self) -> str:
        """How the circuit is called for people: closed, open or parked."""
        if self.until is None:
            return "closed"
        return "parked" if self.status else "open"

    @classmethod
    def decode(cls, fields: Mapping[bytes, bytes]) -> Circuit:
        """Read the hash of a circuit; raise `CorruptRecord`."""
        try:
            return cls(
                until=_time(fields.get(b"until")),
                why=fields.get(b"why", b"").decode(),
                status=int(fields.get(b"status", b"0")),
                n_failures=int(fields.get(b"n_failures", b"0")),
                n_refused=int(fields.get(b"n_refused", b"0")),
            )
        except (ValueError, OverflowError) as error:
            raise CorruptRecord("a stored circuit cannot be read") from error

    def as_json(self) -> dict[str, object]:
        """Return the record as `batchling lanes --json` prints it."""
        return {
            "state": self.word,
            "until": self.until.isoformat() if self.until else None,
            "why": self.why or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A batch that counts against a quota: its estimated tokens, and since when."""

    tokens: int
    at: dt.datetime

    @classmethod
    def decode(cls, said: bytes) -> Admitted:
        """Read `TOKENS at MS`; raise `ValueError`."""
        tokens, _, ms = said.partition(b" at ")
        return cls(tokens=int(tokens), at=moment(int(ms)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What is known of one provider's limit of enqueued tokens for one model and account; tokens are estimated."""

    limit: int | None
    """Learned from refusals; None where nothing was refused."""
    limit_at: dt.datetime | None
    """When a refusal last taught it."""
    held_until: dt.datetime | None
    why: str
    n_alone: int
    """Refusals in a row at times when nothing else of ours was in flight."""
    in_flight: Mapping[BatchId, Admitted]
    """By batch; those that have ended since the last batch was let in are there still."""

    @property
    def n_tokens(self) -> int:
        """The tokens in flight."""
        return sum(one.tokens for one in self.in_flight.values())

    @classmethod
    def decode(cls, fields: Mapping[bytes, bytes]) -> Quota:
        """Read the hash of a quota; raise `CorruptRecord`."""
        try:
            return cls(
                limit=int(fields[b"limit"]) if b"limit" in fields else None,
                limit_at=_time(fields.get(b"limit_at")),
                held_until=_time(fields.get(b"held_until")),
                why=fields.get(b"why", b"").decode(),
                n_alone=int(fields.get(b"n_alone", b"0")),
                in_flight={
                    BatchId(name.removeprefix(IN_FLIGHT).decode()): Admitted.decode(said)
                    for name, said in fields.items()
                    if name.startswith(IN_FLIGHT)
                },
            )
        except (ValueError, OverflowError) as error:
            raise CorruptRecord("a stored quota cannot be read") from error

    def as_json(self) -> dict[str, object]:
        """Return the record as `batchling lanes --json` prints it."""
        return {
            "limit_tokens": self.limit,
            "limit_at": self.limit_at.isoformat() if self.limit_at else None,
            "tokens_in_flight": self.n_tokens,
            "n_batches_in_flight": len(self.in_flight),
            "held_until": self.held_until.isoformat() if self.held_until else None,
            "why": self.why or None,
        }


def _time(ms: bytes | None) -> dt.datetime | None:
    return None if ms is None else moment(int(ms))
