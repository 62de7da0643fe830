"""The futures of a session by request id, and the ways in which answers reach them.

An answer is stored and listed in the session's mailbox before the session gets a notice. The mailbox is read after
the subscribe confirmation, on each notice and on each reconnect; and every few seconds anyway, together with a
look at a part of the outstanding ids themselves, so that neither a lost notice nor a lost mailbox costs an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ..errors import AnswerUnreadable, QueueUnreachable, RequestLost
from ..intercept.interceptor import HttpReply
from ..wire.deployment.connection import UNREACHABLE
from ..wire.keys import BatchId, Keys, Mailbox, RequestId
from ..wire.records.in_flight import InFlight
from ..wire.row_cipher import RowCipher
from ..wire.scripts import Scripts
from ..wire.states import LIVING_STATES, Verdict
from . import mailbox_reader, replies
from .redis_outage import Outage

AT_ONCE: Final = 100
"""Answers read in one round trip."""
LOOKED_AFTER: Final = 5_000
"""Outstanding ids that one safety drain looks after."""
DRAIN_PERIOD_S: Final = 5.0
QUIET_S: Final = 20.0
"""After this much silence the subscription is asked for a sign of life."""
PONG_S: Final = 5.0
_QUEUED: Final = (
    "Requests queued before keep running: run the program again to get the answers without paying twice."
)
_UNREADABLE: Final = (
    "The record of batch {} in Redis, which holds this request, is damaged and was refused: the provider may have "
    "run the request already. Send it again to run it anew."
)


class Waiters:
    """Everything in a session that waits for an answer; one event loop, no thread."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        mailbox: Mailbox,
        outage: Outage,
        *,
        drain_period_s: float = DRAIN_PERIOD_S,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._scripts = Scripts(redis, keys)
        self._mailbox = mailbox
        self._outage = outage
        self._drain_period_s = drain_period_s
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self._futures: dict[RequestId, asyncio.Future[HttpReply]] = {}
        # The second and later callers of a request are rare; a list for each of thousands of requests would cost.
        self._others: dict[RequestId, list[asyncio.Future[HttpReply]]] = {}
        self._ciphers: dict[RequestId, RowCipher] = {}
        """What opens the answers of the outstanding requests."""
        self._unsent: set[RequestId] = set()
        """Requests that are asked for and neither queued nor found answered yet: an answer that Redis has now is an
        older one, and may be the failure after which they are asked for again."""
        self._mailed_unsent: set[RequestId] = set()
        """Those of them of which mail was read meanwhile: it may have listed the answer that is waited for."""
        self._looks_now = False
        self._announced: list[RequestId] = []
        self._placed: deque[RequestId] = deque()
        self._notice = asyncio.Event()
        self._last_mail = b"0-0"
        self.failed_early: set[RequestId] = set()
        """Requests whose failure was found before the mail that lists it was read."""

    @property
    def n_outstanding(self) -> int:
        return len(self._futures)

    def expect(self, request_id: RequestId, cipher: RowCipher) -> asyncio.Future[HttpReply]:
        """Return a new future for this caller, which the request's answer resolves; `cipher` opens that answer."""
        future: asyncio.Future[HttpReply] = self._loop.create_future()
        if self._futures.setdefault(request_id, future) is not future:
            self._others.setdefault(request_id, []).append(future)
        else:
            self._unsent.add(request_id)
            self._ciphers[request_id] = cipher
        return future

    def expects(self, request_id: RequestId) -> bool:
        """Return whether somebody in this session waits for the request."""
        return request_id in self._futures

    def forget(self, request_id: RequestId, future: asyncio.Future[HttpReply]) -> None:
        """Stop waiting for one caller; the others keep waiting."""
        others = self._others.get(request_id, [])
        if future in others:
            others.remove(future)
        elif self._futures.get(request_id) is future:
            if others:
                self._futures[request_id] = others.pop()
            else:
                del self._futures[request_id]
                self._over(request_id)
        if not others:
            self._others.pop(request_id, None)
        self._say_if_idle()

    def answer(self, request_id: RequestId, reply: HttpReply) -> None:
        """Resolve the futures of all callers of the request."""
        self._over(request_id)
        future = self._futures.pop(request_id, None)
        if future is not None and not future.done():
            future.set_result(reply)
        for other in self._others.pop(request_id, ()):
            if not other.done():
                other.set_result(reply)
        self._say_if_idle()

    def _over(self, request_id: RequestId) -> None:
        self._ciphers.pop(request_id, None)
        self._unsent.discard(request_id)
        self._mailed_unsent.discard(request_id)

    def placed(self, request_ids: Iterable[RequestId]) -> None:
        """Watch requests that Redis holds."""
        for request_id in request_ids:
            self._unsent.discard(request_id)
            if request_id in self._mailed_unsent:
                self._mailed_unsent.discard(request_id)
                self._placed.appendleft(request_id)
                self._looks_now = True
                self._notice.set()
            else:
                self._placed.append(request_id)

    def announce(self, request_ids: Iterable[RequestId]) -> None:
        """Read the answers of answered requests at once."""
        answered = list(request_ids)
        self._unsent.difference_update(answered)
        self._mailed_unsent.difference_update(answered)
        self._announced.extend(answered)
        self._notice.set()

    @property
    def last_mail(self) -> bytes:
        """The entry of the mailbox that was read last."""
        return self._last_mail

    def give_up(self, reason: str = "") -> None:
        """Answer all remaining callers with the error that ends the session."""
        sentence = f"{reason or 'The connection to the queue was closed before the answer came.'} {_QUEUED}"
        reply = replies.of_error(QueueUnreachable, status=503, sentence=sentence)
        for request_id in list(self._futures):
            self.answer(request_id, reply)

    def disown(self) -> list[RequestId]:
        """Drop the waiters of a closed loop, which no answer can reach any more."""
        request_ids = list(self._futures)
        self._futures.clear()
        self._others.clear()
        self._ciphers.clear()
        self._unsent.clear()
        self._mailed_unsent.clear()
        return request_ids

    async def listen(self) -> None:
        """Keep the subscription; each confirmation, also after a reconnect, counts as a notice."""
        while True:
            pubsub: Any = self._redis.pubsub()
            is_dropped = False
            try:
                await pubsub.subscribe(self._keys.notice(self._mailbox))
                while await self._got_notice(pubsub):
                    self._notice.set()
            except UNREACHABLE as error:
                await self._outage.over(error)
            except GeneratorExit:
                # The program has dropped the loop: nothing can be awaited on it.
                is_dropped = True
                raise
            finally:
                if not is_dropped:
                    with contextlib.suppress(*UNREACHABLE):
                        await pubsub.aclose()

    async def _got_notice(self, pubsub: Any) -> bool:
        """Wait for a notice; return False if the subscription is silently dead."""
        while True:
            message = await pubsub.get_message(timeout=QUIET_S)
            if message is None:
                await pubsub.ping()
                message = await pubsub.get_message(timeout=PONG_S)
                if message is None:
                    return False
            if message["type"] != "pong":
                return True

    async def drain(self) -> None:
        """Read answers for as long as the session lives."""
        next_look = self._loop.time() + self._drain_period_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_look):
                    await self._notice.wait()
            self._notice.clear()
            try:
                await self._read_announced()
                await self._read_mailbox()
                if self._looks_now or self._loop.time() >= next_look:
                    self._looks_now = False
                    await self._look_after()
                    next_look = self._loop.time() + self._drain_period_s
            except UNREACHABLE as error:
                await self._outage.over(error)
                self._notice.set()

    async def _read_announced(self) -> None:
        while self._announced:
            # Taken out before the wait: more may be announced meanwhile.
            some = self._announced[:AT_ONCE]
            del self._announced[:AT_ONCE]
            try:
                await self._read_answers(some)
            except BaseException:
                self._announced[:0] = some
                raise
            for request_id in some:
                if self._awaits(request_id):
                    # The result expired between the enqueue that found it and this read.
                    self.answer(request_id, replies.of_error(RequestLost, status=503))

    async def _read_mailbox(self) -> None:
        mailbox = self._keys.mailbox(self._mailbox)
        while True:
            try:
                entries = mailbox_reader.entries(
                    await self._redis.xread({mailbox: self._last_mail}, count=16)
                )
            except UNREACHABLE:
                raise
            except ResponseError:
                # Not a stream: nobody else uses this key, and the answers are found by polling.
                await self._redis.unlink(mailbox)
                self._last_mail = b"0-0"
                return
            for entry_id, request_ids in entries:
                self._mailed_unsent |= self._unsent.intersection(request_ids)
                await self._read_answers(request_ids)
                self._last_mail = entry_id
                self.failed_early.difference_update(request_ids)
            if not entries:
                return

    async def _look_after(self) -> None:
        due = [self._placed.popleft() for _ in range(min(len(self._placed), LOOKED_AFTER))]
        try:
            while due:
                # A call that is given up and made again is placed each time.
                some = [one for one in dict.fromkeys(due[-AT_ONCE:]) if self._awaits(one)]
                await self._look_after_some(some)
                del due[-AT_ONCE:]
        finally:
            self._placed.extend(due)

    async def _look_after_some(self, request_ids: Sequence[RequestId]) -> None:
        if not request_ids:
            return
        # In this order: a request leaves its place in flight only when its answer is stored.
        flying: list[Any] = await self._redis.mget(
            [self._keys.request(request_id) for request_id in request_ids]
        )
        await self._read_answers(request_ids)
        owners: dict[RequestId, BatchId] = {}
        for request_id, place in zip(request_ids, flying, strict=True):
            if not self._awaits(request_id):
                continue
            flight = InFlight.decode(place)
            if flight is not None and flight.batch_id is not None:
                owners[request_id] = flight.batch_id
            else:
                self.answer(request_id, replies.of_error(RequestLost, status=503))
        living = await self._living(set(owners.values()))
        for request_id, owner in owners.items():
            if owner in living or not await self._is_stranded(request_id, owner):
                self._placed.append(request_id)

    async def _living(self, batch_ids: Collection[BatchId]) -> set[BatchId]:
        """Return the batches whose state still allows answers."""
        states: list[Any] = []
        if batch_ids:
            async with self._redis.pipeline(transaction=False) as pipe:
                for batch_id in batch_ids:
                    pipe.hget(self._keys.batch(batch_id), "state")
                states = await pipe.execute(raise_on_error=False)
        known = {state.value.encode() for state in LIVING_STATES}
        return {
            batch_id
            for batch_id, state in zip(batch_ids, states, strict=True)
            if isinstance(state, bytes) and state in known
        }

    async def _is_stranded(self, request_id: RequestId, batch_id: BatchId) -> bool:
        """Return True, and answer the caller with an error, if the batch ended without this request."""
        verdict = await self._scripts.forget(request_id=request_id, batch_id=batch_id)
        if verdict is Verdict.OK:
            self.answer(request_id, replies.of_error(RequestLost, status=503))
        elif verdict is Verdict.UNREADABLE:
            sentence = _UNREADABLE.format(batch_id)
            self.answer(request_id, replies.of_error(AnswerUnreadable, status=502, sentence=sentence))
        return verdict in (Verdict.OK, Verdict.UNREADABLE)

    def _awaits(self, request_id: RequestId) -> bool:
        """Return whether a caller waits for the request and has queued it, so that a stored answer is meant for it."""
        return request_id in self._futures and request_id not in self._unsent

    async def _read_answers(self, request_ids: Sequence[RequestId]) -> None:
        wanted = [request_id for request_id in request_ids if self._awaits(request_id)]
        for first in range(0, len(wanted), AT_ONCE):
            some = wanted[first : first + AT_ONCE]
            values: list[Any] = await self._redis.mget([self._keys.result(request_id) for request_id in some])
            for request_id, packed in zip(some, values, strict=True):
                if packed is not None and self._awaits(request_id):
                    reply = replies.of_result(request_id, packed, self._ciphers[request_id])
                    if reply.status >= 400:
                        self.failed_early.add(request_id)
                    self.answer(request_id, reply)

    def _say_if_idle(self) -> None:
        if not self._futures:
            self._on_idle()
