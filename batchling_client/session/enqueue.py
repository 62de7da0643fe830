"""Sends requests to Redis, many in one round trip, and withdraws requests that nobody waits for any more."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from redis.exceptions import OutOfMemoryError, RedisError

from ..errors import QueueFull, QueueUnreachable
from ..intercept.interceptor import HttpReply, warn_once
from ..wire.deployment.connection import UNREACHABLE, passes
from ..wire.ids import new_batch_id
from ..wire.keys import BatchId, LaneId, Mailbox, RequestId
from ..wire.records.batch import Batch
from ..wire.records.row_and_result import CorruptRecord
from ..wire.scripts import RowIn, Scripts
from ..wire.states import Placement, Verdict
from . import mailbox_reader, replies
from .cached import discard_unfit
from .calls import Request
from .credentials import KEEP_MS, Credentials
from .lanes import Lane
from .redis_outage import Outage

_logger = logging.getLogger(__name__)

ROWS_AT_ONCE: Final = 128
BYTES_AT_ONCE: Final = 1024 * 1024
WITHDRAWN_AT_ONCE: Final = 32
PASSING_S: Final = 0.5


Report: TypeAlias = Callable[[Sequence[RequestId], Sequence[RequestId]], None]
"""Called with the requests that were withdrawn, and with those whose answers come, or have come, all the same."""


class Withdrawal(NamedTuple):
    """A request that nobody waits for any more; with `cancel` a batch that is at the provider is cancelled for it."""

    request_id: RequestId
    report: Report
    cancel: bool
    in_doubt: bool = False
    """Whether a withdrawal was sent before, and its reply never read."""


class _Outcome(NamedTuple):
    """What became of the requests that one caller withdrew."""

    withdrawn: list[RequestId]
    running: list[RequestId]


class Callers(Protocol):
    """Those who ask, as the sender sees them."""

    @property
    def last_mail(self) -> bytes:
        """The entry of the session's mailbox that was read last."""
        ...

    @property
    def told_early(self) -> Collection[RequestId]:
        """Requests whose failure was found before the mail that tells of it was read."""
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
        self._withdrawals: deque[Withdrawal] = deque()
        self._none_to_withdraw = asyncio.Event()
        self._none_to_withdraw.set()
        self._open: dict[LaneId, BatchId] = {}
        self._asked_again: set[RequestId] = set()
        self._overdue: dict[BatchId, set[RequestId]] = {}
        self._wake = asyncio.Event()
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

    def withdraw(self, request_ids: Iterable[RequestId], report: Report, *, cancel: bool = False) -> None:
        """Withdraw unsubmitted requests that nobody waits for, and report the outcome.

        With ``cancel`` a batch that is at the provider is cancelled, once all that is unanswered in it was withdrawn.
        """
        self.withdraw_all(Withdrawal(request_id, report, cancel) for request_id in request_ids)

    def withdraw_all(self, withdrawals: Iterable[Withdrawal]) -> None:
        """Withdraw requests of any runs."""
        self._withdrawals.extend(withdrawals)
        if self._withdrawals:
            self._none_to_withdraw.clear()
            self._wake.set()

    def hand_over(self) -> list[Withdrawal]:
        """Hand over the withdrawals that are due, for another session to do them."""
        withdrawals = list(self._withdrawals)
        self._withdrawals.clear()
        return withdrawals

    @property
    def n_unsent(self) -> int:
        """How many requests Redis has neither taken nor refused yet."""
        return self._n_sending + sum(len(rows) for rows in self._waiting.values())

    @property
    def n_withdrawals(self) -> int:
        """How many withdrawals are due."""
        return len(self._withdrawals)

    async def withdrawals_done(self) -> None:
        """Return once no withdrawal is due."""
        await self._none_to_withdraw.wait()

    async def send(self) -> None:
        """Send requests for as long as the session lives.

        Withdrawals are done between two sends: so none can hit a request that was just asked for again.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting or self._withdrawals:
                await self.send_waiting()
                await self.send_withdrawals()

    async def send_withdrawals(self) -> None:
        """Send the withdrawals that are due."""
        outcomes: dict[Report, _Outcome] = {}
        try:
            while self._withdrawals:
                some = [
                    self._withdrawals.popleft() for _ in range(min(len(self._withdrawals), WITHDRAWN_AT_ONCE))
                ]
                try:
                    await self._take_back(
                        [one for one in some if not self._waiters.expects(one.request_id)], outcomes
                    )
                except (RedisError, CorruptRecord, OSError):
                    # Nobody waits for these requests: those that cannot be withdrawn keep running.
                    for one in (*some, *self._withdrawals):
                        _outcome(outcomes, one).running.append(one.request_id)
                    self._withdrawals.clear()
                except BaseException:
                    # Interrupted: the next try, perhaps another sender's, repeats them.
                    self._withdrawals.extendleft(one._replace(in_doubt=True) for one in reversed(some))
                    raise
        finally:
            for report, outcome in outcomes.items():
                # Requests that were made again meanwhile are wanted.
                report(*([one for one in some_ids if not self._waiters.expects(one)] for some_ids in outcome))
        self._none_to_withdraw.set()

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
                    await self._send_chunk(lane, chunk)
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

    async def _send_chunk(self, lane: Lane, rows: Sequence[RowIn]) -> None:
        lost_reply, before = False, self._waiters.last_mail
        told_early = {row.request_id for row in rows if row.request_id in self._waiters.told_early}
        while rows:
            try:
                await self._credentials.store(lane)
                rows, lost_reply = await self._place(
                    lane, rows, lost_reply=lost_reply, before=before, told_early=told_early
                )
            except UNREACHABLE as error:
                # The script may have run: ids make the resend harmless, and a failure since then is the answer.
                lost_reply = True
                await self._outage.over(error)
                self._credentials.doubt()
            except OutOfMemoryError:
                self._refuse(rows, QueueFull.sentence, kind=QueueFull)
                return
            except RedisError as error:
                if passes(error):
                    warn_once(f"Redis rejects writes, and requests wait: {error}", os.getpid())
                    await asyncio.sleep(PASSING_S)
                    continue
                self._refuse(rows, f"Redis refused the request: {error}", kind=QueueUnreachable)
                return

    async def _place(
        self,
        lane: Lane,
        rows: Sequence[RowIn],
        *,
        lost_reply: bool,
        before: bytes,
        told_early: Collection[RequestId],
    ) -> tuple[Sequence[RowIn], bool]:
        """Send rows once; return the rows still to be sent, if any, and whether their last reply was lost.

        `before` is the last mail that was read before they were sent for the first time, and `told_early` are those of
        which later mail tells that they had failed before.
        """
        terms = lane.terms
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
            keep_ms=KEEP_MS,
            ask_failed_anew=not lost_reply,
            rows=rows,
        )
        if reply.verdict is Verdict.MOVED and reply.open_batch is not None:
            self._open[lane.lane_id] = reply.open_batch
            return rows, lost_reply
        if reply.verdict is not Verdict.OK:
            self._fresh(lane)
            return rows, lost_reply
        n_taken = len(reply.placements)
        queued = [
            row.request_id
            for row, placement in zip(rows, reply.placements, strict=False)
            if placement is Placement.QUEUED
        ]
        lane.pace.queued(batch_id, queued)
        placed: list[RowIn] = []
        answered: list[RowIn] = []
        for row, placement in zip(rows, reply.placements, strict=False):
            (answered if placement is Placement.ANSWERED else placed).append(row)
            (self.late.add if placement is Placement.LATE else self.late.discard)(row.request_id)
        again: list[RowIn] = []
        if answered and lost_reply:
            # Only a result announced to this session since then answers the lost call; an earlier failure does not.
            redis, keys = self._scripts.redis, self._scripts.keys
            told = (await mailbox_reader.told_since(redis, keys, self._mailbox, before)).difference(
                told_early
            )
            again = [row for row in answered if row.request_id not in told]
            answered = [row for row in answered if row.request_id in told]
        if answered:
            unfit = await discard_unfit(self._scripts, lane.packed_spec, [row.request_id for row in answered])
            again += [row for row in answered if row.request_id in unfit]
            answered = [row for row in answered if row.request_id not in unfit]
        # After a lost reply, a request that is queued already may have been queued by the call itself.
        met = answered if lost_reply else [*answered, *placed]
        self._count_reused(lane, {row.request_id for row in met}.difference(queued))
        self._asked_again.difference_update(row.request_id for row in rows[:n_taken])
        self._waiters.placed(row.request_id for row in placed)
        if answered:
            self._waiters.announce(row.request_id for row in answered)
        if n_taken < len(rows):
            self._fresh(lane)
        return [*again, *rows[n_taken:]], False

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
        _logger.error("%s", sentence)
        reply = replies.of_error(kind, status=503, sentence=sentence)
        for row in rows:
            self._waiters.answer(row.request_id, reply)

    async def _take_back(self, withdrawals: Sequence[Withdrawal], outcomes: dict[Report, _Outcome]) -> None:
        for _ in range(2):
            # A request may move to another batch between the two looks, once in a while.
            withdrawals = await self._take_back_once(withdrawals, outcomes)
            if not withdrawals:
                return

    async def _take_back_once(
        self, withdrawals: Sequence[Withdrawal], outcomes: dict[Report, _Outcome]
    ) -> list[Withdrawal]:
        if not withdrawals:
            return []
        redis, keys = self._scripts.redis, self._scripts.keys
        places: list[Any] = await redis.mget([keys.request(one.request_id) for one in withdrawals])
        found = [
            (one, BatchId(place.partition(b"|")[0].decode(errors="replace")))
            for one, place in zip(withdrawals, places, strict=True)
            if place is not None and not place.startswith(b"|")
        ]
        answered = await self._answered(
            [one for one, place in zip(withdrawals, places, strict=True) if place is None]
        )
        for one in answered:
            _outcome(outcomes, one).running.append(one.request_id)
        for one, place in zip(withdrawals, places, strict=True):
            if one.in_doubt and (place.startswith(b"|") if place is not None else one not in answered):
                _outcome(outcomes, one).withdrawn.append(one.request_id)
        verdicts = await asyncio.gather(
            *(
                self._scripts.withdraw(request_id=one.request_id, batch_id=batch_id, mailbox=self._mailbox)
                for one, batch_id in found
            )
        )
        again: list[Withdrawal] = []
        overdue: dict[BatchId, set[RequestId]] = {}
        for (one, batch_id), verdict in zip(found, verdicts, strict=True):
            if verdict is Verdict.GONE:
                again.append(one)
            elif verdict is Verdict.OK:
                _outcome(outcomes, one).withdrawn.append(one.request_id)
            elif verdict is Verdict.TOO_LATE and one.cancel:
                overdue.setdefault(batch_id, set()).add(one.request_id)
            elif not one.cancel:
                _outcome(outcomes, one).running.append(one.request_id)
        await self._cancel_overdue(overdue)
        return again

    async def _answered(self, withdrawals: Sequence[Withdrawal]) -> list[Withdrawal]:
        """Return those that were answered before they could be withdrawn; at full price nobody has a use for them."""
        asked, keys = [one for one in withdrawals if not one.cancel], self._scripts.keys
        if not asked:
            return []
        async with self._scripts.redis.pipeline(transaction=False) as pipe:
            for one in asked:
                pipe.exists(keys.result(one.request_id))
            known = await pipe.execute()
        return [one for one, is_known in zip(asked, known, strict=True) if is_known]

    async def _ours_alone(self, batch_id: BatchId, request_ids: Collection[RequestId]) -> set[RequestId]:
        """Return the requests that are open in the batch and that nobody else waits for."""
        asked, keys = list(request_ids), self._scripts.keys
        places: list[Any] = (
            await self._scripts.redis.mget([keys.request(one) for one in asked]) if asked else []
        )
        return {
            request_id
            for request_id, place in zip(asked, places, strict=True)
            if place is not None
            and place.startswith(f"{batch_id}|".encode())
            and place.rpartition(b"|")[2] in (b"", self._mailbox.encode())
        }

    async def _cancel_overdue(self, overdue: dict[BatchId, set[RequestId]]) -> None:
        redis, keys = self._scripts.redis, self._scripts.keys
        for batch_id, request_ids in overdue.items():
            given_up = self._overdue.setdefault(batch_id, set())
            given_up |= request_ids
            # A request that was made again meanwhile is wanted: its batch must not be cancelled.
            given_up -= {request_id for request_id in given_up if self._waiters.expects(request_id)}
            fields: Any = await redis.hgetall(keys.batch(batch_id))
            if not fields:
                continue
            batch = Batch.decode(fields)
            n_gone = batch.n_succeeded + batch.n_failed + batch.n_requeued + batch.n_dropped
            n_open = batch.n_requests - n_gone
            if n_open > len(given_up) or batch.cancel_requested:
                continue
            # Read after the counters: a request answered in between counts as open, rather than as gone twice.
            given_up &= await self._ours_alone(batch_id, given_up)
            given_up -= {request_id for request_id in given_up if self._waiters.expects(request_id)}
            if n_open <= len(given_up):
                await self._scripts.cancel(
                    batch_id=batch_id,
                    lane_id=batch.lane_id,
                    ending=batch.ending,
                    error="Cancelled at the caller's deadline.",
                )


def _outcome(outcomes: dict[Report, _Outcome], one: Withdrawal) -> _Outcome:
    return outcomes.setdefault(one.report, _Outcome([], []))
