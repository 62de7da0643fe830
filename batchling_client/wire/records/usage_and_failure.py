"""What is counted of answers for people: tokens, and reasons of failures; each spelled as `deliver.lua` takes it."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from ..keys import RequestId

LONGEST_CODE: Final = 64
NO_CODE: Final = "-"
_SPACES: Final = re.compile(r"\s+")
_REASON: Final = re.compile(r"(\d{1,4}) (\S{1,200})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Sums of the tokens that answers report, as their providers count them."""

    n_input: int = 0
    """Tokens of prompts, those read from a cache or written to one included."""
    n_cached: int = 0
    n_cache_write: int = 0
    n_output: int = 0
    """Tokens of answers, those of reasoning included."""
    n_reasoning: int = 0
    n_unmetered: int = 0
    """How many answers report no tokens."""

    def spelled(self) -> str:
        """Return the counts that are not 0, as `name=n`."""
        counts = dataclasses.asdict(self)
        return " ".join(f"{name}={n}" for name, n in counts.items() if n)

    @classmethod
    def decode(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read the counts from the hash of a batch or a run; anything but a number counts as 0."""
        return cls(
            **{name: _number(fields[raw]) for raw, name in _TOKEN_FIELDS if raw in fields},
        )


_TOKEN_FIELDS: Final = tuple((name.encode(), name) for name in Tokens.__dataclass_fields__)


class SentAgain(enum.StrEnum):
    """Why requests were sent to a provider once more, as `requeue.lua` and `surplus.lua` count them."""

    EXPIRED = "expired"
    """The batch was over before the provider came to them."""
    FAILED = "failed"
    """The provider failed the batch."""
    REFUSED = "refused"
    """Its results hold an error that is worth another attempt."""
    MISSING = "missing"
    """Its results held no answer to them."""
    LOST = "lost"
    """The provider no longer knew the batch."""
    SURPLUS = "surplus"
    """The provider made a second batch of them, which was cancelled."""


MAY_BE_PAID_TWICE: Final = frozenset({SentAgain.MISSING, SentAgain.LOST, SentAgain.SURPLUS})
"""Here the provider may have run the requests before. Expired, failed and refused requests are not billed."""
_AGAIN: Final = "n_again_"
_AGAIN_FIELDS: Final = tuple(((_AGAIN + one.value).encode(), one) for one in SentAgain)


def fields_of_sent_again() -> tuple[str, ...]:
    """Return the names under which hashes of batches, runs and lanes count requests that were sent again."""
    return tuple(_AGAIN + one.value for one in SentAgain)


def sent_again(fields: Mapping[bytes, bytes]) -> dict[SentAgain, int]:
    """Read the counts from the hash of a batch, a run or a lane, without those that are 0."""
    return {one: n for raw, one in _AGAIN_FIELDS if raw in fields and (n := _number(fields[raw]))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a request failed: the HTTP status that its caller got, and the provider's code or ours."""

    status: int
    code: str = NO_CODE

    @classmethod
    def decode(cls, raw: bytes) -> Self | None:
        """Read a reason as it is counted; None for anything else."""
        match = _REASON.match(raw.decode(errors="replace"))
        return None if match is None else cls(status=int(match[1]), code=match[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRow:
    """One failed request of a batch; holds none of its provider's words, which may quote its prompt."""

    request_id: RequestId
    attempt: int
    reason: Reason

    @classmethod
    def decode(cls, raw: bytes) -> Self | None:
        """Read a row as `deliver.lua` lists it; None for anything else."""
        request_id, _, rest = raw.decode(errors="replace").partition(" ")
        attempt, _, about = rest.partition(" ")
        reason = Reason.decode(about.encode())
        if reason is None or not attempt.isdigit():
            return None
        return cls(request_id=RequestId(request_id), attempt=int(attempt), reason=reason)


def spelled_failure(status: int, code: str) -> str:
    """Return a reason as `deliver.lua` takes it: its code is one word, and cut to what is kept."""
    one_word = _SPACES.sub("_", code.strip())[:LONGEST_CODE] or NO_CODE
    return f"{status} {one_word}"


def number(fields: Mapping[bytes, bytes], name: str) -> int:
    """Return a count of a hash; 0 where there is none, or something else."""
    return _number(fields.get(name.encode(), b""))


def _number(raw: bytes) -> int:
    return int(raw) if raw.isdigit() and len(raw) < 19 else 0
