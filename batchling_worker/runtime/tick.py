"""One tick of one wire version: claims what is due, seals ripe batches and sends the rest to the pool."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final

from redis.exceptions import ResponseError

from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_client.wire.scripts import DueBatch
from batchling_client.wire.states import BatchState

from ..pipeline.seal import seal
from ..store import Store
from ..telemetry import Telemetry
from .backlog import Backlog
from .dispatch import Dispatch

logger = logging.getLogger("batchling.worker")

CLAIM_AT_ONCE: Final = 200
CLAIMS_A_TICK: Final = 1_000
"""Looks that fall due together are claimed together, so that few messages hold them."""
FAILED_TICK_S: Final = 1.0
OLDER_TICK_S: Final = 0.5
"""How often the tick looks at an older wire version in which nothing is due."""
DELETE_S: Final = 1.0
"""How often a worker looks for files to delete, in seconds."""
LAPSE_S: Final = 600.0
"""How often a worker looks for credentials that no batch needs, in seconds, give or take a half."""
MISSED_BEFORE_INLINE: Final = 2
"""After this many claims without a begun step, messages are being lost: the tick's own process runs the step."""


class Tick:
    """The tick of one wire version; `older` = of a version before the worker's own."""

    def __init__(self, store: Store, dispatch: Dispatch, telemetry: Telemetry, *, older: bool) -> None:
        self.store = store
        self._dispatch = dispatch
        self._telemetry = telemetry
        self._older = older
        self._version = store.keys.version
        self._backlog = Backlog(
            store.redis, store.keys.namespace, self._version, patience_s=store.terms.lease_ms / 1000
        )
        self._look_at = 0.0
        self._failing = ""
        self._delete_at = 0.0
        self._deleting: Future[None] | None = None
        # Workers that were started together, or once a minute, look at different times.
        self._lapse_at = time.monotonic() + random.uniform(0.1, 1.0) * LAPSE_S  # noqa: S311 - jitter, not a secret

    async def run(self) -> bool:
        """Run one tick, if it is due; log a failure once, so that it holds up no other version.

        Return whether the next tick is due at once.
        """
        if time.monotonic() < self._look_at:
            return False
        try:
            is_full = await self._backlog.is_full()
            n_claimed, sealed = (0, False) if is_full else await self.once()
        except UNREACHABLE:
            raise
        except Exception as error:
            self._look_at = time.monotonic() + FAILED_TICK_S
            if self._failing != str(error):
                self._failing = str(error)
                self._telemetry.warn("tick_failed", error=type(error).__name__, wire_version=self._version)
                logger.debug("tick_failed", exc_info=True)
            return False
        self._failing = ""
        if not self._older:
            # A list of files that Redis refuses must not hold up batches.
            with contextlib.suppress(ResponseError):
                await self._delete_files()
            await self._lapse_credentials()
        elif not n_claimed:
            self._look_at = time.monotonic() + OLDER_TICK_S
        return sealed or n_claimed >= CLAIMS_A_TICK

    async def once(self) -> tuple[int, bool]:
        """Claim what is due; return how many batches were claimed, and whether a batch was sealed."""
        dues = some = await self.store.claim_due(CLAIM_AT_ONCE)
        while len(some) == CLAIM_AT_ONCE and len(dues) < CLAIMS_A_TICK:
            some = await self.store.claim_due(CLAIM_AT_ONCE)
            dues = [*dues, *some]
        sealed = False
        rest = []
        for due in dues:
            if due.state is BatchState.OPEN:
                sealed = await self._seal(due) or sealed
            elif not due.token:
                self._telemetry.warn("batch_unreadable", batch=due.batch_id)
            else:
                rest.append(due)
        self._step(rest)
        return len(dues), sealed

    async def _seal(self, due: DueBatch) -> bool:
        """Seal a ripe batch; a record that makes Redis refuse must not hold up other batches."""
        try:
            return await seal(self.store, due, self._telemetry)
        except UNREACHABLE:
            raise
        except (ResponseError, ValueError) as error:
            self._telemetry.warn("step_failed", batch=due.batch_id, error=type(error).__name__)
            return False

    def _step(self, dues: Sequence[DueBatch]) -> None:
        """Send claims to the pool, and run those here whose messages get lost or whose record cannot be read."""
        inline: list[DueBatch] = []
        sent: list[DueBatch] = []
        for due in dues:
            is_stuck = due.n_missed > MISSED_BEFORE_INLINE
            if is_stuck:
                self._telemetry.warn("claim_stuck", batch=due.batch_id, n_missed=due.n_missed)
            (inline if is_stuck or due.state is None else sent).append(due)
        self._dispatch.inline(inline, self._version)
        try:
            self._dispatch.send(sent, self._version)
        except Exception as error:  # noqa: BLE001 - whatever the broker lacks, claimed steps are to be run
            # A full Redis accepts no message. Messages that went out all the same find their token spent.
            self._telemetry.warn("messages_not_sent", n=len(sent), error=type(error).__name__)
            self._dispatch.inline(sent, self._version)

    async def _lapse_credentials(self) -> None:
        """Let credentials expire soon that no unfinished batch needs."""
        if time.monotonic() < self._lapse_at:
            return
        self._lapse_at = time.monotonic() + random.uniform(0.5, 1.5) * LAPSE_S  # noqa: S311 - jitter, not a secret
        with contextlib.suppress(ResponseError):
            await self.store.lapse_credentials()

    async def _delete_files(self) -> None:
        """Claim files that batches no longer need, once a second, unless the last files are still being deleted."""
        if time.monotonic() < self._delete_at or (self._deleting is not None and not self._deleting.done()):
            return
        self._delete_at = time.monotonic() + DELETE_S
        members = await self.store.claim_spent()
        if members:
            self._deleting = self._dispatch.delete_files(members, self._version)
