"""One connection to the deployment for each process and event loop, shared by all runs there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import RedisError

from ..errors import QueueUnreachable
from ..intercept.interceptor import HttpReply
from ..wire.deployment import connection, redis_errors
from ..wire.deployment.cancellation import end
from ..wire.ids import new_mailbox
from ..wire.keys import Keys, RequestId
from ..wire.scripts import Scripts
from ..wire.shown import shown
from .calls import Request
from .credentials import Credentials
from .enqueue import Enqueue
from .own_context import droppable, task_apart
from .redis_outage import Outage
from .waiters import DRAIN_PERIOD_S, Waiters
from .withdrawing import Report, Withdrawal, Withdrawals

_logger = logging.getLogger(__name__)

FAREWELL_S: Final = 2.0
"""How long a session that ends may still take to withdraw requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Where the queue is and how credentials are sealed for its workers."""

    redis_url: str = field(repr=False)
    namespace: str
    seal_public_key: str
    key_hints: bool = True
    """Whether the last characters of keys are stored for people."""
    drain_period_s: float = DRAIN_PERIOD_S


class Session:
    """The futures, the sender and the connections of one event loop; opens no connection before its first use."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.loop = asyncio.get_running_loop()
        self.keys = Keys(deployment.namespace)
        self.redis = connection.connect(deployment.redis_url)
        self.scripts = Scripts(self.redis, self.keys)
        mailbox = new_mailbox()
        outage = Outage(self.redis, connection.place_of(deployment.redis_url))
        self._mailbox = mailbox
        self._waiters = Waiters(
            self.redis,
            self.keys,
            mailbox,
            outage,
            drain_period_s=deployment.drain_period_s,
            on_idle=self._end_if_idle,
        )
        self._credentials = Credentials(
            self.redis, self.keys, deployment.seal_public_key, has_hints=deployment.key_hints
        )
        self._enqueue = Enqueue(self.scripts, mailbox, self._credentials, self._waiters, outage)
        self._n_users = 0
        self._owner: asyncio.Task[None] | None = None
        self._finished = asyncio.Event()
        self._reason = ""

    @property
    def over(self) -> bool:
        """Whether the session takes no more requests."""
        return self._finished.is_set() or (self._owner is not None and self._owner.done())

    def ask(self, request: Request) -> asyncio.Future[HttpReply]:
        """Enqueue the request and return a future of its answer."""
        future = self._waiters.expect(request.request_id, request.lane.cipher)
        self._enqueue.add(request)
        if self._owner is None:
            # In a context of its own: it outlives the block that happens to be open now, and the caller's span.
            self._owner = task_apart(self.loop, self._live())
        return future

    def leave(self, request_id: RequestId, future: asyncio.Future[HttpReply]) -> None:
        """Stop waiting for the request on behalf of this caller; the request keeps running."""
        self._waiters.forget(request_id, future)

    def withdraw(self, request_ids: Iterable[RequestId], report: Report, *, cancel: bool = False) -> None:
        """Withdraw requests that nobody waits for, as far as that is still possible, and report the outcome."""
        self._enqueue.withdrawals.add(Withdrawal(one, report, cancel) for one in request_ids)

    async def withdrawals_done(self) -> None:
        """Return once all withdrawals are done, or none was done for `FAREWELL_S`."""
        before = None
        while (
            not self.over and self._owner is not None and (left := self._enqueue.withdrawals.n_due) != before
        ):
            before = left
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._enqueue.withdrawals.done()

    @property
    def n_unsent(self) -> int:
        """How many requests Redis has neither taken nor refused yet."""
        return self._enqueue.n_unsent

    def is_late(self, request_id: RequestId) -> bool:
        """Return whether the request has joined a batch that was being cancelled already."""
        return request_id in self._enqueue.late

    def hold(self) -> None:
        """Hold the session for one more user."""
        self._n_users += 1

    def let_go(self) -> None:
        """Release the session for one user; the last user ends it, unless somebody still waits for an answer."""
        self._n_users -= 1
        self._end_if_idle()

    async def ended(self) -> None:
        """Return once the session has ended and cleaned up, or at once if others still use it."""
        if self._finished.is_set():
            await self._end()

    async def cut_off(self) -> None:
        """Return once the session has ended if it is being cancelled, else at once."""
        if self._owner is not None and self._owner.cancelling():
            await asyncio.wait([self._owner])

    async def take_back_from_afar(self, request_ids: Iterable[RequestId], report: Report) -> int:
        """Withdraw those, and what else is due, on the running loop: the session's own must not be waited for.

        Where that loop is closed nobody can get an answer on it any more: whatever still waits there is due too.
        Return how many callers were given up for that.
        """
        is_over = self.loop.is_closed()
        disowned = self._waiters.disown() if is_over else []
        due = [Withdrawal(one, report, cancel=False) for one in (*request_ids, *disowned)]
        due += self._enqueue.withdrawals.hand_over()
        redis = connection.connect(self.deployment.redis_url)
        scripts = Scripts(redis, self.keys)
        withdrawals = Withdrawals(scripts, self._mailbox, self._waiters.expects, asyncio.Event())
        withdrawals.add(due)
        try:
            with contextlib.suppress(TimeoutError, *connection.UNREACHABLE):
                async with asyncio.timeout(FAREWELL_S):
                    await withdrawals.send()
                    if is_over:
                        await redis.unlink(self.keys.mailbox(self._mailbox))
        finally:
            with contextlib.suppress(*connection.UNREACHABLE):
                await redis.aclose()
        return len(disowned)

    def _end_if_idle(self) -> None:
        if self._n_users == 0 and self._waiters.n_outstanding == 0:
            self._finished.set()

    async def _end(self) -> None:
        if self._owner is not None:
            await asyncio.wait([self._owner])
        if self._enqueue.withdrawals.n_due:
            # If a closing loop cancels it, the session is over before the blocks, which close after it.
            await self._farewell()
        with contextlib.suppress(*connection.UNREACHABLE):
            await self.redis.aclose()

    async def _live(self) -> None:
        work = (self._finished.wait(), self._waiters.listen(), self._waiters.drain(), self._enqueue.send())
        _, *background = tasks = [droppable(self.loop.create_task(one)) for one in work]
        is_dropped = False
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in background:
                if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
                    self._fail(failure)
        except GeneratorExit:
            # The program has dropped the loop: nothing can be awaited or woken on it.
            is_dropped = True
            raise
        finally:
            if not is_dropped:
                await self._close_down(tasks)

    def _fail(self, failure: BaseException) -> None:
        """Take note of why a task ended by itself: only what broke down does, and no caller may hang on it."""
        mistake = redis_errors.mistake_of(failure)
        if isinstance(failure, QueueUnreachable):
            self._reason = str(failure)
        elif mistake is not None:
            self._reason = f"Redis at {connection.place_of(self.deployment.redis_url)} {mistake}."
        else:
            _logger.critical("The session with Redis broke down: %r", failure)
            return
        _logger.error("%s", shown(self._reason))

    async def _close_down(self, background: Sequence[asyncio.Task[Any]]) -> None:
        # A closing loop may cancel this once, at any of these steps: the next step is taken all the same.
        self._finished.set()
        try:
            await end(background)
        finally:
            self._waiters.give_up(self._reason)
            try:
                await self._farewell()
            finally:
                with contextlib.suppress(*connection.UNREACHABLE):
                    await self.redis.aclose()

    async def _farewell(self) -> None:
        # A Redis that refuses commands, such as one whose user lacks the right, ends nobody's program here.
        with contextlib.suppress(TimeoutError, RedisError, *connection.UNREACHABLE):
            async with asyncio.timeout(FAREWELL_S):
                await self._enqueue.withdrawals.send()
                await self.redis.unlink(self.keys.mailbox(self._mailbox))


class _Sessions:
    def __init__(self) -> None:
        self.open: dict[tuple[int, int, Deployment], Session] = {}


_sessions: Final = _Sessions()


def hold(deployment: Deployment) -> Session:
    """Return the running loop's session with a deployment, held for one more user."""
    loop = asyncio.get_running_loop()
    pid = os.getpid()
    key = (pid, id(loop), deployment)
    session = _sessions.open.get(key)
    if session is None or session.over or session.loop is not loop:
        for other, ended in list(_sessions.open.items()):
            if other[0] != pid or ended.over or ended.loop.is_closed():
                _sessions.open.pop(other, None)
        session = _sessions.open[key] = Session(deployment)
    session.hold()
    return session
