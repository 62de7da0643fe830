"""Sends requests to Redis, many in one round trip."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Final, Protocol

from redis.exceptions import OutOfMemoryError, RedisError

from ..errors import QueueFull, QueueUnreachable
from ..intercept.interceptor import HttpReply, warn_once
from ..wire.deployment import redis_errors
from ..wire.deployment.connection import UNREACHABLE, passes
from ..wire.ids import new_batch_id
from ..wire.keys import BatchId, LaneId, Mailbox, RequestId
from ..wire.scripts import RowIn, Scripts
from ..wire.shown import shown
from ..wire.states import Placement, Verdict
from . import mailbox_reader, replies
from .cached import discard_unfit
from .calls import Request
from .credentials import Credentials
from .lanes import Lane
from .redis_outage import Outage
from .withdrawing import Withdrawals

_logger = logging.getLogger(__name__)

ROWS_AT_ONCE: Final = 128
BYTES_AT_ONCE: Final = 1024 * 1024
PASSING_S: Final = 0.5


class Callers(Protocol):
    """Those who ask, as the sender sees them."""

    @property
    def last_mail(self) -> bytes:
        """The entry of the session's mailbox that was read last."""
        ...

    @property
    def failed_early(self) -> Collection[RequestId]:
        """Requests whose failure was found before the mail that lists it was read."""
        ...

    def expects(self, request_id: RequestId) -> bool:
        """Return whether somebody still waits for the request."""
        ...

    def placed(self, request_ids: Iterable[RequestId]) -> None:
        """Note that Redis holds these requests."""
        ...

    def announce(self, request_ids: Iterable[RequestId]) -> None:
        """Note that these requests are answered already."""
        ...

    def answer(self, request_id: RequestId, reply: HttpReply) -> None:
        """Answer a request that could not be queued, with the reason."""
        ...


class _Chunk:
    """Rows of one lane on their way into Redis, sent until Redis holds or has refused all of them."""

    def __init__(self, lane: Lane, rows: Sequence[RowIn], waiters: Callers) -> None:
        self.lane = lane
        self.rows = rows
        self.last_mail = waiters.last_mail
        """The mail that was read last before the rows were sent for the first time."""
        self.failed_before = {row.request_id for row in rows if row.request_id in waiters.failed_early}
        """Requests of which later mail will say that they failed: they had failed before they were sent."""
        self.lost_reply = False
        """Whether Redis may have done the last send without a reply."""


class Enqueue:
    """The way of a session's requests into Redis: one sender, so that calls of one loop turn travel together."""

    def __init__(
        self, scripts: Scripts, mailbox: Mailbox, credentials: Credentials, waiters: Callers, outage: Outage
    ) -> None:
        self._scripts = scripts
        self._mailbox = mailbox
        self._credentials = credentials
        self._waiters = waiters
        self._outage = outage
        self._waiting: dict[Lane, deque[Request]] = {}
        self._n_sending = 0
        self._open: dict[LaneId, BatchId] = {}
        self._asked_again: set[RequestId] = set()
        self._wake = asyncio.Event()
        self.withdrawals: Final = Withdrawals(scripts, mailbox, waiters.expects, self._wake)
        self.late: set[RequestId] = set()
        """Requests that joined a batch while it was being cancelled, and have not been asked for again."""

    def add(self, request: Request) -> None:
        """Take a request whose caller is among the waiters already; it is sent in the next loop turn."""
        rows = self._waiting.get(request.lane)
        if rows is None:
            rows = self._waiting[request.lane] = deque()
        rows.append(request)
        if request.place is None or request.place.again:
            self._asked_again.add(request.request_id)
        self._wake.set()

    @property
    def n_unsent(self) -> int:
        """How many requests Redis has neither taken nor refused yet."""
        return self._n_sending + sum(len(rows) for rows in self._waiting.values())

    async def send(self) -> None:
        """Send requests, and withdrawals between them, for as long as the session lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting or self.withdrawals.n_due:
                await self.send_waiting()
                await self.withdrawals.send()

    async def send_waiting(self) -> None:
        """Send the requests that were added; return once Redis holds them or has refused them."""
        while self._waiting:
            lane = next(iter(self._waiting))
            rows = self._waiting.pop(lane)
            chunk = self._take(rows)
            if rows:
                # To the end of the line: a long lane does not hold up the others.
                self._waiting[lane] = rows
            if chunk:
                self._n_sending = len(chunk)
                try:
                    await self._send_chunk(_Chunk(lane, chunk, self._waiters))
                finally:
                    self._n_sending = 0

    def _take(self, rows: deque[Request]) -> list[RowIn]:
        chunk: list[RowIn] = []
        n_bytes = 0
        while rows and len(chunk) < ROWS_AT_ONCE:
            row = rows[0]
            if chunk and n_bytes + len(row.packed) > BYTES_AT_ONCE:
                break
            rows.popleft()
            if self._waiters.expects(row.request_id):
                chunk.append(RowIn(request_id=row.request_id, packed=row.packed, size=row.size))
                n_bytes += len(row.packed)
        return chunk

    async def _send_chunk(self, chunk: _Chunk) -> None:
        while chunk.rows:
            try:
                await self._place(chunk, await self._credentials.store(chunk.lane))
            except UNREACHABLE as error:
                # The script may have run: ids make the resend harmless, and a failure since then is the answer.
                chunk.lost_reply = True
                await self._outage.over(error)
                self._credentials.doubt()
            except OutOfMemoryError:
                self._refuse(chunk.rows, QueueFull.sentence, kind=QueueFull)
                return
            except RedisError as error:
                if passes(error):
                    warn_once(f"Redis rejects writes, and requests wait: {error}", os.getpid())
                    await asyncio.sleep(PASSING_S)
                    continue
                said = redis_errors.refusal_of(error)
                sentence = f"Redis {said}." if said else f"Redis refused the request: {error}"
                self._refuse(chunk.rows, sentence, kind=QueueUnreachable)
                return

    async def _place(self, chunk: _Chunk, whose: str) -> None:
        """Send the rows of a chunk once; leave in it the rows that have to be sent (again)."""
        lane, rows, terms = chunk.lane, chunk.rows, chunk.lane.terms
        batch_id = self._open.get(lane.lane_id) or self._fresh(lane)
        reply = await self._scripts.enqueue(
            batch_id=batch_id,
            lane_id=lane.lane_id,
            spec=lane.packed_spec,
            mailbox=self._mailbox,
            run_id=terms.run_id,
            run_name=terms.run_name,
            cap=lane.cap,
            poll_ms=int(terms.poll_s * 1000),
            ask_failed_anew=not chunk.lost_reply,
            repeats="".join("01"[row.request_id in self._asked_again] for row in rows),
            whose=whose,
            rows=rows,
        )
        if reply.verdict is Verdict.UNSEALED:
            self._credentials.doubt()
            return
        if reply.verdict is Verdict.MOVED and reply.open_batch is not None:
            self._open[lane.lane_id] = reply.open_batch
            return
        if reply.verdict is not Verdict.OK:
            self._fresh(lane)
            return
        n_taken = len(reply.placements)
        by_placement: dict[Placement, list[RequestId]] = {placement: [] for placement in Placement}
        for row, placement in zip(rows, reply.placements, strict=False):
            by_placement[placement].append(row.request_id)
        queued, late = by_placement[Placement.QUEUED], by_placement[Placement.LATE]
        taken = {row.request_id for row in rows[:n_taken]}
        answered = await self._answered(chunk, by_placement[Placement.ANSWERED])
        placed = taken.difference(by_placement[Placement.ANSWERED])
        lane.pace.queued(batch_id, queued)
        self.late.difference_update(taken)
        self.late.update(late)
        # After a lost reply, a request that is queued already may have been queued by the call itself.
        met = answered if chunk.lost_reply else answered | placed
        self._count_reused(lane, met.difference(queued))
        self._asked_again -= taken
        self._waiters.placed(placed)
        if answered:
            self._waiters.announce(answered)
        if n_taken < len(rows):
            self._fresh(lane)
        chunk.rows = [
            *(row for row in rows[:n_taken] if row.request_id not in placed | answered),
            *rows[n_taken:],
        ]
        chunk.lost_reply = False

    async def _answered(self, chunk: _Chunk, request_ids: Sequence[RequestId]) -> set[RequestId]:
        """Return those whose stored answers are answers to this session; the others must be asked for again."""
        answered = set(request_ids)
        if answered and chunk.lost_reply:
            # Only a result announced to this session since then answers the lost call; an earlier failure does not.
            redis, keys = self._scripts.redis, self._scripts.keys
            announced = await mailbox_reader.listed_since(redis, keys, self._mailbox, chunk.last_mail)
            answered &= announced.difference(chunk.failed_before)
        if answered:
            answered -= await discard_unfit(self._scripts, chunk.lane, list(answered))
        return answered

    def _count_reused(self, lane: Lane, met: set[RequestId]) -> None:
        """Count the requests that were there before their run asked for them."""
        n_reused = len(met - self._asked_again)
        if n_reused:
            lane.reused.append(n_reused)

    def _fresh(self, lane: Lane) -> BatchId:
        batch_id = self._open[lane.lane_id] = new_batch_id()
        return batch_id

    def _refuse(
        self, rows: Iterable[RowIn], sentence: str, *, kind: type[QueueFull | QueueUnreachable]
    ) -> None:
        _logger.error("%s", shown(sentence))
        reply = replies.of_error(kind, status=503, sentence=sentence)
        for row in rows:
            self._waiters.answer(row.request_id, reply)
