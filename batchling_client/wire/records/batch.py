"""A batch as stored in Redis, read from its hash."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from ..keys import BatchId, LaneId, ProviderBatchId, RunId
from ..states import BatchState, Outcome
from .moment import moment
from .row_and_result import UNREADABLE, CorruptRecord, LaneSpec
from .usage_and_failure import SentAgain, Tokens, sent_again

UNENDED_ALLOWED: Final = 3
"""So many steps in a row may kill their worker before the batch is quarantined."""


@functools.lru_cache(maxsize=512)
def _lane_of(raw: bytes) -> tuple[LaneSpec, LaneId]:
    """Return a stored spec and the id of its lane, which batches by the thousand have in common."""
    spec = LaneSpec.decode(raw)
    return spec, spec.lane_id


def quarantine_sentence(batch_id: BatchId) -> str:
    """Return why a batch is quarantined, and what to do about it."""
    return (
        f"quarantined: three workers died on this batch. `batchling retry {batch_id}` tries again, "
        f"`batchling cancel {batch_id}` gives it up"
    )


class EarlyRead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far the results of a batch that still runs were read."""

    cursor: str = ""
    """The provider's word for where to go on, '' = from the start."""
    n_done: int = 0
    """How many rows the provider was through with when everything was read that could be."""

    def encode(self) -> bytes:
        """Return the stored form; empty if there is nothing to store."""
        return b"" if self == EarlyRead() else msgspec.json.encode(self)

    @classmethod
    def decode(cls, raw: bytes) -> EarlyRead:
        """Read the stored form; if it cannot be read, begin from the start, which costs time but no answer."""
        try:
            return msgspec.json.decode(raw, type=cls)
        except UNREADABLE:
            return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """State of record of one batch; times are aware, counts are of requests."""

    batch_id: BatchId
    lane_id: LaneId
    spec: LaneSpec
    state: BatchState
    created_at: dt.datetime
    updated_at: dt.datetime
    n_requests: int
    n_bytes: int
    n_succeeded: int
    n_failed: int
    n_requeued: int
    n_dropped: int
    n_done: int
    """Rows the provider says it is through with; for display only."""
    n_lines: int
    n_stumbles: int
    n_unended: int
    """Steps in a row that began, got nowhere and never ended: they, or their neighbours, killed workers."""
    quarantined_at: dt.datetime | None
    """When it was taken off the schedule for killing its workers; None while it is on it."""
    n_denied: int
    """Looks in a row to which the provider said that it does not know the batch, or that the key has no right."""
    denied_since: dt.datetime | None
    read_at: dt.datetime | None
    """The server's time when a step began on it; None if the batch was only read."""
    server: str
    """Which run of Redis knows every armed create of this batch; '' = unknown."""
    server_now: str
    """Which run of Redis the step began under."""
    label: str
    input_file_id: str
    former_file_id: str
    """The input file before the last one: a batch may have been made of it too."""
    account: str
    """Digest of the account under which its file and its batch were made; '' before that."""
    create_at: dt.datetime | None
    doubted_at: dt.datetime | None
    """When a search found no batch that an earlier run of Redis may have known of; None after the next create."""
    unable_since: dt.datetime | None
    """Since when it could not be submitted, whatever was tried; None while nothing kept it, or its quota only."""
    submitted_at: dt.datetime | None
    confirmed_at: dt.datetime | None
    """When the provider last showed the batch itself as running, and not a list that it is in; None = never."""
    ended_at: dt.datetime | None
    collected_at: dt.datetime | None
    settled_at: dt.datetime | None
    unread_since: dt.datetime | None
    """When a reading first found fewer results than there should be; None while none did."""
    n_unread: int
    """Readings in a row that did."""
    reopened_at: dt.datetime | None
    """When it was reopened to read its results once more; the provider runs nothing again."""
    adopted: bool
    """Whether the requests of a reopened batch are back in flight in it."""
    held_since: dt.datetime | None
    """Since when an ended batch has waited for results that cannot be read; a cancel then ends it at once."""
    provider_batch_id: ProviderBatchId | None
    provider_status: str
    outcome: Outcome | None
    ending: bytes
    error: str
    poll_s: float
    cancel_requested: bool
    cancel_at: dt.datetime | None
    """When its cancel was first requested while the provider may have had it."""
    cancel_again: bool
    """Whether its cancel was requested once more, half a minute later or more."""
    n_cancels: int
    """How many times the provider was asked to cancel it."""
    cancel_asked_at: dt.datetime | None
    moved_to: BatchId | None
    """The batch in which its unanswered requests went on, if some did."""
    early: EarlyRead
    timeline: str
    """What happened to it: lines of milliseconds since 1970 and words, as `_moved.lua` writes them."""
    tokens: Tokens
    """The tokens of its answers."""
    sent_again: Mapping[SentAgain, int]
    """How many of its requests were sent to the provider once more, by reason."""
    n_refused: int
    """How many requests its results hold an error for that is worth another attempt; known once they are read."""
    n_answer_bytes: int
    """How many bytes its stored answers take."""
    runs: tuple[RunId, ...]
    """The first 100 runs that have put requests into it, joined requests in it, or moved on to it."""
    has_more_runs: bool
    quota_id: str
    """The quota of enqueued tokens that it counts against; '' before it was first to be submitted."""

    @classmethod
    def decode(cls, fields: Mapping[bytes, bytes]) -> Batch:
        """Read the hash of a batch; raise `CorruptRecord`."""

        known = {name.decode(errors="replace"): raw for name, raw in fields.items()}

        def text(name: str) -> str:
            return known.get(name, b"").decode()

        def number(name: str) -> int:
            value = int(known.get(name, b"0"))
            if value < 0:
                raise ValueError(name)
            return value

        def time(name: str) -> dt.datetime | None:
            return moment(number(name)) if name in known else None

        try:
            spec, its_lane = _lane_of(fields[b"spec"])
            batch = cls(
                batch_id=BatchId(fields[b"id"].decode()),
                lane_id=LaneId(fields[b"lane"].decode()),
                spec=spec,
                state=BatchState(fields[b"state"].decode()),
                created_at=moment(number("created_at")),
                updated_at=moment(number("updated_at")),
                n_requests=number("n_requests"),
                n_bytes=number("n_bytes"),
                n_succeeded=number("n_succeeded"),
                n_failed=number("n_failed"),
                n_requeued=number("n_requeued"),
                n_dropped=number("n_dropped"),
                n_done=number("n_done"),
                n_lines=number("n_lines"),
                n_stumbles=number("n_stumbles"),
                n_unended=sum(token not in ("", "0") for token in text("starts").split(",")),
                quarantined_at=time("quarantined_at"),
                n_denied=number("n_denied"),
                denied_since=time("denied_since"),
                read_at=time("now"),
                server=text("server"),
                server_now=text("server_now"),
                label=text("label"),
                input_file_id=text("input_file_id"),
                former_file_id=text("former_file_id"),
                account=text("account"),
                create_at=time("create_at"),
                doubted_at=time("doubted_at"),
                unable_since=time("unable_since"),
                submitted_at=time("submitted_at"),
                confirmed_at=time("confirmed_at"),
                ended_at=time("ended_at"),
                collected_at=time("collected_at"),
                settled_at=time("settled_at"),
                unread_since=time("unread_since"),
                n_unread=number("n_unread"),
                reopened_at=time("reopened_at"),
                adopted=text("adopted") == "1",
                held_since=time("held_since"),
                provider_batch_id=ProviderBatchId(text("provider_batch_id")) or None,
                provider_status=text("provider_status"),
                outcome=Outcome(text("outcome")) if b"outcome" in fields else None,
                ending=fields.get(b"ending", b"{}"),
                # The reason that holds the current step up is newer than the last step's error.
                error=text("silence") or text("error"),
                poll_s=number("poll_ms") / 1000,
                cancel_requested=text("cancel_requested") == "1",
                cancel_at=time("cancel_at"),
                cancel_again=text("cancel_again") == "1",
                n_cancels=number("n_cancels"),
                cancel_asked_at=time("cancel_asked_at"),
                moved_to=BatchId(text("moved_to")) or None,
                early=EarlyRead.decode(fields.get(b"early", b"{}")),
                timeline=fields.get(b"timeline", b"").decode(errors="replace"),
                tokens=Tokens.decode(fields),
                sent_again=sent_again(fields),
                n_refused=number("n_refused"),
                n_answer_bytes=number("n_answer_bytes"),
                runs=tuple(RunId(one) for one in text("runs").split(",") if one not in ("", "+")),
                has_more_runs=text("runs").endswith("+"),
                quota_id=text("quota"),
            )
        except (KeyError, ValueError, OverflowError) as error:
            raise CorruptRecord("a stored batch cannot be read") from error
        if its_lane != batch.lane_id:
            # With another lane's spec it would be sent with another lane's key.
            raise CorruptRecord("a stored batch holds the spec of another lane")
        return batch

    @property
    def n_open(self) -> int:
        """How many requests are neither answered nor dropped nor in another batch, by its counters."""
        return self.n_requests - self.n_succeeded - self.n_failed - self.n_requeued - self.n_dropped
