"""Runs the Lua scripts of accounts, their circuits and quotas, as `scripts.py` does those of batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from .keys import BatchId, Keys, LaneId
from .scripts import Arg, run
from .states import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Answer of `admit`; the fields beside the verdict are set if the batch has to wait or is too large."""

    verdict: Verdict
    n_others: int = 0
    tokens_in_flight: int = 0
    limit: int = 0
    held_until_ms: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Answer of `enter`: OK, OPEN or PARKED; `told` = the caller must report the end of its call."""

    verdict: Verdict
    told: bool = False
    wait_ms: int = 0
    why: str = ""
    status: int = 0
    body: bytes = b""
    n_refused: int = 0
    refused_for_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """How long a circuit opens, in ms: a draw (0 to 1) from 0 to a ceiling that doubles each time."""

    first_ms: int
    longest_ms: int
    shortest_ms: int
    draw: float
    wish_ms: int
    """What the provider asks for; never less."""


class AccountScripts:
    """The transitions of accounts. Every method raises redis-py's own errors when Redis is away."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def admit(
        self,
        *,
        quota_id: str,
        batch_id: BatchId,
        token: int,
        lane_id: LaneId,
        tokens: int,
        divisible: bool,
        account: str,
        turn_ms: int,
        step_ms: int,
        keep_ms: int,
        others: Sequence[BatchId],
    ) -> Admission:
        """Admit a sealed batch to its quota: `admit.lua`."""
        k = self._keys
        keys = [k.quota(quota_id), k.batch(batch_id), k.lane(lane_id), *(k.batch(one) for one in others)]
        args: list[Arg] = [batch_id, token, tokens, int(divisible), account, quota_id]
        args += [turn_ms, step_ms, keep_ms, *others]
        verdict, *rest = await run(self._redis, "admit", keys, args)
        match Verdict(verdict.decode()):
            case Verdict.HELD:
                return Admission(
                    verdict=Verdict.HELD,
                    n_others=rest[0],
                    tokens_in_flight=rest[1],
                    limit=rest[2],
                    held_until_ms=rest[3],
                    why=rest[4].decode(),
                )
            case Verdict.LARGE:
                return Admission(verdict=Verdict.LARGE, limit=rest[0])
            case plain:
                return Admission(verdict=plain)

    async def teach(
        self,
        *,
        quota_id: str,
        batch_id: BatchId,
        limit: int,
        alone: bool,
        hold_ms: int,
        trusted_ms: int,
        row_ms: int,
        why: str,
        keep_ms: int,
    ) -> tuple[int, int]:
        """Store what a refusal taught; return (refusals in a row alone, ms since the first): `teach.lua`."""
        args: list[Arg] = [
            batch_id,
            limit,
            int(alone),
            hold_ms,
            trusted_ms,
            row_ms,
            why,
            keep_ms,
        ]
        n_alone, since_ms = await run(self._redis, "teach", [self._keys.quota(quota_id)], args)
        return n_alone, since_ms

    async def enter(self, *, circuits: Sequence[str], trial_ms: int, longest_ms: int) -> Entry:
        """Ask whether an account may be called: `enter.lua`."""
        keys = [self._keys.circuit(name) for name in circuits]
        verdict, *rest = await run(self._redis, "enter", keys, [trial_ms, longest_ms])
        match Verdict(verdict.decode()):
            case Verdict.OPEN:
                return Entry(verdict=Verdict.OPEN, wait_ms=rest[0], why=rest[1].decode())
            case Verdict.PARKED:
                return Entry(
                    verdict=Verdict.PARKED,
                    wait_ms=rest[0],
                    why=rest[1].decode(),
                    status=int(rest[2]),
                    body=rest[3],
                    n_refused=rest[4],
                    refused_for_ms=rest[5],
                )
            case plain:
                return Entry(verdict=plain, told=rest[0] == b"1")

    async def trip(self, *, circuit: str, opens_after: int, pause: Pause, why: str, forget_ms: int) -> int:
        """Count a failed call; return for how long the circuit is open, in ms: `trip.lua`."""
        args: list[Arg] = [opens_after, pause.first_ms, pause.longest_ms, pause.shortest_ms]
        args += [int(pause.draw * 1_000_000), pause.wish_ms, why, forget_ms]
        open_ms: int = await run(self._redis, "trip", [self._keys.circuit(circuit)], args)
        return open_ms

    async def park(
        self, *, circuit: str, pause_ms: int, status: int, body: bytes, why: str, forget_ms: int
    ) -> None:
        """Park an account or a lane whose key was refused: `park.lua`."""
        args: list[Arg] = [pause_ms, status, body, why, forget_ms]
        await run(self._redis, "park", [self._keys.circuit(circuit)], args)

    async def leave(self, *, circuits: Sequence[str], answered: bool) -> None:
        """End a call that `enter` let in, if it did not fail: `leave.lua`."""
        await run(self._redis, "leave", [self._keys.circuit(name) for name in circuits], [int(answered)])
