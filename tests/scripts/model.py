"""What the scripts promise, as plain Python: batches, requests and mail of one lane, without Redis and without time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from batchling_client.wire.keys import BatchId, Mailbox, RequestId
from batchling_client.wire.records.batch import UNENDED_ALLOWED
from batchling_client.wire.scripts import Enqueued
from batchling_client.wire.states import BatchState, Placement, RowKind, Verdict

MAX_ATTEMPTS = 2
MOST_NAMED = 32
"""Mailboxes that a request in flight names, as `_request.lua` says."""
NEVER_SENT = (BatchState.OPEN, BatchState.SEALED)


@dataclass
class ModelBatch:
    state: BatchState = BatchState.OPEN
    token: int = 0
    begun: int = -1
    begun_by: str = ""
    rows: list[tuple[RequestId, int]] = field(default_factory=list)
    """Requests with the attempt that they were on when they came."""
    n_dropped: int = 0
    unended: list[int] = field(default_factory=list)
    """Tokens of steps in a row that began, got nowhere and never ended."""
    quarantined: bool = False
    cancel_requested: bool = False
    opened_elsewhere: bool = False
    """By another run of Redis, which may know of a create that this one does not."""
    armed: bool = False
    """A create may have been sent of which nobody knows how it went."""
    given_up: bool = False
    stranded: bool = False
    """Given up at some time: requests may wait in it until their clients find out."""
    unreadable: bool = False
    known: bool = False
    """Its provider's id is stored: it may be paid for, and is never created again."""
    held: bool = False
    """Its answers are counted and cannot be read."""
    kept: set[RequestId] = field(default_factory=set)
    """Requests that it settled without an answer, so that a retry can read for them."""
    reopened: bool = False

    @property
    def never_sent(self) -> bool:
        return self.state in NEVER_SENT and not self.opened_elsewhere

    def let_go(self) -> None:
        self.token += 1
        self.unended = []
        self.unreadable = False


@dataclass
class Flight:
    batch_id: BatchId
    attempt: int
    mailboxes: list[Mailbox]
    some_left_out: bool = False

    @property
    def place(self) -> str:
        named = ["+", *self.mailboxes] if self.some_left_out else self.mailboxes
        return f"{self.batch_id}|{self.attempt}|{','.join(named)}"

    def join(self, mailbox: Mailbox) -> None:
        if mailbox in self.mailboxes:
            return
        self.some_left_out = self.some_left_out or len(self.mailboxes) >= MOST_NAMED
        self.mailboxes = [*self.mailboxes, mailbox][-MOST_NAMED:]


@dataclass(frozen=True)
class Hold:
    """A claim as a worker remembers it, be it good or long overtaken."""

    batch_id: BatchId
    token: int


@dataclass
class Model:
    batches: dict[BatchId, ModelBatch] = field(default_factory=dict)
    open: BatchId | None = None
    flying: dict[RequestId, Flight] = field(default_factory=dict)
    dropped: dict[RequestId, tuple[BatchId, int]] = field(default_factory=dict)
    """Withdrawn, with the batch that they had been in while it was open."""
    results: dict[RequestId, bool] = field(default_factory=dict)
    """Answered requests: whether with a success."""
    mail: Counter[tuple[Mailbox, RequestId]] = field(default_factory=Counter)
    owners: dict[str, BatchId] = field(default_factory=dict)
    """Which batch owns a provider's id."""

    def waiting_in(self, batch_id: BatchId) -> list[RequestId]:
        return [one for one, flight in self.flying.items() if flight.batch_id == batch_id]

    def fresh(self, hold: Hold, states: Collection[BatchState] = tuple(BatchState)) -> bool:
        batch = self.batches[hold.batch_id]
        return batch.token == hold.token and batch.state in states

    def enqueue(
        self, guess: BatchId, asked: Sequence[RequestId], mailbox: Mailbox, cap: int, *, anew: bool
    ) -> Enqueued:
        placements: list[Placement] = []
        opened = full = False
        for one in asked:
            success = self.results.get(one)
            if success or (success is False and not anew):
                placements.append(Placement.ANSWERED)
            elif one in self.flying:
                self.flying[one].join(mailbox)
                late = self.batches[self.flying[one].batch_id].cancel_requested
                placements.append(Placement.LATE if late else Placement.JOINED)
            else:
                refused = None if opened else self._open(guess)
                if refused is not None:
                    if placements:
                        break
                    return refused
                opened = True
                if not self._put(one, guess, mailbox, cap):
                    full = True
                    break
                placements.append(Placement.QUEUED)
        if full or (opened and len(self.batches[guess].rows) >= cap):
            self._close(guess)
        return Enqueued(verdict=Verdict.OK, placements=tuple(placements))

    def _open(self, guess: BatchId) -> Enqueued | None:
        if self.open is not None and self.open != guess:
            return Enqueued(verdict=Verdict.MOVED, open_batch=self.open)
        if guess in self.batches and (self.open is None or self.batches[guess].state is not BatchState.OPEN):
            self.open = None
            return Enqueued(verdict=Verdict.USED)
        self.open = guess
        self.batches.setdefault(guess, ModelBatch())
        return None

    def _put(self, one: RequestId, batch_id: BatchId, mailbox: Mailbox, cap: int) -> bool:
        batch, (dropped_from, attempt) = self.batches[batch_id], self.dropped.get(one, (None, 1))
        if dropped_from == batch_id:
            batch.n_dropped -= 1
        elif len(batch.rows) >= cap:
            return False
        else:
            attempt = 1
            batch.rows.append((one, 1))
        self.dropped.pop(one, None)
        self.results.pop(one, None)
        self.flying[one] = Flight(batch_id, attempt, [mailbox])
        return True

    def _close(self, batch_id: BatchId) -> None:
        batch = self.batches[batch_id]
        batch.state, batch.token = BatchState.SEALED, batch.token + 1
        if self.open == batch_id:
            self.open = None

    def claim(self, batch_id: BatchId, now_ms: int) -> Hold | None:
        """A claim of a batch that is due, which every batch is when the test says so."""
        batch = self.batches.get(batch_id)
        if batch is None or batch.state.terminal or batch.quarantined:
            return None
        batch.token = max(batch.token + 1, now_ms)
        return Hold(batch_id, batch.token)

    def begin(self, hold: Hold, states: Collection[BatchState], nonce: str) -> bool:
        batch = self.batches[hold.batch_id]
        if not self.fresh(hold, states):
            return False
        if batch.begun == hold.token:
            return batch.begun_by == nonce
        if len(batch.unended) == UNENDED_ALLOWED:
            batch.quarantined = True
            batch.token += 1
            return False
        batch.begun, batch.begun_by = hold.token, nonce
        batch.unended.append(hold.token)
        return True

    def survived(self, hold: Hold) -> Verdict:
        batch = self.batches[hold.batch_id]
        if self.fresh(hold) and batch.begun == hold.token:
            batch.let_go()
            return Verdict.OK
        if hold.token not in batch.unended:
            return Verdict.STALE
        batch.unended.remove(hold.token)
        batch.quarantined = False
        return Verdict.OK

    def own(self, batch_id: BatchId, name: str) -> BatchId | None:
        """Return the living batch that owns the id already; else this batch owns it from now on."""
        owner = self.owners.get(name, batch_id)
        if owner != batch_id and not self.batches[owner].state.terminal:
            return owner
        self.owners[name] = batch_id
        return None

    def retry(self, batch_id: BatchId) -> Verdict:
        batch = self.batches[batch_id]
        if batch.state.terminal:
            return Verdict.TOO_LATE
        if batch.begun == batch.token:
            return Verdict.BUSY
        batch.quarantined = False
        batch.let_go()
        return Verdict.OK

    def seal(self, hold: Hold) -> bool:
        if not self.fresh(hold, (BatchState.OPEN,)):
            return False
        self._close(hold.batch_id)
        return True

    def move(
        self, hold: Hold, before: Collection[BatchState], after: BatchState | None, *, spent: bool
    ) -> bool:
        """Any move under a claim: out of `before`, into `after` (None = stays), which spends the token or keeps it."""
        if not self.fresh(hold, before):
            return False
        batch = self.batches[hold.batch_id]
        batch.state = after or batch.state
        if spent:
            batch.let_go()
        return True

    def uploaded(self, hold: Hold) -> bool:
        """The step got further than those before it that never ended."""
        moved = self.move(hold, (BatchState.SUBMITTING,), None, spent=False)
        if moved:
            self.batches[hold.batch_id].unended = []
        return moved

    def give_up(self, hold: Hold) -> bool:
        """Its rows are gone; the requests in it are stranded until their clients find out."""
        if not self.move(hold, tuple(BatchState), BatchState.FAILED, spent=True):
            return False
        batch = self.batches[hold.batch_id]
        batch.given_up = batch.stranded = batch.unreadable = True
        return True

    def unreadable(self, hold: Hold) -> bool:
        moved = self.move(hold, tuple(BatchState), None, spent=True)
        if moved:
            self.batches[hold.batch_id].unreadable = True
        return moved

    def unread(self, hold: Hold, *, held: bool) -> bool:
        moved = self.move(hold, (BatchState.ENDED,), None, spent=True)
        if moved:
            self.batches[hold.batch_id].held = held
        return moved

    def collected(self, hold: Hold) -> bool:
        return self.unread(hold, held=False)

    def ended(self, hold: Hold, before: Collection[BatchState]) -> bool:
        moved = self.move(hold, before, BatchState.ENDED, spent=True)
        if moved:
            self.batches[hold.batch_id].held = False
        return moved

    def keep(self, hold: Hold, kept: Collection[RequestId]) -> bool:
        fresh = self.fresh(hold, (BatchState.ENDED,))
        if fresh:
            self.batches[hold.batch_id].kept |= set(kept)
        return fresh

    def settle(self, hold: Hold) -> bool:
        batch = self.batches[hold.batch_id]
        unreadable = batch.unreadable
        moved = self.move(hold, (BatchState.ENDED,), BatchState.SETTLED, spent=True)
        if moved:
            batch.unreadable = unreadable
        return moved

    def reopen(self, batch_id: BatchId) -> Verdict:
        batch = self.batches.get(batch_id)
        if batch is None:
            return Verdict.GONE
        if not batch.state.terminal:
            return Verdict.BUSY
        if not batch.known or not batch.kept:
            return Verdict.TOO_LATE
        batch.state, batch.reopened = BatchState.SUBMITTED, True
        batch.cancel_requested = batch.held = batch.given_up = False
        batch.let_go()
        return Verdict.OK

    def adopt(self, hold: Hold, wanted: Collection[RequestId]) -> bool:
        """Drop failures; what is in flight or answered with a success stays.

        An open batch from which an adopted request was withdrawn is closed: it has the row of that request.
        """
        if not self.fresh(hold, (BatchState.SUBMITTED,)):
            return False
        for one in wanted:
            if one not in self.flying and not self.results.get(one):
                left, _ = self.dropped.pop(one, (None, 0))
                if left is not None and self.batches[left].state is BatchState.OPEN:
                    self._close(left)
                self.results.pop(one, None)
                self.flying[one] = Flight(hold.batch_id, MAX_ATTEMPTS, [])
        return True

    def forget(self, one: RequestId, batch_id: BatchId) -> Verdict:
        flight = self.flying.get(one)
        if flight is None or flight.batch_id != batch_id:
            return Verdict.GONE
        batch = self.batches[batch_id]
        if not batch.state.terminal:
            return Verdict.LIVES
        del self.flying[one]
        return Verdict.UNREADABLE if batch.unreadable else Verdict.OK

    def cancel(self, batch_id: BatchId) -> Verdict:
        batch = self.batches.get(batch_id)
        if batch is None:
            return Verdict.GONE
        over = batch.state is BatchState.ENDED or batch.state.terminal
        held = batch.state is BatchState.ENDED and batch.held
        if over and not batch.quarantined and not held:
            return Verdict.TOO_LATE
        hopeless = held or (batch.quarantined and (over or batch.cancel_requested))
        batch.quarantined, batch.cancel_requested = False, True
        if batch.never_sent or hopeless:
            batch.state, batch.held = BatchState.ENDED, False
            if self.open == batch_id:
                self.open = None
        elif batch.state is BatchState.OPEN:
            self._close(batch_id)
        elif batch.state is BatchState.SUBMITTING and batch.begun == batch.token:
            return Verdict.OK
        batch.let_go()
        return Verdict.OK

    def withdraw(self, one: RequestId, batch_id: BatchId, mailbox: Mailbox) -> Verdict:
        flight = self.flying.get(one)
        if flight is None or flight.batch_id != batch_id:
            return Verdict.GONE
        others = [name for name in flight.mailboxes if name != mailbox]
        if others or flight.some_left_out:
            flight.mailboxes = others
            return Verdict.JOINED
        batch = self.batches[batch_id]
        if not batch.never_sent:
            return Verdict.TOO_LATE
        self._drop(one)
        return Verdict.OK

    def drop(
        self, asked: Sequence[RequestId], batch_id: BatchId, mailboxes: Collection[Mailbox]
    ) -> tuple[Verdict, int, int, bool]:
        """The verdict, how many were dropped, how many left for others, and whether that ended the batch."""
        batch = self.batches.get(batch_id)
        if batch is None:
            return Verdict.GONE, 0, 0, False
        if not batch.never_sent:
            return Verdict.TOO_LATE, 0, 0, False
        n_dropped = n_shared = 0
        for one in asked:
            flight = self.flying.get(one)
            if flight is None or flight.batch_id != batch_id:
                continue
            if flight.some_left_out or not set(flight.mailboxes) <= set(mailboxes):
                n_shared += 1
                continue
            n_dropped += 1
            del self.flying[one]
            if batch.state is BatchState.OPEN:
                self.dropped[one] = (batch_id, flight.attempt)
            self.results[one] = False
            self.mail.update((mailbox, one) for mailbox in flight.mailboxes)
        batch.n_dropped += n_dropped
        ended = n_dropped > 0 and batch.n_dropped == len(batch.rows)
        if ended:
            batch.state, batch.quarantined, batch.cancel_requested = BatchState.ENDED, False, True
            batch.let_go()
            if self.open == batch_id:
                self.open = None
        return Verdict.OK, n_dropped, n_shared, ended

    def deliver(self, hold: Hold, rows: Sequence[tuple[RequestId, RowKind]]) -> tuple[int, int] | None:
        """How many were answered and how many left for another attempt; None = stale."""
        if not self.fresh(hold):
            return None
        n_answered, left = 0, set()
        for one, kind in rows:
            flight = self.flying.get(one)
            if flight is None or flight.batch_id != hold.batch_id:
                if kind is not RowKind.SUCCESS or not self._may_answer_elsewhere(hold.batch_id, one):
                    continue
                if flight is None:
                    flight = Flight(hold.batch_id, 1, [])
                else:
                    self._drop(one)
            elif kind is RowKind.RETRY and flight.attempt < MAX_ATTEMPTS:
                left.add(one)
                continue
            left.discard(one)
            n_answered += 1
            self.batches[hold.batch_id].unended = []
            self.flying.pop(one, None)
            self.results[one] = kind is RowKind.SUCCESS
            self.mail.update((mailbox, one) for mailbox in flight.mailboxes)
        return n_answered, len(left)

    def _may_answer_elsewhere(self, batch_id: BatchId, one: RequestId) -> bool:
        """Whether a reopened batch answers a request that it had left without an answer and that is not in it."""
        batch, flight = self.batches[batch_id], self.flying.get(one)
        if not batch.reopened or one not in batch.kept or self.results.get(one):
            return False
        return flight is None or self.batches[flight.batch_id].never_sent

    def _drop(self, one: RequestId) -> None:
        """A request leaves its batch before it is sent; its row stays while the batch is open."""
        flight = self.flying.pop(one)
        batch = self.batches[flight.batch_id]
        if batch.state is BatchState.OPEN:
            self.dropped[one] = (flight.batch_id, flight.attempt)
        batch.n_dropped += 1

    def requeue(
        self, hold: Hold, target: BatchId, rows: Sequence[tuple[RequestId, int]], cap: int
    ) -> tuple[Verdict, int, BatchId | None]:
        if not self.fresh(hold, (BatchState.ENDED,)):
            return Verdict.STALE, 0, None
        mine = set(self.waiting_in(hold.batch_id))
        if not any(one in mine for one, _ in rows):
            return Verdict.OK, len(rows), None
        refused = self._open(target)
        if refused is not None:
            return refused.verdict, 0, refused.open_batch
        batch = self.batches[target]
        for n_taken, (one, attempt) in enumerate(rows):
            if one not in mine:
                continue
            if len(batch.rows) >= cap:
                self._close(target)
                return Verdict.OK, n_taken, None
            mine.discard(one)
            self.batches[hold.batch_id].unended = []
            batch.rows.append((one, attempt))
            self.flying[one] = replace(self.flying[one], batch_id=target, attempt=attempt)
        if len(batch.rows) >= cap:
            self._close(target)
        return Verdict.OK, len(rows), None
