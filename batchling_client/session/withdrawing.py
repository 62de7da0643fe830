"""Withdraws requests that nobody waits for any more, and cancels batches that hold nothing else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from redis.exceptions import RedisError

from ..wire.keys import BatchId, Mailbox, RequestId
from ..wire.records.batch import Batch
from ..wire.records.in_flight import InFlight
from ..wire.records.row_and_result import CorruptRecord
from ..wire.scripts import Scripts
from ..wire.states import Verdict

WITHDRAWN_AT_ONCE: Final = 32

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


class Withdrawals:
    """The withdrawals of one session, sent by its one sender between two sends of requests.

    So none can hit a request that was just asked for again.
    """

    def __init__(
        self, scripts: Scripts, mailbox: Mailbox, expects: Callable[[RequestId], bool], wake: asyncio.Event
    ) -> None:
        """Set `wake` when a withdrawal is due; `expects` says whether somebody waits for a request (again)."""
        self._scripts = scripts
        self._mailbox = mailbox
        self._expects = expects
        self._wake = wake
        self._due: deque[Withdrawal] = deque()
        self._none_due = asyncio.Event()
        self._none_due.set()
        self._overdue: dict[BatchId, set[RequestId]] = {}

    def add(self, withdrawals: Iterable[Withdrawal]) -> None:
        """Withdraw requests of any runs, and report the outcome.

        With `cancel` a batch that is at the provider is cancelled, once all that is unanswered in it was withdrawn.
        """
        self._due.extend(withdrawals)
        if self._due:
            self._none_due.clear()
            self._wake.set()

    def hand_over(self) -> list[Withdrawal]:
        """Hand over the withdrawals that are due, for another session to do them."""
        withdrawals = list(self._due)
        self._due.clear()
        return withdrawals

    @property
    def n_due(self) -> int:
        """How many withdrawals are due."""
        return len(self._due)

    async def done(self) -> None:
        """Return once no withdrawal is due."""
        await self._none_due.wait()

    async def send(self) -> None:
        """Send the withdrawals that are due."""
        outcomes: dict[Report, _Outcome] = {}
        try:
            while self._due:
                some = [self._due.popleft() for _ in range(min(len(self._due), WITHDRAWN_AT_ONCE))]
                try:
                    await self._send([one for one in some if not self._expects(one.request_id)], outcomes)
                except (RedisError, CorruptRecord, OSError):
                    # Nobody waits for these requests: those that cannot be withdrawn keep running.
                    for one in (*some, *self._due):
                        _outcome(outcomes, one).running.append(one.request_id)
                    self._due.clear()
                except BaseException:
                    # Interrupted: the next try, perhaps another sender's, repeats them.
                    self._due.extendleft(one._replace(in_doubt=True) for one in reversed(some))
                    raise
        finally:
            for report, outcome in outcomes.items():
                # Requests that were made again meanwhile are wanted.
                report(*([one for one in some_ids if not self._expects(one)] for some_ids in outcome))
        self._none_due.set()

    async def _send(self, withdrawals: Sequence[Withdrawal], outcomes: dict[Report, _Outcome]) -> None:
        for _ in range(2):
            # A request may move to another batch between the two looks, once in a while.
            withdrawals = await self._send_once(withdrawals, outcomes)
            if not withdrawals:
                return

    async def _send_once(
        self, withdrawals: Sequence[Withdrawal], outcomes: dict[Report, _Outcome]
    ) -> list[Withdrawal]:
        if not withdrawals:
            return []
        redis, keys = self._scripts.redis, self._scripts.keys
        places: list[Any] = await redis.mget([keys.request(one.request_id) for one in withdrawals])
        flights = list(zip(withdrawals, map(InFlight.decode, places), strict=True))
        found = [(one, flight.batch_id) for one, flight in flights if flight is not None and flight.batch_id]
        answered = await self._answered([one for one, flight in flights if flight is None])
        for one in answered:
            _outcome(outcomes, one).running.append(one.request_id)
        for one, flight in flights:
            gone = one not in answered if flight is None else flight.batch_id is None
            if one.in_doubt and gone:
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
        await self._cancel(overdue)
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

    async def _cancel(self, overdue: dict[BatchId, set[RequestId]]) -> None:
        """Cancel batches in which nobody waits for a request but callers that have withdrawn theirs."""
        redis, keys = self._scripts.redis, self._scripts.keys
        for batch_id, request_ids in overdue.items():
            given_up = self._overdue.setdefault(batch_id, set())
            given_up |= request_ids
            # A request that was made again meanwhile is wanted: its batch must not be cancelled.
            given_up -= {request_id for request_id in given_up if self._expects(request_id)}
            fields: Any = await redis.hgetall(keys.batch(batch_id))
            if not fields:
                continue
            batch = Batch.decode(fields)
            # The script decides: it counts again, and only what is open.
            if batch.n_open <= len(given_up):
                await self._scripts.cancel(
                    batch_id=batch_id,
                    lane_id=batch.lane_id,
                    ending=batch.ending,
                    error="Cancelled at the caller's deadline.",
                    request_ids=given_up,
                    alone=True,
                    mailboxes=(self._mailbox,),
                    by="callers whose deadline was over",
                )


def _outcome(outcomes: dict[Report, _Outcome], one: Withdrawal) -> _Outcome:
    return outcomes.setdefault(one.report, _Outcome([], []))
