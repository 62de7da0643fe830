"""The switch: `batchify` opens a block in which SDK calls are answered from provider batches.

The client's only composition root.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import math
import os
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Final, Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError

from . import settings
from .block import background_loop, sandboxed, sigint
from .block import in_flight as in_flight_of
from .block.background_loop import Bridge
from .block.dry_run import Rehearsal
from .block.run import Fallback, Run
from .errors import DryRun, DryRunOver, QueueUnfit, QueueUnreachable, WrongSettings
from .intercept import child_processes, own_transports, probe, scope, switch
from .intercept.interceptor import warn_once
from .operate import embedded_stack, worker_presence
from .operate.connect import running_url, unreachable
from .operate.inspection import Inspection
from .progress import display
from .session import Deployment
from .session.calls import Terms
from .session.own_context import apart
from .settings import ClientSettings
from .wire import sealing
from .wire.deployment import redis_health, seal_key_files
from .wire.deployment.cancellation import carry_through, end
from .wire.deployment.connection import UNREACHABLE, ask, connect, place_of
from .wire.ids import new_run_id
from .wire.keys import Keys
from .wire.routes import Routes, window_words

DEFAULT_POLL_S: Final = 10.0
SAY_WAITING_AFTER_S: Final = 2.0
"""How long a block waits for its calls at its end before it says so."""
_SPAN: Final = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?"
)
_SPAN_SECONDS: Final = (86_400, 3_600, 60, 1)
_NO_ASYNCIO: Final = (
    "`async with batchify()` needs asyncio, and no event loop of asyncio runs here (under trio none does). "
    "Use asyncio, or a synchronous client in a plain `with batchify():`."
)

_NO_NETWORK: Final = (
    "{0} replaces the network of this program, so the batchify block that opens now is off: it catches no call and "
    "reaches no Redis. Open the block before {0} if calls that {0} does not answer are to be batched."
)


def batchify(
    batch_size: int | None = None,
    batch_window_seconds: float = 2.0,
    batch_poll_interval_seconds: float = DEFAULT_POLL_S,
    completion_window: str = "24h",
    dry_run: bool = False,
    cache: bool = True,
    live_display: bool = True,
    vertex_gcs_prefix: str | None = None,
    *,
    name: str | None = None,
    deadline: float | str | None = None,
    on_deadline: Literal["error", "realtime"] = "error",
    on_too_few: Literal["error", "realtime"] = "error",
    redis_url: str | None = None,
    stream: Literal["pass", "batch"] = "pass",
    account: str | None = None,
    detach: bool = False,
    enabled: bool | None = None,
) -> Block:
    """Return a block for `async with` or `with`; LLM calls of unchanged SDK code inside it are answered from batches.

    A batch is sealed when it holds `batch_size` requests (None: the provider's maximum), or when no request was added
    for `batch_window_seconds`. `completion_window` is passed to the provider. A running batch is polled every
    `batch_poll_interval_seconds` at the latest (at the default of 10, the worker's own setting applies).
    With `cache`, a rerun gets the answers and running requests of earlier runs.
    `deadline` is in seconds or like "2h", counted from each call; `on_deadline` says what happens to a late call, and
    `on_too_few` to requests that are too few for a batch of their provider.
    A `dry_run` counts the calls until no new call comes for a moment, ends them, reports what would have been sent, and
    raises `errors.DryRun` at the end of the block, so that the code after it does not run without answers.
    A call with stream=True is sent at full price; with `stream="batch"` it is batched without `stream`, and the
    finished answer is returned as a stream (chat completions, responses and Anthropic's messages). It shares its
    answer with the same call without a stream.
    `account` names the owner of the requests if the API key is a token that is renewed: runs with the same name share
    batches and answers, whatever their tokens.
    When a block ends normally, it waits for its calls in flight, also for those in tasks and threads that nobody
    awaits. With `detach` it ends once they are queued, and the next run of the program gets their answers.
    A block with `enabled=False` does nothing, for example in unit tests (None: BATCHLING_ENABLED).

    Raise `WrongSettings` (a ValueError) for values that cannot work. Entering the block raises `QueueUnreachable` if
    Redis does not answer, and `QueueUnfit` if this Redis would lose requests.
    """
    used = settings.load(redis_url=redis_url)
    if unused := settings.of_the_original(os.environ):
        warn_once(unused, os.getpid())
    routes = sandboxed.routes(used.routes())
    _check_number("batch_size", batch_size, least=1, whole=True)
    _check_number("batch_window_seconds", batch_window_seconds, least=0.0)
    _check_number("batch_poll_interval_seconds", batch_poll_interval_seconds, least=0.0)
    windows = sorted({window for route in routes.routes for window in route.windows})
    if completion_window not in windows:
        raise WrongSettings(
            f"No provider takes a completion_window of {completion_window!r}: use one of {window_words(windows)}."
        )
    _check_choice("on_deadline", on_deadline, ("error", "realtime"))
    _check_choice("on_too_few", on_too_few, ("error", "realtime"))
    _check_choice("stream", stream, ("pass", "batch"))
    terms = Terms(
        run_id=new_run_id(),
        run_name=name or "",
        completion_window=completion_window,
        batch_size=batch_size,
        linger_s=float(batch_window_seconds),
        poll_s=0.0 if batch_poll_interval_seconds == DEFAULT_POLL_S else float(batch_poll_interval_seconds),
        cache=cache,
        vertex_gcs_prefix=vertex_gcs_prefix,
        stream=stream,
        account=account_of(account, used),
        namespace=used.namespace,
    )
    options = _BlockOptions(
        name=name,
        dry_run=dry_run,
        live_display=live_display,
        deadline_s=_seconds(deadline),
        on_deadline=on_deadline,
        on_too_few=on_too_few,
        detach=detach,
        enabled=used.enabled if enabled is None else enabled,
    )
    return Block(used, terms, options, routes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _BlockOptions:
    name: str | None
    dry_run: bool
    live_display: bool
    deadline_s: float | None
    on_deadline: Fallback
    on_too_few: Fallback
    detach: bool
    enabled: bool


class Block:
    """What `batchify` returns; it is entered once, and yields its `Run`."""

    def __init__(self, used: ClientSettings, terms: Terms, options: _BlockOptions, routes: Routes) -> None:
        self._settings = used
        self._terms = terms
        self._options = options
        self._routes = routes
        self._run: Run | None = None
        self._outer: Run | None = None
        self._token: scope.Token | None = None
        self._bridge: Bridge | None = None
        self._threads: in_flight_of.Threads | None = None
        self._companions: list[asyncio.Task[None]] = []
        self._pid = os.getpid()
        self._left = False
        self._says_waiting = False

    async def __aenter__(self) -> Run:
        if scope.running_loop() is None:
            raise RuntimeError(_NO_ASYNCIO)
        if self._is_off():
            return self._open_disabled()
        run = await self._open(is_dry=self._is_dry())
        if run.rehearsal is not None:
            run.rehearsal.owned_by(asyncio.current_task())
        self._token = scope.enter_task(run)
        return run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if error is None and self._token is not None and not self._left:
            try:
                await self._wait_for_calls(self._token)
            except BaseException as broken_off:
                await self._leave_task(broken_off)
                raise
        return await self._leave_task(error)

    async def _wait_for_calls(self, token: scope.Token) -> None:
        """Return once no call is in flight, with display and scope open meanwhile; a cancel breaks it off."""
        in_flight = self._in_flight(in_flight_of.tasks_of(token))
        while in_flight is not None and (pause_s := self._pause_s(in_flight)) is not None:  # noqa: ASYNC110
            # Calls of other threads and loops count too, but do not set this loop's event.
            await asyncio.sleep(pause_s)
        self._detach()

    async def _leave_task(self, error: BaseException | None) -> Literal[False]:
        self._leave_scope()
        run = self._run
        if run is None or self._is_left_already() or self._is_left_by_child():
            return False
        dry_end = self._is_dry_end(error)
        _let_calls_go(run)
        if isinstance(error, GeneratorExit) or scope.running_loop() is None:
            # A discarded coroutine or generator must not await, and its loop may have stopped.
            self._close_from_afar(run)
            return False
        try:
            await carry_through(partial(self._close, run, interrupted=error is not None and not dry_end))
        except asyncio.CancelledError:
            if isinstance(error, asyncio.CancelledError) and not dry_end:
                return False
            raise
        self._end_dry_run(run, dry_end=dry_end)
        return False

    def _leave_scope(self) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        scope.leave_task(token)
        # Watch tasks that outlive the block until the last has ended.
        switch.install()
        scope.when_forgotten(token, switch.let_go)

    def __enter__(self) -> Run:
        if self._is_off():
            return self._open_disabled()
        is_dry = self._is_dry()
        shared = background_loop.hold()
        try:
            run = shared.call(self._open(is_dry=is_dry, awaits_worker=not self._settings.redis_url))
        except BaseException:
            with sigint.deferred():
                if self._run is not None and not self._is_left_already():
                    # The interrupt came between the last step of the entry and this thread's return from it.
                    _let_calls_go(self._run)
                    shared.finish(partial(self._close, self._run, interrupted=False))
                background_loop.let_go()
            raise
        self._bridge = shared
        sigint.watch(run.release)
        self._threads = in_flight_of.Threads(scope.enter_process(run).items)
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        # An event loop of this thread must not be held up: its own calls could never be answered.
        if error is None and self._threads is not None and not self._left and scope.running_loop() is None:
            try:
                self._wait_for_calls_of_threads(self._threads)
            except BaseException as interrupted:
                self._leave_threads(interrupted)
                raise
        return self._leave_threads(error)

    def _wait_for_calls_of_threads(self, threads: in_flight_of.Threads) -> None:
        """Do in the exiting thread what `_wait_for_calls` does; Ctrl-C breaks it off."""
        in_flight = self._in_flight(threads.may_ask)
        while in_flight is not None and (pause_s := self._pause_s(in_flight)) is not None:
            time.sleep(pause_s)
        self._detach()

    def _leave_threads(self, error: BaseException | None) -> Literal[False]:
        run, shared = self._run, self._bridge
        if shared is None or run is None or self._is_left_already():
            return False
        with sigint.deferred():
            _leave_process(run)
            sigint.let_go(run.release)
            if self._is_left_by_child():
                return False
            dry_end = self._is_dry_end(error)
            interrupted = error is not None and not dry_end
            _let_calls_go(run)
            say_late = interrupted and run.holds_up()
            if say_late:
                run.say_late_what_goes_on()
            try:
                shared.finish(partial(self._close, run, interrupted=interrupted, say=not say_late))
            finally:
                background_loop.let_go()
        self._end_dry_run(run, dry_end=dry_end)
        return False

    def _in_flight(self, may_ask: Callable[[float], bool]) -> in_flight_of.InFlight | None:
        """Return what this process waits for before it leaves the block."""
        if self._run is None or os.getpid() != self._pid:
            return None
        counted = in_flight_of.Unsent(self._run) if self._options.detach else self._run
        return in_flight_of.InFlight(counted, may_ask)

    def _pause_s(self, in_flight: in_flight_of.InFlight) -> float | None:
        run = self._run
        pause_s = in_flight.pause_s()
        if run is None or pause_s is None or self._left:
            return None
        is_long = in_flight.waited_s > SAY_WAITING_AFTER_S and run.n_in_flight() > 0
        if is_long and not self._options.detach and not self._says_waiting:
            self._says_waiting = True
            display.tell(run.words_of_in_flight())
        return pause_s

    def _detach(self) -> None:
        if self._options.detach and self._run is not None and not self._left and os.getpid() == self._pid:
            self._run.detach()

    async def _open(self, *, is_dry: bool, awaits_worker: bool = False) -> Run:
        self._check_entered_once()
        self._pid = os.getpid()
        deployment = None if is_dry else await apart(deployment_of(self._settings))
        run = self._new_run(deployment)
        switch.install()
        try:
            await apart(self._start(run, deployment, awaits_worker=awaits_worker))
        except BaseException as error:
            switch.uninstall()
            if not isinstance(error, GeneratorExit):
                await carry_through(partial(run.close, interrupted=False))
            raise
        self._run = run
        child_processes.block_opened(run.passed)
        atexit.register(self._leave_at_exit)
        return run

    def _check_entered_once(self) -> None:
        if self._run is not None:
            raise RuntimeError("A batchify() block is entered once: call batchify() again for another one.")

    def _new_run(self, deployment: Deployment | None) -> Run:
        return Run(
            terms=self._terms,
            deployment=deployment,
            routes=self._routes,
            name=self._options.name,
            deadline_s=self._options.deadline_s,
            on_deadline=self._options.on_deadline,
            on_too_few=self._options.on_too_few,
            enabled=self._options.enabled,
        )

    def _is_off(self) -> bool:
        double = own_transports.double_of_network()
        if double is not None and self._options.enabled and not self._is_dry():
            display.warn(_NO_NETWORK.format(double))
            self._options = replace(self._options, enabled=False)
        return not self._options.enabled

    def _open_disabled(self) -> Run:
        """Yield a run that catches nothing; leaving the block does nothing either."""
        self._check_entered_once()
        self._run, self._left = self._new_run(None), True
        return self._run

    async def _start(self, run: Run, deployment: Deployment | None, *, awaits_worker: bool) -> None:
        await probe.check()
        if deployment is None:
            return
        await check_reachable(run.redis, deployment.redis_url)
        inspection = Inspection(run.redis, run.keys)
        if awaits_worker:
            await worker_presence.first_worker(inspection, worker_presence.STARTING_S)
        with contextlib.suppress(*UNREACHABLE):
            # From here on an outage of Redis is waited for; the companion checks for a worker again.
            await worker_presence.fit_worker_lives(inspection, deployment.seal_public_key)
        companions = [
            display.show(run, self._options.live_display),
            worker_presence.watch(
                inspection,
                deployment.seal_public_key,
                asked=lambda: run.progress.n_waiting > 0,
                patience_s=worker_presence.patience_s(self._settings.redis_url),
            ),
        ]
        self._companions = [asyncio.create_task(companion) for companion in companions]

    async def _close(self, run: Run, *, interrupted: bool, say: bool = True) -> None:
        for companion in self._companions:
            companion.cancel()
        if self._companions:
            # The display reads the batches a last time, which a second cancel would interrupt.
            await asyncio.wait(self._companions, timeout=display.LAST_LOOK_S)
        await end(self._companions)
        await run.close(interrupted=interrupted, say=say)
        if run.rehearsal is not None:
            run.rehearsal.unhush()
        if run.rehearsal is not None and run.rehearsal.n_requests and self._terms.cache:
            await look_up(run.rehearsal, self._settings)
        if self._outer is not None:
            self._outer.note_inner_block()
        if run.progress.n_requests:
            display.report(run)
        elif run.has_inner_block and not run.progress.passed:
            # The dry run has reported already.
            pass
        elif run.passed.n_left_alone and not run.progress.passed:
            if not run.is_dry:
                display.tell(run.summary())
        elif not interrupted or run.progress.passed:
            display.warn(run.summary())

    def _close_from_afar(self, run: Run) -> None:
        """Do what `_close` does on the background loop, without the block's own loop."""
        for companion in self._companions:
            with contextlib.suppress(RuntimeError):
                companion.get_loop().call_soon_threadsafe(companion.cancel)
        with contextlib.suppress(QueueUnreachable):
            run.close_from_afar()
        if self._outer is not None:
            self._outer.note_inner_block()
        if run.rehearsal is not None:
            run.rehearsal.unhush()
        if run.progress.n_requests:
            display.report(run)

    def _is_left_already(self) -> bool:
        left, self._left = self._left, True
        atexit.unregister(self._leave_at_exit)
        return left

    def _leave_at_exit(self) -> None:
        """Leave a block that the program forgot, or whose event loop was closed around it."""
        run = self._run
        if run is None or os.getpid() != self._pid:
            return
        if self._bridge is not None:
            self.__exit__(SystemExit, SystemExit(), None)
        elif not self._is_left_already():
            _let_calls_go(run)
            self._close_from_afar(run)

    def _is_left_by_child(self) -> bool:
        """Return whether this process was forked inside the block: run, threads and connections are its parent's."""
        if os.getpid() == self._pid:
            return False
        switch.uninstall()
        return True

    def _is_dry(self) -> bool:
        """Return whether this block, or a block around it such as `batchling run --dry-run`, only counts."""
        outer = scope.current()
        self._outer = outer if isinstance(outer, Run) else None
        return self._options.dry_run or (self._outer is not None and self._outer.is_dry)

    def _is_dry_end(self, error: BaseException | None) -> bool:
        """Return whether a dry run ends the block: by `DryRun`, by an exception made of it, or at the block's end."""
        rehearsal = self._run.rehearsal if self._run is not None else None
        if rehearsal is None or not rehearsal.n_requests:
            return False
        rehearsal.let_owner_end()
        if error is None or isinstance(error, DryRun):
            return True
        # asyncio.gather turns DryRun into a plain CancelledError; a cancellation that somebody requested is not ours.
        task = asyncio.current_task() if scope.running_loop() is not None else None
        return isinstance(error, asyncio.CancelledError) and (task is None or not task.cancelling())

    def _end_dry_run(self, run: Run, *, dry_end: bool) -> None:
        """End the program: what follows the block would work on answers that are not there.

        A block whose calls test doubles answered has withheld nothing, and ends with a warning.
        """
        if dry_end:
            n = run.progress.n_requests
            counted = "1 request was" if n == 1 else f"{n:,} requests were"
            raise DryRunOver(
                f"The dry run ends here: {counted} counted, and nothing after the block runs."
            ) from None
        if run.is_dry and run.passed.n_left_alone and not run.progress.n_requests:
            # A Python warning, so that a test that counts requests shows it in its report.
            warnings.warn(f"The dry run counted nothing. {run.summary()}", stacklevel=3)


def _leave_process(run: Run) -> None:
    token = scope.leave_process(run)
    if token is not None:
        # Watch threads that outlive the block until the last has ended.
        switch.install()
        scope.when_forgotten(token, switch.let_go)


def _let_calls_go(run: Run) -> None:
    """Undo what the entry of a block did to this process' HTTP libraries and to its children."""
    child_processes.block_closed(run.passed)
    switch.uninstall()


async def deployment_of(used: ClientSettings) -> Deployment:
    """Return the settings' deployment, starting the embedded stack if needed; raise what entering a block raises."""
    url = used.redis_url or await embedded_stack.redis_url(used.home)
    return Deployment(
        redis_url=url,
        namespace=used.namespace,
        seal_public_key=used.seal_public_key or _stored_public_key(used),
    )


async def look_up(rehearsal: Rehearsal, used: ClientSettings) -> None:
    """Find out which of a dry run's requests earlier runs have made, where Redis runs; start none for it."""
    try:
        url = used.redis_url or await running_url(used.home)
        redis = connect(url)
        try:
            await rehearsal.look_up(redis, Keys(used.namespace))
        except (*UNREACHABLE, RedisError) as error:
            rehearsal.not_looked_up(str(unreachable(url, error)))
        finally:
            with contextlib.suppress(*UNREACHABLE):
                await redis.aclose()
    except QueueUnreachable as error:
        if embedded_stack.was_used(used.home):
            rehearsal.not_looked_up(str(error))


async def check_reachable(redis: Redis, url: str) -> None:
    """Raise `QueueUnreachable` if Redis does not answer, `QueueUnfit` if it cannot be trusted with requests."""
    try:
        told = await ask(redis)
    except (*UNREACHABLE, RedisError) as error:
        raise unreachable(url, error) from None
    findings = redis_health.of_redis(told)
    unfit = redis_health.refusal(findings, place_of(url))
    if unfit is not None:
        raise QueueUnfit(unfit)
    for finding in findings:
        if not finding.sound:
            warn_once(f"Redis at {place_of(url)}: {finding.says}. {finding.mend}", os.getpid())


def account_of(given: str | None, used: ClientSettings) -> str | None:
    """Return the name of the account, from the settings if none is given; raise `WrongSettings`."""
    try:
        return used.account if given is None else settings.usable_account(given)
    except ValueError as error:
        raise WrongSettings(f"account {error}.") from None


def _stored_public_key(used: ClientSettings) -> str:
    try:
        return seal_key_files.stored_pair(used.home)[0]
    except (OSError, sealing.UnreadableSealKey) as error:
        raise WrongSettings(
            f"The seal key in {used.home / 'keys'} cannot be read ({error}): mend it, or set BATCHLING_SEAL_PUBLIC_KEY."
        ) from None


def _check_number(name: str, value: float | None, *, least: float, whole: bool = False) -> None:
    kind = int if whole else (int, float)
    if whole and value is None:
        return
    if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value) or value < least:
        words = "a whole number" if whole else "a number"
        raise WrongSettings(f"{name} must be {words} from {least:g} on, not {value!r}.")


def _check_choice(name: str, value: str, choices: tuple[str, str]) -> None:
    if value not in choices:
        raise WrongSettings(f"{name} is {choices[0]!r} or {choices[1]!r}, not {value!r}.")


def _seconds(deadline: float | str | None) -> float | None:
    """Parse a span of time into seconds: a number, or words like "90s", "2h", "1h30m"."""
    if deadline is None:
        return None
    if isinstance(deadline, str):
        match = _SPAN.fullmatch(deadline.strip())
        parts = match.groups() if match else ()
        seconds = sum(float(n) * unit for n, unit in zip(parts, _SPAN_SECONDS, strict=False) if n is not None)
    else:
        seconds = float(deadline)
    if not math.isfinite(seconds) or seconds <= 0:
        raise WrongSettings(
            f'deadline must be a number of seconds above 0 or like "2h" or "90m", not {deadline!r}.'
        )
    return seconds
