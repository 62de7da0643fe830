"""A run that queues nothing and sends nothing: it counts what would be sent, and reports that."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import warnings
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ..errors import DryRun, DryRunCall, QueueUnreachable
from ..intercept.open_block import running_loop
from ..operate import embedded_stack
from ..operate.connect import unreachable
from ..operate.embedded_status import running_url
from ..session.calls import Request
from ..session.lanes import Lane
from ..settings import ClientSettings
from ..wire.deployment import salt
from ..wire.deployment.connection import UNREACHABLE, connect
from ..wire.keys import Keys, RequestId
from ..wire.records.in_flight import InFlight
from ..wire.records.row_and_result import CorruptRecord
from ..wire.roots import Roots
from ..wording import counted

QUIET_S: Final = 1.0
"""Calls are counted until none has come for this long; then all of them end.

Long enough for programs that begin their calls one after the other, on a busy machine too.
"""
BYTES_PER_TOKEN: Final = 4
LOOKED_UP_AT_ONCE: Final = 500
SUCCESS: Final = b"+"
"""How a stored success begins."""
_TOO_FEW: Final = "would fail; send more at once"
TOO_FEW_IN_BLOCK: Final = {
    "error": f"{_TOO_FEW}, or set on_too_few='realtime' to send them at full price",
    "realtime": "would be sent at full price (on_too_few='realtime')",
}
"""What becomes of requests that are too few for a batch of their provider, by the block's `on_too_few`."""
_NOT_COUNTED: Final = (
    "Calls that wait for the answers of others, such as later rounds of a loop, are not counted."
)


@dataclass(slots=True)
class _Tally:
    n_requests: int = 0
    n_bytes: int = 0
    n_batches: int = 0
    n_open_rows: int = 0
    n_open_bytes: int = 0
    n_in_small: int = 0
    """Requests in full batches that are smaller than the provider takes."""

    def count(self, lane: Lane, size: int) -> None:
        full = self.n_open_rows >= lane.cap.rows or self.n_open_bytes + size > lane.cap.bytes
        if full or self.n_batches == 0:
            self.n_in_small = self.n_too_few(lane)
            self.n_batches += 1
            self.n_open_rows = self.n_open_bytes = 0
        self.n_open_rows += 1
        self.n_open_bytes += size
        self.n_requests += 1
        self.n_bytes += size

    def n_too_few(self, lane: Lane) -> int:
        """Return how many requests are in batches smaller than the provider accepts."""
        return self.n_in_small + (self.n_open_rows if self.n_open_rows < lane.route.min_rows else 0)


@dataclass(slots=True)
class _Counted:
    """The requests of one lane, in their order, each with the bytes of its line."""

    ids: list[RequestId] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


class Rehearsal:
    """Counts requests by lane; each call ends in `DryRun` once no new one comes."""

    def __init__(self, *, too_few: str = _TOO_FEW) -> None:
        """Make a rehearsal; `too_few` is what becomes of requests that are too few for a batch of their provider."""
        self._too_few = too_few
        self._counted: dict[Lane, _Counted] = {}
        self._answered: set[RequestId] = set()
        self._running: set[RequestId] = set()
        self._not_looked_up = ""
        self._last_at = 0.0
        self._n_ended = 0
        self._lock = threading.Lock()
        self._owner: asyncio.Task[Any] | None = None
        self._owner_is_cancelled = False
        self._hushed: int | None = None
        self._is_over = False
        self.knows_ids = False
        """Whether its requests have the ids by which earlier runs made them."""
        self._asking: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.AbstractEventLoop] = set()

    async def ask(self, request: Request) -> NoReturn:
        """Count the request and end the call."""
        self.count(request)
        task = asyncio.current_task()
        if task is not None:
            self._asking.add(task)
        try:
            while (rest_s := self._rest_s()) > 0:  # noqa: ASYNC110 - quiet has no event of its own
                await asyncio.sleep(rest_s)
            self._end_who_waits()
        finally:
            if task is not None:
                self._asking.discard(task)
        self._end()

    def ask_blocking(self, request: Request) -> NoReturn:
        """Count the request and end the call, in the caller's thread."""
        self.count(request)
        while (rest_s := self._rest_s()) > 0:
            time.sleep(rest_s)
        self._end()

    @property
    def n_waiting(self) -> int:
        """How many of the calls have not ended yet, of those that were not cancelled before."""
        return self.n_requests - self._n_ended if self._rest_s() > -QUIET_S else 0

    def count(self, request: Request) -> None:
        """Count the request."""
        with self._lock:
            rows = self._counted.setdefault(request.lane, _Counted())
            rows.ids.append(request.request_id)
            rows.sizes.append(request.size)
            self._last_at = time.monotonic()

    def owned_by(self, task: asyncio.Task[Any] | None) -> None:
        """Take note of the task that has the block open: it ends with its calls, whatever it makes of their end."""
        self._owner = task

    def _let_owner_end(self) -> None:
        """Take back the cancellation of the owner, which is about to leave its block."""
        if self._owner is not None and self._owner_is_cancelled:
            self._owner_is_cancelled = False
            self._owner.uncancel()

    def is_ended_by(self, error: BaseException | None) -> bool:
        """Return whether the dry run ends its block: by `DryRun`, by an exception made of it, or at the block's end."""
        if not self.n_requests:
            return False
        self._let_owner_end()
        if error is None or isinstance(error, DryRun):
            return True
        # asyncio.gather turns DryRun into a plain CancelledError; a cancellation that somebody requested is not ours.
        task = asyncio.current_task() if running_loop() is not None else None
        return isinstance(error, asyncio.CancelledError) and (task is None or not task.cancelling())

    def hush(self) -> None:
        """Log nothing from now on: the program would report each ended call as a failure."""
        with self._lock:
            if self._is_over or self._hushed is not None:
                return
            self._hushed = logging.root.manager.disable
            logging.disable(logging.CRITICAL)
        # Tasks that are cancelled before they begin never await their coroutine.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)

    def unhush(self) -> None:
        """Log again as before, and from now on."""
        with self._lock:
            self._is_over = True
            if self._hushed is not None:
                logging.disable(self._hushed)

    @property
    def n_requests(self) -> int:
        return sum(len(rows.ids) for rows in self._counted.values())

    @property
    def n_reused(self) -> int:
        """How many of the requests earlier runs have made already, as far as that was looked up."""
        return len(self._answered) + len(self._running)

    async def look_up(self, redis: Redis, keys: Keys) -> None:
        """Find out which requests earlier runs have made; raise redis-py's own errors when Redis is away."""
        for rows in self._counted.values():
            for at in range(0, len(rows.ids), LOOKED_UP_AT_ONCE):
                await self._look_up(redis, keys, rows.ids[at : at + LOOKED_UP_AT_ONCE])

    async def _look_up(self, redis: Redis, keys: Keys, ids: Sequence[RequestId]) -> None:
        async with redis.pipeline(transaction=False) as pipe:
            for request_id in ids:
                pipe.getrange(keys.result(request_id), 0, 0)
                pipe.get(keys.request(request_id))
            found: list[Any] = await pipe.execute()
        for request_id, answer, place in zip(ids, found[::2], found[1::2], strict=True):
            if answer == SUCCESS:
                self._answered.add(request_id)
            elif (flight := InFlight.decode(place)) is not None and flight.batch_id is not None:
                self._running.add(request_id)

    def not_looked_up(self, why: str) -> None:
        """Take note of why nobody could look up what earlier runs have made."""
        self._not_looked_up = f" Answers of earlier runs were not looked up: {why.rstrip('.')}."

    def report(self) -> str:
        """Return in one line what would have been sent."""
        tallies = self._tallies()
        if not tallies and not self.n_reused:
            return "Dry run, nothing was queued or sent: no call could be batched."
        lanes = "; ".join(_line(lane, tally) for lane, tally in tallies.items())
        n_sent = sum(tally.n_requests for tally in tallies.values())
        n_batches = sum(tally.n_batches for tally in tallies.values())
        tokens = sum(tally.n_bytes for tally in tallies.values()) // BYTES_PER_TOKEN
        sent = (
            f"{counted(n_sent, 'request')} in {counted(n_batches, 'batch')}, about {tokens:,} tokens of input at the "
            f"provider's batch price, usually half ({lanes})"
        )
        if self.n_reused:
            parts = [f"{len(self._answered):,} answered by earlier runs"] if self._answered else []
            parts += [f"{len(self._running):,} in batches that run already"] if self._running else []
            rest = f"to be sent: {sent}" if n_sent else "nothing would be sent"
            sent = f"{counted(self.n_requests, 'request')}, of them {', '.join(parts)}; {rest}"
        few = "".join(self._words_of_too_few(lane, tally) for lane, tally in tallies.items())
        return f"Dry run, nothing was queued or sent: {sent}.{few} {_NOT_COUNTED}{self._not_looked_up}"

    def _words_of_too_few(self, lane: Lane, tally: _Tally) -> str:
        n_too_few = tally.n_too_few(lane)
        if not n_too_few:
            return ""
        needed = f"Batches of {lane.spec.provider} hold at least {lane.route.min_rows:,} requests"
        return f" {needed}: {n_too_few:,} for {lane.spec.model} {self._too_few}."

    def _tallies(self) -> dict[Lane, _Tally]:
        tallies: dict[Lane, _Tally] = {}
        for lane, rows in self._counted.items():
            for request_id, size in zip(rows.ids, rows.sizes, strict=True):
                if request_id not in self._answered and request_id not in self._running:
                    tallies.setdefault(lane, _Tally()).count(lane, size)
        return tallies

    def _end_who_waits(self) -> None:
        """Cancel the tasks that wait for these calls: a gather that collects exceptions would continue without answers.

        That is the task that has the block open, or every task of an event loop inside a plain block.
        """
        here = asyncio.get_running_loop()
        if here in self._ended:
            return
        self._ended.add(here)
        self.hush()
        owner = self._owner
        waiting = asyncio.all_tasks() if owner is None else {owner} if owner.get_loop() is here else set()
        for task in waiting - self._asking:
            if task.cancel() and task is owner:
                self._owner_is_cancelled = True

    def _end(self) -> NoReturn:
        with self._lock:
            self._n_ended += 1
        self.hush()
        raise DryRunCall("The dry run ended this call: nothing was sent.")

    def _rest_s(self) -> float:
        return self._last_at + QUIET_S - time.monotonic()


async def prepare(rehearsal: Rehearsal, roots: Roots, used: ClientSettings) -> None:
    """Let a dry run know its requests by the ids that they have where Redis runs; start none for it."""
    async with _where_it_runs(rehearsal, used) as redis:
        if redis is not None:
            roots.salt = await salt.find(redis, Keys(used.namespace)) or b""
            rehearsal.knows_ids = bool(roots.salt)


async def look_up(rehearsal: Rehearsal, used: ClientSettings) -> None:
    """Find out which of a dry run's requests earlier runs have made, where Redis runs."""
    if rehearsal.knows_ids:
        async with _where_it_runs(rehearsal, used) as redis:
            if redis is not None:
                await rehearsal.look_up(redis, Keys(used.namespace))


@contextlib.asynccontextmanager
async def _where_it_runs(rehearsal: Rehearsal, used: ClientSettings) -> AsyncIterator[Redis | None]:
    """Open a connection to the Redis of the settings, None where none runs; the report says what fails."""
    try:
        url = used.redis_url or await running_url(used.home)
    except QueueUnreachable as error:
        if embedded_stack.was_used(used.home):
            rehearsal.not_looked_up(str(error))
        yield None
        return
    redis = connect(url)
    try:
        yield redis
    except (*UNREACHABLE, RedisError) as error:
        rehearsal.not_looked_up(str(unreachable(url, error)))
    except CorruptRecord as error:
        rehearsal.not_looked_up(str(error))
    finally:
        with contextlib.suppress(*UNREACHABLE):
            await redis.aclose()


def _line(lane: Lane, tally: _Tally) -> str:
    spec = lane.spec
    return (
        f"{spec.provider}/{spec.model} {spec.endpoint}: {counted(tally.n_requests, 'request')}, "
        f"{counted(tally.n_batches, 'batch')}, about {tally.n_bytes // BYTES_PER_TOKEN:,} tokens"
    )
