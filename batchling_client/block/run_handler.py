"""A run as interceptors and the block see it: it reads calls, has them answered, and ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis

from ..errors import QueueUnreachable
from ..intercept.interceptor import PASS_THROUGH, HttpCall, HttpReply, PassThrough
from ..intercept.open_block import running_loop
from ..intercept.passed import Passed, Why
from ..session import Deployment, replies
from ..session.calls import Calls, Request
from ..session.lanes import Terms
from ..session.sse import Streamed
from ..views.inspection import Inspection
from ..wire.keys import Keys, RunId
from ..wire.records.batch import Batch
from ..wire.routes import Routes
from . import background_loop
from .asking import Asking
from .counts import LoopStates, Progress
from .dry_run import TOO_FEW_IN_BLOCK, Rehearsal
from .given_up import GivenUp
from .parameters import BlockOptions
from .run_end import RunEnd
from .summary import failures_of, summary_of

_FOREIGN_LOOP: Final = (
    "A call to {} is awaited outside of asyncio, as under trio, where batchling cannot wait for its answer: it goes "
    "straight to the provider at full price. Use asyncio, or a synchronous client in a plain `with batchify():`."
)


class RunHandler:
    """Answers the calls of one block; `Run` is what the program sees of it."""

    def __init__(
        self, terms: Terms, options: BlockOptions, routes: Routes, deployment: Deployment | None
    ) -> None:
        """Make a run whose requests wait on the running event loop; without a deployment it is a dry one."""
        self._home = running_loop()
        self._terms = terms
        self._options = options
        self.passed: Final = Passed(routes, title=terms.title)
        """Counts the calls that reach their provider at full price."""
        self.passed.sends_nothing = deployment is None
        self.rehearsal: Final = (
            Rehearsal(too_few=TOO_FEW_IN_BLOCK[options.on_too_few]) if deployment is None else None
        )
        """Counts the requests of a dry run."""
        self._calls = Calls(terms, routes, self.passed)
        self._loop_states = LoopStates(deployment)
        self._given_up = GivenUp(terms, self._loop_states)
        self._asking = Asking(
            terms, options, self._calls, self.passed, self._loop_states, self._given_up, self.batches
        )
        self.end: Final = RunEnd(terms, self._loop_states, self._given_up, is_dry=self.is_dry)
        self._lock = threading.Lock()
        self._n_refused = 0
        self._n_blocking = 0
        self._n_reading = 0
        self._reasons: tuple[str, ...] = ()
        self.has_inner_block = False
        """Whether a block inside of this one has been left, and so has reported its own calls."""

    @property
    def id(self) -> RunId:
        """The run's id, by which the CLI finds it."""
        return self._terms.run_id

    @property
    def name(self) -> str | None:
        """The name that was given to the run, if any."""
        return self._options.name

    @property
    def redis(self) -> Redis:
        """The connection of the running event loop to the queue."""
        return self._loop_states.here().session.redis

    @property
    def keys(self) -> Keys:
        """The names of the deployment's Redis keys."""
        return self._loop_states.here().session.keys

    @property
    def is_dry(self) -> bool:
        """Whether nothing is queued and nothing sent."""
        return self.rehearsal is not None

    @property
    def n_reused(self) -> int:
        """How many of its requests earlier runs had made, answered or still in flight."""
        return self._calls.n_reused

    @property
    def progress(self) -> Progress:
        """The current counts."""
        if self.rehearsal is not None:
            return Progress(
                n_requests=self.rehearsal.n_requests + self._n_refused,
                n_failed=self._n_refused,
                n_reused=self.rehearsal.n_reused,
                passed=self.passed.counts(),
            )
        counted = self._loop_states.progress(self._n_refused)
        return replace(
            counted,
            reasons=self._reasons if counted.n_waiting else (),
            n_reused=self._calls.n_reused,
            passed=self.passed.counts(),
        )

    def summary(self) -> str:
        """Return the run in one line."""
        title = self._terms.title
        if not self._options.enabled:
            return f"batchling is switched off: run {title} caught no call (see BATCHLING_ENABLED)."
        return summary_of(
            self.progress,
            title,
            self.passed,
            given_up=self._given_up.words(),
            rehearsal=self.rehearsal,
            has_inner=self.has_inner_block,
        )

    def failures(self) -> Sequence[str]:
        """Return why requests failed and how to list them, in lines; nothing if none failed."""
        return failures_of(self.progress, self.id) if self.rehearsal is None else ()

    def set_reasons(self, reasons: Sequence[str]) -> None:
        """Store why the run's batches wait, for `progress` and `summary`."""
        self._reasons = tuple(reasons)

    async def batches(self) -> list[Batch]:
        """Return the current records of the batches that hold requests of this run, oldest first."""
        if self.rehearsal is not None:
            return []
        if asyncio.get_running_loop() is not self._home:
            return await self.end.relays.wait(self._read_batches)
        return await self._read_batches()

    async def _read_batches(self) -> list[Batch]:
        return await Inspection(self.redis, self.keys).batches_of(self.id)

    def n_in_flight(self) -> int:
        """Return how many calls somebody still waits for, on a loop that runs."""
        if self.rehearsal is not None:
            return self.rehearsal.n_waiting
        relays = self.end.relays
        n_counted = self._loop_states.n_waiting - relays.n_unreceived()
        # A call that blocks its thread is in flight until that thread has received the answer, and a call of another
        # loop before the background loop has begun and counted it.
        return max(n_counted, relays.n_received(), self._n_blocking, self._n_reading)

    def n_made(self) -> int:
        """Return how many calls were made until now."""
        return self.progress.n_requests

    def n_unsent(self) -> int:
        """Return how many calls are not in Redis yet."""
        return self._loop_states.n_unsent

    def wants(self, method: str, host: str, path: str) -> bool:
        """Say cheaply whether such a call may be batched."""
        return self._calls.wants(method, host, path)

    def passes(self, method: str, host: str, path: str) -> bool:
        """Count a call that cannot be batched and warn about it, if it costs money; return whether it does."""
        return self._calls.passes(method, host, path)

    def answer(self, call: HttpCall) -> Coroutine[Any, Any, HttpReply | PassThrough]:
        """Answer the call on the caller's own event loop, however long the batch takes."""
        streamed = self._calls.streamed(call)
        if streamed is not None:
            return self._answer_streamed(streamed)
        if self._asking.sends_again(call):
            return self._asking.send_again() if running_loop() is not None else _at_once(PASS_THROUGH)
        # One coroutine per call, which does not keep the call itself: thousands of coroutines wait at once.
        request = self._read(call)
        if not isinstance(request, Request):
            return _at_once(request)
        if running_loop() is None:
            return self._pass_foreign(request)
        if self.rehearsal is not None:
            return self.rehearsal.ask(request)
        if asyncio.get_running_loop() is self._home:
            return self._asking.ask(request, call.body)
        return self._ask_from_afar(request, call.body)

    def answer_blocking(self, call: HttpCall) -> HttpReply | PassThrough:
        """Answer the call in the caller's own thread and block it meanwhile."""
        streamed = self._calls.streamed(call)
        if streamed is not None:
            reply = self.answer_blocking(streamed.call)
            return reply if isinstance(reply, PassThrough) else streamed.reply(reply)
        if self._asking.sends_again(call):
            return self._ask_blocking(self._asking.send_again)
        request = self._read(call)
        if not isinstance(request, Request):
            return request
        if self.rehearsal is not None:
            return self.rehearsal.ask_blocking(request)
        return self._ask_blocking(partial(self._asking.ask, request, call.body))

    def _ask_blocking(
        self, ask: Callable[[], Coroutine[Any, Any, HttpReply | PassThrough]]
    ) -> HttpReply | PassThrough:
        try:
            self.end.hold_background_loop()
            shared = background_loop.hold()
        except QueueUnreachable as error:
            return self._refuse(error)
        with self._lock:
            self._n_blocking += 1
        try:
            return shared.call(self.end.blocked.wait(ask()))
        finally:
            with self._lock:
                self._n_blocking -= 1
            background_loop.let_go()

    def _read(self, call: HttpCall) -> Request | HttpReply | PassThrough:
        with self._lock:
            # The first call under a key takes a moment: a block must not end meanwhile.
            self._n_reading += 1
        try:
            request = self._calls.read(call)
        finally:
            with self._lock:
                self._n_reading -= 1
        if isinstance(request, Request) and self.rehearsal is None:
            request.lane.pace.ask(request.request_id, _caller())
        if not isinstance(request, PassThrough):
            self.passed.caught = True
        if isinstance(request, HttpReply):
            with self._lock:
                self._n_refused += 1
            self._loop_states.failures.add(request.status, request.body)
        return request

    async def _answer_streamed(self, streamed: Streamed) -> HttpReply | PassThrough:
        reply = await self.answer(streamed.call)
        return reply if isinstance(reply, PassThrough) else streamed.reply(reply)

    async def _pass_foreign(self, request: Request) -> PassThrough:
        """Let a call pass that no asyncio event loop awaits; a dry run counts and ends it like other calls."""
        if self.rehearsal is not None:
            self.rehearsal.ask_blocking(request)
        spec = request.lane.spec
        self.passed.note(Why.NO_ASYNCIO, spec.host, _FOREIGN_LOOP.format(spec.provider))
        return PASS_THROUGH

    async def _ask_from_afar(self, request: Request, body: bytes) -> HttpReply | PassThrough:
        """Ask on the background loop for a call of another one, which may be closed before the answer comes."""
        has_place = True
        reply: HttpReply | PassThrough = PASS_THROUGH

        async def ask() -> HttpReply | PassThrough:
            nonlocal has_place, reply
            has_place = False
            reply = await self._asking.ask(request, body)
            has_place = isinstance(reply, HttpReply) and reply.status < 400
            return reply

        try:
            self.end.hold_background_loop()
            return await self.end.relays.wait(ask)
        except QueueUnreachable as error:
            return self._refuse(error)
        except asyncio.CancelledError:
            if isinstance(reply, PassThrough):
                # It was this call's turn, and nobody sends it.
                with reply:
                    pass
            if has_place and request.place is not None:
                # It did not begin, or nobody took its answer: the same call made again gets that answer.
                self._calls.free(request.place, left=False)
            raise

    def _refuse(self, error: QueueUnreachable) -> HttpReply:
        """Answer a call for which the process has no thread, file or event loop."""
        with self._lock:
            self._n_refused += 1
        reply = replies.of_error(QueueUnreachable, status=503, sentence=str(error))
        self._loop_states.failures.add(reply.status, reply.body)
        return reply


def _caller() -> object:
    """Return the thread or the task that makes a call: it makes its next one after this one's answer."""
    loop = running_loop()
    task = asyncio.current_task(loop) if loop is not None else None
    return task or threading.current_thread()


async def _at_once(reply: HttpReply | PassThrough) -> HttpReply | PassThrough:
    return reply
