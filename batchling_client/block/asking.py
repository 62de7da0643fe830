"""Asks for the answer of one request: its deadline, what is asked again, and what goes to the provider instead."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from .. import errors
from ..errors import BatchCancelled, BatchTooSmall, DeadlinePassed, RequestLost
from ..intercept.interceptor import HttpCall, HttpReply, PassThrough
from ..intercept.passed import Passed, Why
from ..session import replies
from ..session.calls import Calls, Request
from ..session.lanes import Terms
from ..wire.keys import RequestId
from ..wire.records.batch import Batch
from .counts import LoopState, LoopStates
from .given_up import GivenUp
from .parameters import BlockOptions

_logger = logging.getLogger(__name__)

ASKED_AGAIN: Final = 3
_TOO_FEW: Final = "Run %s has too few requests for a batch of their provider: they are sent at full price."
_OVERDUE: Final = "Run %s passed its deadline: what is unanswered is sent to the provider at full price."


class Asking:
    """Asks for the requests of one run, on the event loops that it is called on."""

    def __init__(
        self,
        terms: Terms,
        options: BlockOptions,
        calls: Calls,
        passed: Passed,
        loop_states: LoopStates,
        given_up: GivenUp,
        look: Callable[[], Awaitable[Sequence[Batch]]],
    ) -> None:
        self._title = terms.title
        self._options = options
        self._calls = calls
        self._passed = passed
        self._loop_states = loop_states
        self._given_up = given_up
        self._look = look
        self._sent: set[Why] = set()
        """Why calls of the run were sent at full price after they had been requests."""
        self._lock = threading.Lock()

    def sends_again(self, call: HttpCall) -> bool:
        """Return whether an SDK retries a call that was sent at full price; such a call is sent again."""
        return bool(self._sent) and call.is_retry

    async def send_again(self) -> PassThrough:
        """Let such a call pass when its turn comes."""
        return await self._loop_states.full_price.turn(counts=False)

    async def ask(self, request: Request, body: bytes) -> HttpReply | PassThrough:
        """Return the answer, or a pass-through if the block's options send the call to its provider."""
        loop_state = self._loop_states.here()
        self._count(loop_state, request)
        request_id, lane, place = request.request_id, request.lane, request.place
        deadline_s = self._options.deadline_s
        is_answered = is_left = False
        try:
            future = loop_state.session.ask(request)
            del request
            if deadline_s is None:
                reply = await future
            else:
                async with asyncio.timeout(deadline_s):
                    reply = await future
            n_again = 0
            while n_again < ASKED_AGAIN and _is_no_answer(loop_state, request_id, reply):
                n_again += 1
                future = loop_state.session.ask(self._calls.request(lane, request_id, body))
                async with asyncio.timeout(deadline_s):
                    reply = await future
            is_answered = reply.status < 400
        except asyncio.CancelledError:
            loop_state.session.leave(request_id, future)
            self._given_up.regret(loop_state, request_id)
            is_left = True
            raise
        except TimeoutError:
            loop_state.session.leave(request_id, future)
            why = ""
            if self._options.on_deadline == "error":
                try:
                    why = await loop_state.overdue.why(self._look, lane.spec)
                except asyncio.CancelledError:
                    self._given_up.regret(loop_state, request_id)
                    is_left = True
                    raise
            return await self._missed(loop_state, request_id, lane.spec.host, why)
        finally:
            lane.pace.left(request_id)
            if place is not None and not is_answered:
                self._calls.free(place, left=is_left)
        self._given_up.answered(request_id)
        lane.pace.answered(request_id)
        if reply.headers.get(errors.HEADER) == BatchTooSmall.code and self._options.on_too_few == "realtime":
            return await self._send(loop_state, lane.spec.host, Why.TOO_FEW, _TOO_FEW)
        if reply.status < 400:
            loop_state.n_succeeded += 1
        else:
            loop_state.n_failed += 1
            self._loop_states.failures.add(reply.status, reply.body)
        return reply

    def _count(self, loop_state: LoopState, request: Request) -> None:
        """Count a call as a request, unless it repeats a call that was given up: that request is counted already."""
        place = request.place
        if place is None or not place.again:
            loop_state.n_requests += 1
            return
        self._given_up.asked_again(request.request_id)
        request.lane.pace.ask_again(request.request_id)
        if place.left:
            loop_state.n_left -= 1
        else:
            loop_state.n_requests += 1

    async def _missed(
        self, loop_state: LoopState, request_id: RequestId, host: str, why: str
    ) -> HttpReply | PassThrough:
        realtime = self._options.on_deadline == "realtime"
        self._given_up.withdraw(loop_state, request_id, cancel=realtime)
        if realtime:
            return await self._send(loop_state, host, Why.DEADLINE, _OVERDUE)
        loop_state.n_failed += 1
        sentence = f"{DeadlinePassed.sentence} {why}".rstrip()
        reply = replies.of_error(DeadlinePassed, status=504, sentence=sentence)
        self._loop_states.failures.add(reply.status, reply.body)
        return reply

    async def _send(self, loop_state: LoopState, host: str, why: Why, warning: str) -> PassThrough:
        """Let the call of a request pass to its provider when its turn comes; warn of the first call of a run."""
        with self._lock:
            first = why not in self._sent
            self._sent.add(why)
        if first:
            _logger.warning(warning, self._title)
        try:
            passing = await self._loop_states.full_price.turn()
        except asyncio.CancelledError:
            loop_state.n_left += 1
            raise
        self._passed.note(why, host)
        return passing


def _is_no_answer(loop_state: LoopState, request_id: RequestId, reply: HttpReply) -> bool:
    """Return whether the same request must be enqueued again.

    A killed Redis loses its last moments, the request included; and a batch that was being cancelled before the
    request joined it was cancelled on behalf of others.
    """
    code = reply.headers.get(errors.HEADER)
    return code == RequestLost.code or (
        code == BatchCancelled.code and loop_state.session.is_late(request_id)
    )
