"""How long each script blocks Redis, which runs one command at a time.

Many batches go through their whole life, then one of the largest size, so that a script whose time grows with its
batch is visible.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.ids import new_batch_id, new_mailbox
from batchling_client.wire.keys import BatchId, Keys, Mailbox, ProviderBatchId
from batchling_client.wire.scripts import RowIn, RowOut, Scripts
from batchling_client.wire.states import BatchState, Outcome, RowKind, Verdict
from batchling_client.wire.stubs import Arg

from .figures import Cell, Report, Target, median, quantile
from .rows import AT_ONCE, KEEP_MS, Lane, chat_lane
from .stand import embedded_stack

N_BATCHES: Final = 200
"""The number of batches that one tick of a worker claims at once."""
LARGEST: Final = 50_000
PACKED_BYTES: Final = 2048
BODY_BYTES: Final = 3600
"""Bytes of random hex digits, which compress to about `PACKED_BYTES`."""
LEASE_MS: Final = 600_000
MOST_MS: Final = 5.0
_EVAL_WORDS: Final = (b"EVALSHA", b"EVAL")


def measure(n_batches: int = N_BATCHES, largest: int = LARGEST) -> Report:
    """Measure many batches and a large one, on a stack whose worker serves another namespace and so stays idle."""
    with embedded_stack({}) as stack:
        times = asyncio.run(timed(stack.redis_url, stack.redis.pid, n_batches, largest))
    rows: list[list[Cell]] = []
    for name, taken in sorted(times.items(), key=lambda one: -max(call.script_ms for call in one[1])):
        script = [call.script_ms for call in taken]
        whole, clock = (max(call.call_ms for call in taken), max(call.clock_ms for call in taken))
        shown = (median(script), quantile(script, 0.99), max(script), whole, clock)
        rows.append([name, len(taken), *(f"{ms:.3f}" for ms in shown)])
    calls = [(call, name) for name, taken in times.items() for call in taken]
    worst, worst_name = max(calls, key=lambda one: one[0].script_ms)
    n_over = sum(call.script_ms > MOST_MS for call, _ in calls)
    target = Target(
        promise=f"Redis never blocked longer than {MOST_MS:g} ms by a script",
        found=f"worst {worst.script_ms:.2f} ms ({worst_name}), {n_over} of {len(calls):,} calls above",
        met=n_over == 0,
    )
    return Report(
        title=f"Time a script blocks Redis, calls of {AT_ONCE} rows of {PACKED_BYTES} bytes: "
        f"{n_batches} batches at once, then one of {largest:,} rows",
        columns=("script", "calls", "median ms", "99 %", "worst", "worst call, CPU", "worst script, clock"),
        rows=rows,
        targets=[target],
        raw={name: [call.script_ms for call in taken] for name, taken in times.items()},
    )


class _Call(NamedTuple):
    call_ms: float
    """CPU of Redis' main thread: reads the call, runs the script, writes the append-only file, answers."""
    clock_ms: float
    """The script alone, by Redis' clock, which keeps running while another process has the core."""

    @property
    def script_ms(self) -> float:
        """Return an upper bound of the script's time: both figures include it and some other time."""
        return min(self.call_ms, self.clock_ms)


class _TimedScripts(Scripts):
    """Scripts whose calls are timed; the first call includes loading the script."""

    def __init__(self, redis: Redis, keys: Keys, redis_pid: int) -> None:
        super().__init__(redis, keys)
        self.times: defaultdict[str, list[_Call]] = defaultdict(list)
        self._spent = Path(f"/proc/{redis_pid}/task/{redis_pid}/schedstat")

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        before_ms = self._cpu_ms()
        reply = await super().run(name, keys, args)
        after_ms = self._cpu_ms()
        # Search the last few entries: commands of the idle worker may have come in between.
        newest: Any = await self.redis.execute_command("SLOWLOG", "GET", 32)
        clock_ms = next(entry[2] for entry in newest if entry[3][0] in _EVAL_WORDS) / 1000
        call_ms = clock_ms if before_ms is None or after_ms is None else after_ms - before_ms
        self.times[name].append(_Call(call_ms, clock_ms))
        return reply

    def _cpu_ms(self) -> float | None:
        """Return the CPU that Redis has used; None if the system does not report nanoseconds."""
        try:
            return int(self._spent.read_text(encoding="ascii").split()[0]) / 1e6
        except (OSError, ValueError, IndexError):
            return None


async def timed(redis_url: str, redis_pid: int, n_batches: int, largest: int) -> dict[str, list[_Call]]:
    """Run many batches and then the largest one through every script; return the calls by script."""
    redis = connect(redis_url)
    try:
        await redis.config_set("slowlog-log-slower-than", 0)
        scripts = _TimedScripts(redis, Keys("benchmark"), redis_pid)
        lanes = [Lane(scripts=scripts, spec=chat_lane(f"{number:020x}")) for number in range(n_batches)]
        await _Life(scripts, lanes, 2 * AT_ONCE).live()
        await _Life(scripts, lanes[:1], largest).live()
        return dict(scripts.times)
    finally:
        await redis.aclose()


class _Life:
    """One batch per lane, taken from open to settled in step with the others."""

    def __init__(self, scripts: Scripts, lanes: Sequence[Lane], n_rows: int) -> None:
        self._scripts = scripts
        self._lanes = {new_batch_id(): lane for lane in lanes}
        self._n_rows = n_rows
        self._rows: dict[BatchId, list[RowIn]] = {}
        self._claims: dict[BatchId, int] = {}

    async def live(self) -> None:
        """Call every script for each batch."""
        for batch_id, lane in self._lanes.items():
            await self._enqueue(batch_id, lane)
        await self._seal()
        await self._submit()
        await self._end()
        await self._collect()
        await self._settle()

    async def _settle(self) -> None:
        """End each batch; then ask for its requests again, answered ones and running ones."""
        await self._claim()
        for batch_id, token in self._claims.items():
            await self._begin(batch_id, BatchState.ENDED)
            await self._scripts.settle(
                batch_id=batch_id, token=token, state=BatchState.SETTLED, keep_ms=KEEP_MS
            )
            lane, rows = self._lanes[batch_id], self._rows[batch_id]
            for first in range(0, len(rows), AT_ONCE):
                await lane.put(new_batch_id(), rows[first : first + AT_ONCE], lane.cap(AT_ONCE))

    async def _enqueue(self, batch_id: BatchId, lane: Lane) -> None:
        """Enqueue fresh requests, then the same ones for a second client, which withdraws one of them."""
        second = Lane(scripts=lane.scripts, spec=lane.spec, mailbox=new_mailbox())
        held = self._rows[batch_id] = []
        cap = lane.cap(self._n_rows + 1, linger_ms=0)
        for rows in lane.rows(self._n_rows, BODY_BYTES):
            await lane.put(batch_id, rows, cap)
            await second.put(batch_id, rows, cap)
            held += rows
        await self._scripts.withdraw(request_id=held[0].request_id, batch_id=batch_id, mailbox=second.mailbox)

    async def _claim(self) -> None:
        claims = await self._scripts.claim(batch_ids=list(self._lanes), lease_ms=LEASE_MS)
        self._claims = {claim.batch_id: claim.token for claim in claims}
        if len(claims) != len(self._lanes):
            raise RuntimeError(f"{len(claims)} of {len(self._lanes)} batches were due")

    async def _begin(self, batch_id: BatchId, state: BatchState) -> None:
        token = self._claims[batch_id]
        begun = await self._scripts.begin(batch_id, token, LEASE_MS, [state], error="", nonce="")
        if begun.verdict is not Verdict.OK:
            raise RuntimeError(f"the batch is not {state}")

    async def _seal(self) -> None:
        await self._claim()
        for batch_id, token in self._claims.items():
            await self._scripts.seal(
                batch_id=batch_id, token=token, lane_id=self._lanes[batch_id].spec.lane_id
            )

    async def _submit(self) -> None:
        await self._claim()
        for batch_id, token in self._claims.items():
            scripts = self._scripts
            await self._begin(batch_id, BatchState.SEALED)
            await scripts.extend(batch_id=batch_id, token=token, lease_ms=LEASE_MS)
            await scripts.intend(batch_id=batch_id, token=token, label=f"benchmark-{batch_id}")
            await scripts.uploaded(
                batch_id=batch_id, token=token, input_file_id="file-1", n_lines=self._n_rows
            )
            await scripts.arm(batch_id=batch_id, token=token)
            provider_batch_id = ProviderBatchId(f"batch-{batch_id}")
            await scripts.submitted(
                batch_id=batch_id, token=token, provider_batch_id=provider_batch_id, delay_s=0
            )
        await self._claim()
        for batch_id, token in self._claims.items():
            n = self._n_rows
            await self._begin(batch_id, BatchState.SUBMITTED)
            await self._scripts.progress(
                batch_id=batch_id, token=token, status="in_progress", n_done=n, n_total=n, delay_s=0
            )

    async def _end(self) -> None:
        await self._claim()
        for batch_id, token in self._claims.items():
            await self._begin(batch_id, BatchState.SUBMITTED)
            await self._scripts.release(
                batch_id=batch_id, token=token, delay_s=0, error="the provider is busy"
            )
        await self._claim()
        for batch_id, token in self._claims.items():
            await self._begin(batch_id, BatchState.SUBMITTED)
            await self._scripts.ended(
                batch_id=batch_id,
                token=token,
                outcome=Outcome.COMPLETED,
                status="completed",
                ending=b"{}",
                error="",
            )

    async def _collect(self) -> None:
        """Answer every second portion; move the others to another batch, which is cancelled in the end."""
        await self._claim()
        for batch_id, token in self._claims.items():
            await self._begin(batch_id, BatchState.ENDED)
            target, rows = new_batch_id(), self._rows[batch_id]
            for number, first in enumerate(range(0, len(rows), AT_ONCE)):
                some = rows[first : first + AT_ONCE]
                await (self._requeue(batch_id, target, some) if number % 2 else self._deliver(batch_id, some))
            await self._scripts.collected(batch_id=batch_id, token=token)
            lane_id = self._lanes[batch_id].spec.lane_id
            await self._scripts.cancel(batch_id=target, lane_id=lane_id, ending=b"{}", error="cancelled")

    async def _deliver(self, batch_id: BatchId, rows: Sequence[RowIn]) -> None:
        packed = b"+" + os.urandom(PACKED_BYTES - 1)
        mailboxes: tuple[Mailbox, ...] = ()
        for _ in range(2):
            # The first answer names the waiting mailboxes; a worker learns them the same way.
            delivered = await self._scripts.deliver(
                batch_id=batch_id,
                token=self._claims[batch_id],
                max_attempts=3,
                keep_ms=KEEP_MS,
                mail_ms=KEEP_MS,
                mailboxes=mailboxes,
                rows=[RowOut(request_id=row.request_id, kind=RowKind.SUCCESS, packed=packed) for row in rows],
            )
            if delivered.verdict is Verdict.OK:
                break
            mailboxes = delivered.mailboxes
        if delivered.n_answered != len(rows):
            raise RuntimeError(f"{delivered.n_answered} of {len(rows)} rows were delivered")

    async def _requeue(self, batch_id: BatchId, target: BatchId, rows: Sequence[RowIn]) -> None:
        lane = self._lanes[batch_id]
        reply = await self._scripts.requeue(
            target=target,
            lane_id=lane.spec.lane_id,
            spec=lane.spec.encode(),
            source_id=batch_id,
            token=self._claims[batch_id],
            cap=lane.cap(self._n_rows + 1),
            keep_ms=KEEP_MS,
            rows=rows,
        )
        if reply.verdict is not Verdict.OK or reply.n_taken != len(rows):
            raise RuntimeError(f"{reply.n_taken} of {len(rows)} rows were moved: {reply.verdict}")
