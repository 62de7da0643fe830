"""The circuit of an account: steps ask before they call, and report afterwards how the provider answered."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import math
import random
from collections.abc import AsyncIterator
from typing import Final

from batchling_client.wire.account_scripts import Entry
from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_client.wire.keys import LaneId
from batchling_client.wire.records.row_and_result import LaneSpec
from batchling_client.wire.states import Verdict

from ..account_store import AccountStore
from ..errors import PermanentError, TemporaryError, Waiting
from ..provider import Account
from ..telemetry import Telemetry
from . import pool_slot

SILENT_S: Final = 3.0
"""After this time without an answer a provider counts as silent: its circuit opens, and the step frees its slot."""
STALLED_S: Final = 0.3
"""A step whose call does not get any further for this time frees its slot: other accounts' steps need it."""
UNKNOWN_KEY: Final = 401
NO_RIGHT: Final = 403


class Circuits:
    """The circuits of all accounts, as one worker process sees them; the truth is in Redis."""

    def __init__(self, standing: AccountStore, telemetry: Telemetry) -> None:
        self._account_store = standing
        self._telemetry = telemetry
        self._stalled: collections.Counter[str] = collections.Counter()
        """How many steps wait for each server whose calls do not get any further."""

    @contextlib.asynccontextmanager
    async def through(self, account: Account, spec: LaneSpec, lane_id: LaneId | None) -> AsyncIterator[None]:
        """Enclose the calls of one step; raises `Waiting` first if the circuit is open or the key was just refused.

        An unknown key parks its account. A key without the right to something parks the lane of the submission, if a
        lane is named: what is forbidden for one model may be allowed for another.
        """
        circuits = [account.digest, *([lane_id] if lane_id else [])]
        entry = await self._account_store.enter(circuits)
        if entry.verdict is not Verdict.OK:
            raise _waiting(entry)
        silent = asyncio.Event()
        if self._stalled[account.base_url]:
            # A server that keeps other steps waiting has this one give up its slot before it waits.
            pool_slot.let_go()
        watch = asyncio.create_task(self._watched(account, spec, silent))
        try:
            yield
        except Exception:
            await self._tell(account, spec, circuits, told=entry.told or silent.is_set())
            raise
        else:
            await self._tell(account, spec, circuits, told=entry.told or silent.is_set())
        finally:
            watch.cancel()

    async def _watched(self, account: Account, spec: LaneSpec, silent: asyncio.Event) -> None:
        """Free the slot of a step once its call does not get any further, and watch how long it stays silent."""
        async with asyncio.TaskGroup() as watches:
            watches.create_task(self._watch(account, spec, silent))
            watches.create_task(self._free_slot(account))

    async def _free_slot(self, account: Account) -> None:
        """Free the slot of a step while its call does not get any further; an answer may come a byte at a time."""
        server, counted = account.base_url, False
        try:
            while True:
                stalls = _stalled_s(account) >= STALLED_S
                if stalls:
                    pool_slot.let_go()
                if stalls != counted:
                    self._stalled[server] += 1 if stalls else -1
                    counted = stalls
                await asyncio.sleep(STALLED_S / 3)
        finally:
            self._stalled[server] -= counted
            # Servers without a step that waits are forgotten.
            self._stalled = +self._stalled

    async def _watch(self, account: Account, spec: LaneSpec, silent: asyncio.Event) -> None:
        """Trip the circuit once the provider is silent, without waiting for the timeout of the call."""
        while True:
            left_s = SILENT_S - account.calls.silent_s
            if left_s <= 0:
                break
            await asyncio.sleep(max(SILENT_S / 30, left_s / 2))
        silent.set()
        pool_slot.let_go()
        with contextlib.suppress(*UNREACHABLE):
            await self._trip(
                account, spec, f"{spec.provider} has not answered for {SILENT_S:g} s", None, at_once=True
            )

    async def _tell(self, account: Account, spec: LaneSpec, circuits: list[str], *, told: bool) -> None:
        calls = account.calls
        with contextlib.suppress(*UNREACHABLE):
            match calls.error:
                case TemporaryError() as error:
                    await self._trip(account, spec, error.recorded, error.delay_s)
                case PermanentError(status=status) as error if status == UNKNOWN_KEY:
                    await self._park(account.digest, spec, error)
                case PermanentError(status=status) as error if status == NO_RIGHT and len(circuits) > 1:
                    await self._park(circuits[1], spec, error, lane_id=circuits[1])
                case _ if told:
                    await self._account_store.leave(circuits, answered=calls.called)
                    if calls.called:
                        self._telemetry.log(
                            "circuit_closed", account=spec.fingerprint, provider=spec.provider
                        )
                case _:
                    pass

    async def _trip(
        self, account: Account, spec: LaneSpec, why: str, wish_s: float | None, *, at_once: bool = False
    ) -> None:
        open_s = await self._account_store.trip(account.digest, why, wish_s, at_once=at_once)
        if open_s:
            self._telemetry.warn(
                "circuit_open",
                account=spec.fingerprint,
                provider=spec.provider,
                open_s=round(open_s, 2),
                reason=why,
            )

    async def _park(self, circuit: str, spec: LaneSpec, error: PermanentError, *, lane_id: str = "") -> None:
        """Park an account, or one lane of it; the log names the key as `batchling lanes` does."""
        await self._account_store.park(circuit, error)
        self._telemetry.warn(
            "key_refused",
            account=spec.fingerprint,
            provider=spec.provider,
            lane_id=lane_id,
            status=error.status,
            reason=error.recorded,
        )


def _stalled_s(account: Account) -> float:
    call = account.calls.slowest
    return 0.0 if call is None else call.stalled_s


def _waiting(entry: Entry) -> Waiting:
    # Not all at the same moment: a step that comes while the trial runs has to wait once more.
    delay_s = entry.wait_ms / 1000 + random.uniform(0.0, 0.2 + entry.wait_ms / 10_000)  # noqa: S311 - jitter
    if entry.verdict is not Verdict.PARKED:
        return Waiting(f"held for {math.ceil(delay_s)} s: {entry.why}", delay_s=delay_s, away=True)
    refusal = PermanentError(entry.why, status=entry.status, body=entry.body)
    return Waiting(f"parked: {entry.why}", delay_s=delay_s, refusal=refusal)
