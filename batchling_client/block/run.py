"""A run: the requests, counts and answers of one open block."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

from redis.asyncio import Redis

from .. import errors, session
from ..errors import BatchCancelled, BatchTooSmall, DeadlinePassed, QueueUnreachable, RequestLost
from ..intercept import scope
from ..intercept.interceptor import PASS_THROUGH, HttpCall, HttpReply, PassThrough
from ..intercept.passed import Passed, Passing, Why, sentence_of
from ..operate.inspection import Inspection
from ..progress.overdue import Overdue
from ..session import Deployment, Session, replies
from ..session.calls import Calls, Request, Terms
from ..session.sse import Streamed
from ..wire.deployment.cancellation import carry_through
from ..wire.keys import Keys, RequestId, RunId
from ..wire.records.batch import Batch
from ..wire.routes import Routes
from . import background_loop, relay
from .dry_run import TOO_FEW_IN_BLOCK, Rehearsal

_logger = logging.getLogger(__name__)

Fallback = Literal["error", "realtime"]
"""What becomes of a call that no batch answers: an error, or it is sent at full price."""

_FOREIGN_LOOP: Final = (
    "A call to {} is awaited outside of asyncio, as under trio, where batchling cannot wait for its answer: it goes "
    "straight to the provider at full price. Use asyncio, or a synchronous client in a plain `with batchify():`."
)
ASKED_AGAIN: Final = 3
GRACE_S: Final = 0.1
"""A cancelled request is withdrawn after this long, unless it is asked for again meanwhile, as by an SDK's retry."""
COUNTING_S: Final = 1.0
"""For this long the warning of calls that were given up counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Counts of a run's requests by state; those that nobody waits for any more are `n_left`."""

    n_requests: int = 0
    n_waiting: int = 0
    n_succeeded: int = 0
    n_failed: int = 0
    n_left: int = 0
    n_reused: int = 0
    """How many of the requests earlier runs had made: their answers are not paid for again."""
    reasons: tuple[str, ...] = ()
    """Why batches with waiting requests are held up, in their providers' words; empty if they are not."""
    passed: tuple[Passing, ...] = ()
    """The calls that reached their provider at full price, by reason and host, the most frequent first."""

    @property
    def n_passed(self) -> int:
        """How many calls reached their provider at full price."""
        return sum(one.n_calls for one in self.passed)

    @property
    def n_answered(self) -> int:
        return self.n_succeeded + self.n_failed


@dataclass(slots=True, eq=False)
class _LoopState:
    """A run's place on one event loop; its counts are touched there only."""

    session: Session
    n_requests: int = 0
    n_succeeded: int = 0
    n_failed: int = 0
    n_left: int = 0
    regretted: list[RequestId] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    left: bool = False
    overdue: Overdue = field(default_factory=Overdue)


class Run:
    """What `batchify` yields: the requests of one block, under one name and id."""

    def __init__(
        self,
        *,
        terms: Terms,
        deployment: Deployment | None,
        routes: Routes,
        name: str | None = None,
        deadline_s: float | None = None,
        on_deadline: Fallback = "error",
        on_too_few: Fallback = "error",
        enabled: bool = True,
    ) -> None:
        """Make a run whose requests wait on the running event loop."""
        self._home = scope.running_loop()
        self._enabled = enabled
        self._terms = terms
        self._name = name
        self._deployment = deployment
        self._passed = Passed(routes, title=f"{name!r} {terms.run_id}" if name else terms.run_id)
        self._passed.sends_nothing = deployment is None
        self._calls = Calls(terms, routes, self._passed)
        self._rehearsal = Rehearsal(too_few=TOO_FEW_IN_BLOCK[on_too_few]) if deployment is None else None
        self._deadline_s = deadline_s
        self._on_deadline = on_deadline
        self._on_too_few = on_too_few
        self._loop_states: dict[asyncio.AbstractEventLoop, _LoopState] = {}
        self._lock = threading.Lock()
        self._n_refused = 0
        self._n_blocking = 0
        self._n_overdue = 0
        self._n_too_few = 0
        # Requests of calls that left without an answer; every loop changes these sets, in atomic steps.
        self._given_up: set[RequestId] = set()
        self._withdrawn: set[RequestId] = set()
        self._left_running: set[RequestId] = set()
        """Requests that were given up while their batch ran, those asked for again since included."""
        self._blocked = background_loop.Blocked()
        self._relays = relay.Relays()
        self._bridged = False
        self._closed = False
        self._has_inner_block = False
        self._detached = False
        self._leaving: asyncio.Task[None] | None = None
        self._reasons: tuple[str, ...] = ()

    @property
    def id(self) -> RunId:
        """The run's id, by which the CLI finds it."""
        return self._terms.run_id

    @property
    def name(self) -> str | None:
        """The name that was given to the run, if any."""
        return self._name

    @property
    def passed(self) -> Passed:
        """What counts the calls that reach their provider at full price."""
        return self._passed

    @property
    def redis(self) -> Redis:
        """The connection of the running event loop to the queue."""
        return self._loop_state().session.redis

    @property
    def keys(self) -> Keys:
        """The names of the deployment's Redis keys."""
        return self._loop_state().session.keys

    @property
    def is_dry(self) -> bool:
        """Whether nothing is queued and nothing sent."""
        return self._rehearsal is not None

    @property
    def has_inner_block(self) -> bool:
        """Whether a block inside of this one has been left, and so has reported its own calls."""
        return self._has_inner_block

    def note_inner_block(self) -> None:
        """Remember that a block inside of this one has been left."""
        self._has_inner_block = True

    @property
    def n_reused(self) -> int:
        """How many of its requests earlier runs had made, answered or still in flight."""
        return self._calls.n_reused

    @property
    def rehearsal(self) -> Rehearsal | None:
        """What counts the requests of a dry run."""
        return self._rehearsal

    @property
    def progress(self) -> Progress:
        """The current counts."""
        if self._rehearsal is not None:
            return Progress(
                n_requests=self._rehearsal.n_requests + self._n_refused,
                n_failed=self._n_refused,
                n_reused=self._rehearsal.n_reused,
                passed=self._passed.counts(),
            )
        loop_states = list(self._loop_states.values())
        n_requests = sum(loop_state.n_requests for loop_state in loop_states) + self._n_refused
        n_succeeded = sum(loop_state.n_succeeded for loop_state in loop_states)
        n_failed = sum(loop_state.n_failed for loop_state in loop_states) + self._n_refused
        n_left = sum(loop_state.n_left for loop_state in loop_states)
        n_waiting = n_requests - n_succeeded - n_failed - n_left
        return Progress(
            n_requests=n_requests,
            n_waiting=n_waiting,
            reasons=self._reasons if n_waiting else (),
            n_succeeded=n_succeeded,
            n_failed=n_failed,
            n_left=n_left,
            n_reused=self._calls.n_reused,
            passed=self._passed.counts(),
        )

    def summary(self) -> str:
        """Return the run in one line."""
        now = self.progress
        if not self._enabled:
            return f"batchling is switched off: run {self._title()} caught no call (see BATCHLING_ENABLED)."
        if not now.n_requests:
            return self._nothing_caught(now.passed)
        passed = f" {sentence_of(now.passed)}." if now.passed else ""
        refused = self._passed.refusals()
        passed += f" The rehearsal refused calls, which cost nothing: {refused}." if refused else ""
        if self._rehearsal is not None:
            return self._rehearsal.report() + passed
        words = [f"{now.n_succeeded:,} of {now.n_requests:,} requests answered"]
        words += [f"{now.n_failed:,} failed"] if now.n_failed else []
        words += [f"{now.n_waiting:,} waiting"] if now.n_waiting else []
        words += [f"{now.n_left:,} left"] if now.n_left else []
        words += [f"{now.n_reused:,} from earlier runs"] if now.n_reused else []
        why = f". Waiting: {'; '.join(now.reasons)}" if now.reasons else ""
        given_up = f". {self._words_of_given_up(len(self._given_up))}" if self._given_up else ""
        end = "." if passed and not (why + given_up).endswith(".") else ""
        return f"{', '.join(words)} (run {self._title()}){why}{given_up}{end}{passed}"

    def _nothing_caught(self, passed: Sequence[Passing]) -> str:
        others = self._passed.posts()
        if passed:
            seen = f"{sentence_of(tuple(passed))}. The warnings above say why, and which setting or parameter helps"
        elif refused := self._passed.refusals():
            seen = f"The rehearsal refused what it saw: {refused}. The errors say why"
        elif others:
            seen = (
                f"It saw POSTs of other kinds only: {others}. If these are LLM calls, register the host with "
                "BATCHLING_PROVIDERS__<NAME>__BASE_URL and the path with __ENDPOINTS"
            )
        elif self._passed.n_left_alone:
            n = self._passed.n_left_alone
            seen = (
                f"It left {'1 call' if n == 1 else f'{n:,} calls'} to test doubles that answer by themselves"
            )
        elif self._has_inner_block:
            seen = "The blocks inside it report calls of their own"
        else:
            seen = (
                "It saw no LLM call at all: calls of programs that do not import batchling, and of HTTP libraries that "
                "it does not cover, are invisible to it; `batchling doctor` lists the covered ones"
            )
        return f"Run {self._title()} caught no call. {seen}."

    def hear(self, reasons: Sequence[str]) -> None:
        """Store why the run's batches wait, for `progress` and `summary`."""
        self._reasons = tuple(reasons)

    async def look(self) -> list[Batch]:
        """Return the current records of the batches that hold requests of this run, oldest first."""
        if self._rehearsal is not None:
            return []
        if asyncio.get_running_loop() is not self._home:
            return await self._relays.wait(self._look)
        return await self._look()

    async def _look(self) -> list[Batch]:
        return await Inspection(self.redis, self.keys).batches_of(self.id)

    def n_in_flight(self) -> int:
        """Return how many calls somebody still waits for, on a loop that runs."""
        if self._rehearsal is not None:
            return self._rehearsal.n_waiting
        # A call that blocks its thread is in flight until that thread has received the answer.
        return max(self.progress.n_waiting - self._relays.n_unheard(), self._n_blocking)

    def n_made(self) -> int:
        """Return how many calls were made until now."""
        return self.progress.n_requests

    def n_unsent(self) -> int:
        """Return how many calls are not in Redis yet."""
        return sum(loop_state.session.n_unsent for loop_state in list(self._loop_states.values()))

    def detach(self) -> None:
        """Keep the waiting calls' requests queued without their callers: release threads, withdraw nothing."""
        if self._rehearsal is not None:
            return
        self._detached = True
        n_waiting = self.progress.n_waiting
        if n_waiting:
            _logger.warning("%s", self._words_of_detached(n_waiting))
        self.release()

    def words_of_in_flight(self) -> str:
        """Return what to say at the end of a block that waits for its calls."""
        n = self.n_in_flight()
        calls = "1 call" if n == 1 else f"{n:,} calls"
        return (
            f"Run {self._title()} has ended and waits for {calls} in flight. Ctrl-C stops waiting; "
            "batchify(detach=True) does not wait."
        )

    def _words_of_detached(self, n: int) -> str:
        requests = "1 request stays queued and needs" if n == 1 else f"{n:,} requests stay queued and need"
        again = "Run the program again to get the answers without paying twice; " if self._terms.cache else ""
        look = f"`batchling show {self.id}` shows what became of them"
        return f"{requests} this block no longer (run {self._title()}). {again}{look}."

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
        # One coroutine per call, which does not keep the call itself: thousands of coroutines wait at once.
        request = self._read(call)
        if not isinstance(request, Request):
            return _at_once(request)
        if scope.running_loop() is None:
            return self._pass_foreign(request)
        if self._rehearsal is not None:
            return self._rehearsal.ask(request)
        if asyncio.get_running_loop() is self._home:
            return self._ask(request, call.body)
        return self._ask_from_afar(request, call.body)

    def answer_blocking(self, call: HttpCall) -> HttpReply | PassThrough:
        """Answer the call in the caller's own thread and block it meanwhile."""
        streamed = self._calls.streamed(call)
        if streamed is not None:
            reply = self.answer_blocking(streamed.call)
            return reply if isinstance(reply, PassThrough) else streamed.reply(reply)
        request = self._read(call)
        if not isinstance(request, Request):
            return request
        if self._rehearsal is not None:
            return self._rehearsal.ask_blocking(request)
        try:
            self._hold_bridge()
            shared = background_loop.hold()
        except QueueUnreachable as error:
            return self._refuse(error)
        with self._lock:
            self._n_blocking += 1
        try:
            return shared.call(self._blocked.wait(self._ask(request, call.body)))
        finally:
            with self._lock:
                self._n_blocking -= 1
            background_loop.let_go()

    def release(self) -> None:
        """Make calls that threads wait for, and later calls, raise CancelledError; safe in a signal handler."""
        self._blocked.release()

    def holds_up(self) -> bool:
        """Say whether calls wait on the event loop that the calling thread holds up and cannot turn."""
        loop = scope.running_loop()
        return loop is not None and self._relays.waits_on(loop)

    def say_late_what_goes_on(self) -> None:
        """Report the requests that continue, once the blocked event loop runs again or has ended."""
        self._leaving = asyncio.get_running_loop().create_task(self._say_late())

    async def _say_late(self) -> None:
        leave = partial(self._relays.wait, self._leave_all)
        # Held to the end: the background loop would stop after its last call, and its withdrawals would not be counted.
        background_loop.hold()
        try:
            await carry_through(leave)
        except asyncio.CancelledError:
            # The loop is ending and cancels its other calls too: their requests are withdrawn as well.
            await carry_through(self._relays.ended_here)
            await carry_through(leave)
            raise
        finally:
            self._say_what_goes_on()
            background_loop.let_go()

    async def close(self, *, interrupted: bool, say: bool = True) -> None:
        """End the run: withdraw cancelled requests that are not submitted yet, and let the others run.

        Tasks that still await answers get them. If an exception left the block, release the waiting threads and
        report the requests that keep running.
        """
        self._closed = True
        if interrupted:
            self.release()
        await self._leave_all()
        if interrupted and say:
            self._say_what_goes_on()
        if self._bridged:
            self._bridged = False
            background_loop.let_go()

    def close_from_afar(self) -> None:
        """Do what `close` does without awaiting anything, and without a turn of the loop on which the block was open.

        Raises `QueueUnreachable` where no background loop can be started for it.
        """
        self._closed = True
        self.release()
        if scope.running_loop() is None:
            # An interpreter that is exiting starts no thread.
            with asyncio.Runner() as runner:
                runner.run(carry_through(self._take_back_from_afar))
        else:
            shared = background_loop.hold()
            try:
                shared.finish(self._take_back_from_afar)
            finally:
                background_loop.let_go()
        for loop, loop_state in self._loop_states.items():
            if not loop_state.left:
                loop_state.left = True
                # If the loop runs again, the session ends later; if it is closed, there is nothing to end.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(loop_state.session.let_go)
        self._say_what_goes_on()
        if self._bridged:
            self._bridged = False
            background_loop.let_go()

    async def _take_back_from_afar(self) -> None:
        for loop_state in self._loop_states.values():
            regretted, loop_state.regretted = loop_state.regretted, []
            n_given_up = await loop_state.session.take_back_from_afar(regretted, self._hear_withdrawn)
            loop_state.n_left += min(n_given_up, self.progress.n_waiting)

    def _read(self, call: HttpCall) -> Request | HttpReply | PassThrough:
        let_through = (self._n_overdue and self._on_deadline == "realtime") or self._n_too_few
        if let_through and _is_retry(call):
            # The SDK retries a call that was let through: the retry does not count as a new request.
            return PASS_THROUGH
        request = self._calls.read(call)
        if isinstance(request, Request) and self._rehearsal is None:
            request.lane.pace.ask(request.request_id, _caller())
        if not isinstance(request, PassThrough):
            self._passed.caught = True
        if isinstance(request, HttpReply):
            with self._lock:
                self._n_refused += 1
        return request

    async def _answer_streamed(self, streamed: Streamed) -> HttpReply | PassThrough:
        reply = await self.answer(streamed.call)
        return reply if isinstance(reply, PassThrough) else streamed.reply(reply)

    async def _pass_foreign(self, request: Request) -> PassThrough:
        """Let a call pass that no asyncio event loop awaits; a dry run counts and ends it like other calls."""
        if self._rehearsal is not None:
            self._rehearsal.ask_blocking(request)
        spec = request.lane.spec
        self._passed.note(Why.NO_ASYNCIO, spec.host, _FOREIGN_LOOP.format(spec.provider))
        return PASS_THROUGH

    async def _ask(self, request: Request, body: bytes) -> HttpReply | PassThrough:
        loop_state = self._loop_state()
        self._count(loop_state, request)
        request_id, lane, place = request.request_id, request.lane, request.place
        is_answered = is_left = False
        try:
            future = loop_state.session.ask(request)
            del request
            if self._deadline_s is None:
                reply = await future
            else:
                async with asyncio.timeout(self._deadline_s):
                    reply = await future
            n_again = 0
            while n_again < ASKED_AGAIN and self._is_no_answer(loop_state, request_id, reply):
                n_again += 1
                future = loop_state.session.ask(self._calls.request(lane, request_id, body))
                async with asyncio.timeout(self._deadline_s):
                    reply = await future
            is_answered = reply.status < 400
        except asyncio.CancelledError:
            loop_state.session.leave(request_id, future)
            self._regret(loop_state, request_id)
            is_left = True
            raise
        except TimeoutError:
            loop_state.session.leave(request_id, future)
            why = ""
            if self._on_deadline == "error":
                try:
                    why = await loop_state.overdue.why(self.look, lane.spec)
                except asyncio.CancelledError:
                    self._regret(loop_state, request_id)
                    is_left = True
                    raise
            return self._miss(loop_state, request_id, lane.spec.host, why)
        finally:
            lane.pace.left(request_id)
            if place is not None and not is_answered:
                self._calls.free(place, left=is_left)
        self._given_up.discard(request_id)
        lane.pace.answered(request_id)
        if reply.headers.get(errors.HEADER) == BatchTooSmall.code and self._on_too_few == "realtime":
            return self._let_through(loop_state, lane.spec.host)
        if reply.status < 400:
            loop_state.n_succeeded += 1
        else:
            loop_state.n_failed += 1
        return reply

    async def _ask_from_afar(self, request: Request, body: bytes) -> HttpReply | PassThrough:
        """Ask on the background loop for a call of another one, which may be closed before the answer comes."""
        has_place = True

        async def ask() -> HttpReply | PassThrough:
            nonlocal has_place
            has_place = False
            reply = await self._ask(request, body)
            has_place = isinstance(reply, HttpReply) and reply.status < 400
            return reply

        try:
            self._hold_bridge()
            return await self._relays.wait(ask)
        except QueueUnreachable as error:
            return self._refuse(error)
        except asyncio.CancelledError:
            if has_place and request.place is not None:
                # It did not begin, or nobody took its answer: the same call made again gets that answer.
                self._calls.free(request.place, left=False)
            raise

    def _refuse(self, error: QueueUnreachable) -> HttpReply:
        """Answer a call for which the process has no thread, file or event loop."""
        with self._lock:
            self._n_refused += 1
        return replies.of_error(QueueUnreachable, status=503, sentence=str(error))

    def _count(self, loop_state: _LoopState, request: Request) -> None:
        """Count a call as a request, unless it repeats a call that was given up: that request is counted already."""
        place = request.place
        if place is None or not place.again:
            loop_state.n_requests += 1
            return
        self._given_up.discard(request.request_id)
        self._withdrawn.discard(request.request_id)
        request.lane.pace.ask_again(request.request_id)
        if place.left:
            loop_state.n_left -= 1
        else:
            loop_state.n_requests += 1

    def _is_no_answer(self, loop_state: _LoopState, request_id: RequestId, reply: HttpReply) -> bool:
        """Return whether the same request must be enqueued again.

        A killed Redis loses its last moments, the request included; and a batch that was being cancelled before the
        request joined it was cancelled on behalf of others.
        """
        code = reply.headers.get(errors.HEADER)
        return code == RequestLost.code or (
            code == BatchCancelled.code and loop_state.session.is_late(request_id)
        )

    def _let_through(self, loop_state: _LoopState, host: str) -> PassThrough:
        """Pass a call through whose batch is too small for its provider and was not submitted."""
        loop_state.n_left += 1
        self._passed.note(Why.TOO_FEW, host)
        with self._lock:
            self._n_too_few += 1
            first = self._n_too_few == 1
        if first:
            _logger.warning(
                "Run %s has too few requests for a batch of their provider: they are sent at full price.",
                self._title(),
            )
        return PASS_THROUGH

    def _miss(
        self, loop_state: _LoopState, request_id: RequestId, host: str, why: str
    ) -> HttpReply | PassThrough:
        realtime = self._on_deadline == "realtime"
        loop_state.session.withdraw([request_id], self._hear_withdrawn, cancel=realtime)
        with self._lock:
            self._n_overdue += 1
            first = self._n_overdue == 1
        if not realtime:
            loop_state.n_failed += 1
            sentence = f"{DeadlinePassed.sentence} {why}".rstrip()
            return replies.of_error(DeadlinePassed, status=504, sentence=sentence)
        loop_state.n_left += 1
        self._passed.note(Why.DEADLINE, host)
        if first:
            _logger.warning(
                "Run %s passed its deadline: what is unanswered is sent to the provider at full price.",
                self._title(),
            )
        return PASS_THROUGH

    def _regret(self, loop_state: _LoopState, request_id: RequestId) -> None:
        loop_state.n_left += 1
        if self._detached:
            return
        loop_state.regretted.append(request_id)
        if self._closed:
            self._withdraw(loop_state)
        elif loop_state.timer is None:
            loop_state.timer = asyncio.get_running_loop().call_later(GRACE_S, self._withdraw, loop_state)

    def _withdraw(self, loop_state: _LoopState) -> None:
        loop_state.timer = None
        regretted, loop_state.regretted = loop_state.regretted, []
        loop_state.session.withdraw(regretted, self._hear_withdrawn)

    def _hear_withdrawn(self, withdrawn: Sequence[RequestId], running: Sequence[RequestId]) -> None:
        """Note what became of requests that nobody waits for, and warn once of those whose batches run.

        Calls with the same timeout are given up one after the other, so the warning waits until it can count them.
        """
        self._withdrawn.update(withdrawn)
        self._given_up.update(running)
        if not running or self._closed:
            return
        with self._lock:
            first = not self._left_running
            self._left_running.update(running)
        if first:
            asyncio.get_running_loop().call_later(COUNTING_S, self._say_given_up)

    def _say_given_up(self) -> None:
        """Warn of the calls given up so far; a run that has ended meanwhile counts them in its summary."""
        if not self._closed:
            with self._lock:
                n_calls = len(self._left_running)
            _logger.warning("Run %s: %s.", self._title(), self._words_of_given_up(n_calls))

    def _words_of_given_up(self, n: int) -> str:
        given_up = (
            "1 call was given up, and its batch finishes"
            if n == 1
            else f"{n:,} calls were given up, and their batches finish"
        )
        where = "in this run or the next" if self._terms.cache else "in this run"
        again = f"the same call made again, {where}, gets the answer and costs nothing more"
        return f"{given_up} all the same: {again}"

    async def _leave_all(self) -> None:
        here = asyncio.get_running_loop()
        for loop, loop_state in list(self._loop_states.items()):
            if loop is here:
                await self._leave(loop_state)
            else:
                await background_loop.on(loop, partial(self._leave, loop_state))

    async def _leave(self, loop_state: _LoopState) -> None:
        await self._blocked.gone()
        await self._relays.gone()
        if loop_state.timer is not None:
            loop_state.timer.cancel()
        if loop_state.regretted:
            self._withdraw(loop_state)
        await loop_state.session.withdrawals_done()
        if not loop_state.left:
            loop_state.left = True
            loop_state.session.let_go()
        await loop_state.session.ended()

    def _loop_state(self) -> _LoopState:
        loop = asyncio.get_running_loop()
        loop_state = self._loop_states.get(loop)
        if loop_state is None or loop_state.session.over:
            if self._deployment is None:
                raise RuntimeError("a dry run has no queue")
            held = session.hold(self._deployment)
            if loop_state is None:
                loop_state = self._loop_states[loop] = _LoopState(session=held)
            loop_state.session = held
        return loop_state

    def _hold_bridge(self) -> None:
        with self._lock:
            if not self._bridged and not self._closed:
                background_loop.hold()
                self._bridged = True

    def _say_what_goes_on(self) -> None:
        n_withdrawn = len(self._withdrawn)
        n_going_on = len(self._given_up) + self.progress.n_waiting
        if n_withdrawn:
            _logger.warning(
                "%d requests of run %s were withdrawn before they were submitted: they cost nothing.",
                n_withdrawn,
                self._title(),
            )
        if n_going_on <= 0:
            return
        # Reported here, so that the summary does not repeat it.
        self._given_up.clear()
        again = "run it again to get their answers without paying twice, or " if self._terms.cache else ""
        _logger.warning(
            "%d requests of run %s keep running without this program: %ssee them with `batchling show %s`.",
            n_going_on,
            self._title(),
            again,
            self.id,
        )

    def _title(self) -> str:
        return f"{self._name!r} {self.id}" if self._name else self.id


def _caller() -> object:
    """Return the thread or the task that makes a call: it makes its next one after this one's answer."""
    loop = scope.running_loop()
    task = asyncio.current_task(loop) if loop is not None else None
    return task or threading.current_thread()


async def _at_once(reply: HttpReply | PassThrough) -> HttpReply | PassThrough:
    return reply


def _is_retry(call: HttpCall) -> bool:
    return call.headers.get("x-stainless-retry-count", "0") != "0"
