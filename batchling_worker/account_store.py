"""The state of accounts at their providers, kept in Redis for all workers: circuits and quotas of enqueued tokens."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from batchling_client.wire.account_scripts import AccountScripts, Admission, Entry, Pause
from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_client.wire.keys import BatchId, Keys
from batchling_client.wire.records.account import Admitted, Quota
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.pause import Pause as LanePause
from batchling_client.wire.records.pause import pause_of, pauses
from batchling_client.wire.states import IN_FLIGHT_STATES

from . import backoff
from .decisions import quota
from .errors import PermanentError

COUNTS: Final = frozenset(state.value.encode() for state in IN_FLIGHT_STATES)

OPENS_AFTER: Final = 3
"""Failed calls in a row that open a circuit."""
LONGEST_PAUSE_MS: Final = 60_000
"""The longest pause between two trials: one a minute does not burden a provider, and many steps wait for it."""
TRIAL_MS: Final = 30_000
"""How long a trial keeps other steps out: a trial whose worker died must not do so for ever."""
LONGEST_TRIAL_LOOK_MS: Final = 30_000
PARKED_MS: Final = 15_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaVerdict:
    """What the refusal of a batch means for it: whether others of ours were in flight, and whether it is hopeless."""

    alone: bool
    hopeless: bool


@dataclass(slots=True)
class AccountStore:
    """Reads and moves of accounts; any worker may make them, without a claim."""

    redis: Redis
    keys: Keys
    scripts: AccountScripts = field(init=False)

    def __post_init__(self) -> None:
        self.scripts = AccountScripts(self.redis, self.keys)

    async def paused(self, batch: Batch) -> LanePause | None:
        """Return the pause for which a batch waits; None if its lane is not paused, or no pause can be read."""
        try:
            fields = await self.redis.execute_command("HGETALL", self.keys.paused)
        except UNREACHABLE:
            raise
        except ResponseError:
            return None
        return pause_of(batch.lane_id, batch.spec, pauses(fields))

    async def _despite_damage(self, keys: Sequence[str], work: Callable[[], Awaitable[T]]) -> T:
        """Run a move; if what was learned cannot be read, delete it first, so that it is learned again."""
        try:
            return await work()
        except (*UNREACHABLE, OutOfMemoryError):
            raise
        except (ResponseError, ValueError):
            await self.redis.execute_command("UNLINK", *keys)
            return await work()

    async def admit(self, batch: Batch, token: int, account: str, look_s: float) -> Admission:
        """Admit a sealed batch to its quota; `look_s` is in how many seconds it asks again if it has to wait."""
        quota_id = quota.quota_id(account, batch.spec.model)
        return await self._despite_damage(
            [self.keys.quota(quota_id)], lambda: self._admit(quota_id, batch, token, account, look_s)
        )

    async def _admit(self, quota_id: str, batch: Batch, token: int, account: str, look_s: float) -> Admission:
        seen = await self.quota_of(quota_id)
        return await self.scripts.admit(
            quota_id=quota_id,
            batch_id=batch.batch_id,
            token=token,
            lane_id=batch.lane_id,
            tokens=quota.tokens_of(batch),
            divisible=batch.n_requests - batch.n_dropped > 1,
            account=account,
            turn_ms=int(look_s * 2000) + 5000,
            step_ms=_ms(quota.STEP),
            others=[one for one in seen.in_flight if one != batch.batch_id],
        )

    async def quota_of(self, quota_id: str) -> Quota:
        """Return the current state of a quota."""
        return Quota.decode(await self.redis.execute_command("HGETALL", self.keys.quota(quota_id)))

    async def teach(self, batch: Batch, refusal: quota.Refusal) -> QuotaVerdict:
        """Store what the refusal of a batch teaches about its quota; safe to repeat."""
        return await self._despite_damage(
            [self.keys.quota(batch.quota_id)], lambda: self._teach(batch, refusal)
        )

    async def _teach(self, batch: Batch, refusal: quota.Refusal) -> QuotaVerdict:
        tokens = quota.tokens_of(batch)
        seen = await self.quota_of(batch.quota_id)
        mine = seen.in_flight.get(batch.batch_id)
        others = await self._live(seen.in_flight, but=batch.batch_id)
        news = mine is not None and seen.limit_at is not None and mine.at >= seen.limit_at
        limit = quota.learned_limit(tokens, refusal.limit, others, news=news)
        n_alone, since_ms = await self.scripts.teach(
            quota_id=batch.quota_id,
            batch_id=batch.batch_id,
            limit=limit.tokens if limit else 0,
            alone=others == 0,
            hold_ms=int(backoff.pause_s(seen.n_alone) * 1000),
            trusted_ms=_ms(limit.trusted) if limit else 0,
            row_ms=_ms(quota.ROW_OF_REFUSALS),
            why=refusal.why,
        )
        since = dt.timedelta(milliseconds=since_ms)
        n_rows = batch.n_requests - batch.n_dropped
        hopeless = quota.hopeless(n_rows, tokens, refusal, others, n_alone, since)
        return QuotaVerdict(alone=others == 0, hopeless=hopeless)

    async def _live(self, in_flight: Mapping[BatchId, Admitted], but: BatchId) -> int:
        """Return the tokens of the batches that have not ended, except `but`."""
        others = {batch_id: one.tokens for batch_id, one in in_flight.items() if batch_id != but}
        async with self.redis.pipeline(transaction=False) as pipe:
            for batch_id in others:
                pipe.execute_command("HGET", self.keys.batch(batch_id), "state")
            states = await pipe.execute()
        return sum(tokens for tokens, state in zip(others.values(), states, strict=True) if state in COUNTS)

    async def enter(self, circuits: Sequence[str]) -> Entry:
        """Ask whether an account may be called."""
        return await self._despite_damage(
            [self.keys.circuit(name) for name in circuits],
            lambda: self.scripts.enter(
                circuits=circuits, trial_ms=TRIAL_MS, longest_ms=LONGEST_TRIAL_LOOK_MS
            ),
        )

    async def trip(self, circuit: str, why: str, wish_s: float | None, *, at_once: bool = False) -> float:
        """Count a failed call; return for how many seconds the circuit is open."""
        pause = Pause(
            first_ms=int(backoff.FIRST_S * 1000),
            longest_ms=LONGEST_PAUSE_MS,
            shortest_ms=int(backoff.SHORTEST_S * 1000),
            draw=random.random(),  # noqa: S311 - jitter, not a secret
            wish_ms=int((wish_s or 0.0) * 1000),
        )
        opens_after = 1 if at_once else OPENS_AFTER
        open_ms = await self._despite_damage(
            [self.keys.circuit(circuit)],
            lambda: self.scripts.trip(circuit=circuit, opens_after=opens_after, pause=pause, why=why),
        )
        return open_ms / 1000

    async def park(self, circuit: str, refusal: PermanentError) -> None:
        """Park an account or a lane whose key was refused."""
        await self._despite_damage(
            [self.keys.circuit(circuit)],
            lambda: self.scripts.park(
                circuit=circuit,
                pause_ms=PARKED_MS,
                status=refusal.status,
                body=refusal.body,
                why=refusal.recorded,
            ),
        )

    async def leave(self, circuits: Sequence[str], *, answered: bool) -> None:
        """End what `enter` began, if there is no failure to report."""
        await self._despite_damage(
            [self.keys.circuit(name) for name in circuits],
            lambda: self.scripts.leave(circuits=circuits, answered=answered),
        )


def _ms(span: dt.timedelta) -> int:
    return int(span.total_seconds() * 1000)


def words_of_wait(admission: Admission, held_s: float) -> str:
    """Return why a batch waits for room in its quota, as a sentence for people."""
    n, limit = admission.n_others, admission.limit
    if held_s > 0:
        return f"held for {math.ceil(held_s)} s: the quota of enqueued tokens is full: {admission.why}"
    if n == 0:
        return "waiting for token quota: an older batch goes first"
    whose = "another batch uses" if n == 1 else f"{n} other batches use"
    return f"waiting for token quota: {whose} {admission.tokens_in_flight:,} of about {limit:,} tokens"
