"""Kills processes by a schedule, arms faults, and replaces processes that died."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_worker.sandbox.world.faults import AnyFault
from tests.waiting import wait_until

from .recovery import RECONNECT_S, Begins, Death
from .schedule import Blow
from .world import LEASE_S, Slot, World

WATCH_EVERY_S: Final = 0.05
STOOD_STILL_S: Final = 0.3
SETTLED_IN_S: Final = 2.0
"""Seconds in which a ready worker still opens its first connections."""
LONGEST_LEAVE_S: Final = 40.0
LONGEST_START_S: Final = 15.0
ENOUGH: Final = 2
LONGEST_AIM_S: Final = 2.0
AIM_EVERY_S: Final = 0.02
MOST_TORN: Final = 2
AFTERMATH_S: Final = LEASE_S + 0.5
"""Seconds for which the messages that a dead worker held may be missing."""


@dataclass(slots=True)
class Demon:
    """Strikes the world, and keeps what it has done."""

    world: World
    dealt: Counter[str] = field(default_factory=Counter)
    armed: Counter[str] = field(default_factory=Counter)
    deaths: list[Death] = field(default_factory=list)
    troubles: list[tuple[float, float]] = field(default_factory=list)
    begins: Begins = field(init=False)
    torn: Counter[str] = field(default_factory=Counter)
    """Batch -> how many deaths interrupted a step on it."""
    _nobody_since: float = 0.0
    _ready_since: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """Errors of the test world itself."""

    def say(self, words: str) -> None:
        """Write to the log in the world's folder, for the search of a cause."""
        now = dt.datetime.now().astimezone()
        with (self.world.home / "blows.log").open("a") as log:
            log.write(f"[{now:%Y-%m-%d %H:%M:%S},{now.microsecond // 1000:03}] {words}\n")

    def __post_init__(self) -> None:
        self.begins = Begins(self.world.home)

    async def rage(self, blows: Sequence[Blow], gusts: Sequence[tuple[float, AnyFault]]) -> None:
        """Strike every blow at its second; return when the last one is over."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._blow_gusts(began, gusts))
            for blow in blows:
                await asyncio.sleep(max(0.0, began + blow.at_s - time.monotonic()))
                if blow.kind in ("kill redis", "stop worker"):
                    # The next blow does not wait until these are over.
                    group.create_task(self._deal(blow))
                else:
                    await self._deal(blow)

    async def watch(self) -> None:
        """Replace processes that died, until cancelled."""
        looked_at = time.time()
        while True:
            if time.time() - looked_at > STOOD_STILL_S:
                # The machine is too busy for the harness itself, so measurements of this time do not count.
                self.troubles.append((looked_at, time.time()))
                self.say(f"the machine stood still for {time.time() - looked_at:.1f} s")
            looked_at = time.time()
            for slot in (*self.world.workers, *self.world.clients):
                self._look_at(slot)
            self._mind_the_absent()
            await asyncio.sleep(WATCH_EVERY_S)

    def _mind_the_absent(self) -> None:
        """Record times without a ready worker, and the first moments of one: no batch can be recovered in time then."""
        now = time.monotonic()
        for slot in self.world.workers:
            self._ready_since[slot.name] = (
                self._ready_since.get(slot.name, now) if slot in self._ready() else now
            )
        if not any(now - since > SETTLED_IN_S for since in self._ready_since.values()):
            self._nobody_since = self._nobody_since or time.time()
        elif self._nobody_since:
            self.troubles.append((self._nobody_since, time.time() + WATCH_EVERY_S))
            self._nobody_since = 0.0

    def _look_at(self, slot: Slot) -> None:
        if slot.finished or slot.process is None:
            return
        code = slot.process.poll()
        if code is None:
            if slot.leaving_since and time.monotonic() - slot.leaving_since > LONGEST_LEAVE_S:
                self.broken.append(f"{slot.name} had not left {LONGEST_LEAVE_S:g} s after SIGTERM")
                slot.signal_group(signal.SIGKILL)
            return
        if slot in self.world.clients and code == 0:
            slot.finished = True
            return
        wanted = code == -signal.SIGKILL or bool(slot.leaving_since)
        if not wanted:
            self.broken.append(f"{slot.name} ended by itself with {code}: see {slot.log}")
        slot.start()
        self.say(f"{slot.name} is started")

    async def _blow_gusts(self, began: float, gusts: Sequence[tuple[float, AnyFault]]) -> None:
        for at_s, fault in gusts:
            await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
            await self.world.arm(fault)
            self.armed[type(fault).__name__] += 1
            self.say(f"armed {fault}")

    async def struck(self) -> Counter[str]:
        """Return the faults that struck, by name, and disarm the rest."""
        left = await self.world.calm()
        return self.armed - Counter(type(fault).__name__ for fault in left)

    async def _deal(self, blow: Blow) -> None:
        match blow.kind:
            case "kill redis":
                await self._kill_redis(blow)
            case "kill client":
                alive = [slot for slot in self.world.clients if slot.alive]
                if alive:
                    slot = alive[blow.target % len(alive)]
                    slot.signal_group(signal.SIGKILL)
                    self.dealt[blow.kind] += 1
                    self.say(f"{blow.kind} {slot.name}")
            case "stop worker":
                await self._stop(blow)
            case "roll worker":
                self._roll(blow)
            case "cut queue" | "cut provider":
                await self._cut(blow)
            case _:
                await self._kill_worker(blow)

    async def _kill_worker(self, blow: Blow) -> None:
        with contextlib.suppress(AssertionError):
            # Workers that die faster than they start would leave no worker to test.
            await wait_until(self._two_ready, description="two workers", within_s=LONGEST_START_S)
        slot, holder = await self._choose(blow)
        if slot is None or slot.process is None or not await self._spares_nothing(slot):
            return
        kind, children = blow.kind, slot.children()
        if kind == "kill pool child" and (slot.pool != "prefork" or not children):
            kind = "kill worker"
        if kind == "kill worker's main":
            dead = {slot.process.pid}
            self.world.bury(children)
            slot.process.kill()
        elif kind == "kill pool child":
            dead = {holder if holder in children else children[blow.target % len(children)]}
            os.kill(next(iter(dead)), signal.SIGKILL)
        else:
            dead = {slot.process.pid, *children}
            slot.signal_group(signal.SIGKILL)
        at = time.time()
        self.dealt[kind] += 1
        self.troubles.append((at, at + AFTERMATH_S))
        death = Death(at=at, pids=frozenset(dead), running=await self._running())
        self.deaths.append(death)
        self.begins.read_on()
        # The pool children of a dead main process may die with it in the middle of their steps.
        doomed = dead.union(children) if kind == "kill worker's main" else dead
        torn = {batch for batch, token in death.running if self.begins.pid_of.get((batch, token)) in doomed}
        self.torn.update(torn)
        self.say(f"{kind} {slot.name}, which held {sorted(torn)}")

    async def _choose(self, blow: Blow) -> tuple[Slot | None, int]:
        """Return a worker in the middle of a step and its process; after a while, any worker."""
        until = time.monotonic() + LONGEST_AIM_S
        seen: set[tuple[str, int]] = set()
        while time.monotonic() < until:
            running = await self._running()
            self.begins.read_on()
            # A step seen twice is long: it will still run when the blow falls.
            long = [one for one in running if one in seen]
            held = [(batch, self.begins.pid_of.get((batch, token), 0)) for batch, token in long]
            seen = set(running)
            # A batch during which three workers died is quarantined, which is correct.
            spared = {pid for batch, pid in held if self.torn[batch] >= MOST_TORN}
            aims = [(slot, pid) for slot in self._ready() for _, pid in held if pid in slot.pids()]
            aims = [(slot, pid) for slot, pid in aims if not spared.intersection(slot.pids())]
            if aims:
                return aims[blow.target % len(aims)]
            await asyncio.sleep(AIM_EVERY_S)
        return self._victim(blow), 0

    async def _spares_nothing(self, slot: Slot) -> bool:
        """Return whether no batch interrupted too often runs there; a step that just began may not be logged yet."""
        running = await self._running()
        self.begins.read_on()
        pids = slot.pids()
        return not any(
            self.torn[batch] >= MOST_TORN and self.begins.pid_of.get((batch, token), pids[0]) in pids
            for batch, token in running
        )

    async def _running(self) -> tuple[tuple[str, int], ...]:
        """Return each batch with a running step, and its token; empty while Redis is unreachable."""
        world = self.world
        try:
            ids: Any = await world.redis.execute_command("ZRANGE", world.keys.schedule, 0, -1)
            async with world.redis.pipeline(transaction=False) as pipe:
                for batch_id in ids:
                    pipe.execute_command("HMGET", world.keys.batch(batch_id.decode()), "token", "begun")
                held: Any = await pipe.execute()
        except UNREACHABLE:
            return ()
        return tuple(
            (batch_id.decode(), int(token))
            for batch_id, (token, begun) in zip(ids, held, strict=True)
            if token is not None and token == begun
        )

    async def _kill_redis(self, blow: Blow) -> None:
        since = time.time()
        self.dealt[blow.kind] += 1
        self.say(blow.kind)
        await self.world.kill_redis(blow.lasts_s)
        self.say("redis is back")
        self.troubles.append((since, time.time() + RECONNECT_S))

    async def _stop(self, blow: Blow) -> None:
        slot = self._victim(blow)
        if slot is None or slot.process is None:
            return
        process, since = slot.process, time.time()
        slot.stopped_until = time.monotonic() + blow.lasts_s
        slot.signal_group(signal.SIGSTOP)
        self.dealt[blow.kind] += 1
        self.say(f"{blow.kind} {slot.name}")
        await asyncio.sleep(blow.lasts_s)
        if slot.process is process:
            slot.signal_group(signal.SIGCONT)
            slot.stopped_until = 0.0
        self.say(f"{slot.name} continues")
        self.troubles.append((since, time.time() + LEASE_S))

    async def _cut(self, blow: Blow) -> None:
        network = self.world.network
        if network is None:
            return
        proxy = network.queue if blow.kind == "cut queue" else network.provider
        await asyncio.to_thread(network.cut, proxy, blow.target)
        self.dealt[blow.kind] += 1
        self.say(blow.kind)
        if proxy is network.queue:
            self.troubles.append((time.time(), time.time() + RECONNECT_S))

    def _roll(self, blow: Blow) -> None:
        slot = self._victim(blow)
        if slot is None or slot.process is None or slot.leaving_since:
            return
        slot.leaving_since = time.monotonic()
        slot.process.terminate()
        self.dealt[blow.kind] += 1
        self.say(f"{blow.kind} {slot.name}")
        self.troubles.append((time.time(), time.time() + AFTERMATH_S))

    def _victim(self, blow: Blow) -> Slot | None:
        """Return a living worker; prefer a ready worker, so that the blow has an effect."""
        alive = [slot for slot in self.world.workers if slot.alive and not slot.stopped_until]
        some = self._ready() or alive
        return some[blow.target % len(some)] if some else None

    def _ready(self) -> list[Slot]:
        return [slot for slot in self.world.workers if slot.ready and not slot.stopped_until]

    def _two_ready(self) -> bool:
        return len(self._ready()) >= ENOUGH
