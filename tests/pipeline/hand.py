"""A worker of this release in the test's own process: it takes one step when told to, and dies where told to."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import BatchId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState
from batchling_worker.claim import Claim, Terms
from batchling_worker.engine.accounts import Accounts
from batchling_worker.engine.engine import Engine
from batchling_worker.pipeline.seal import seal
from batchling_worker.pipeline.step import StepSettings
from batchling_worker.providers import Providers
from batchling_worker.settings import WorkerSettings
from batchling_worker.store import Store
from batchling_worker.telemetry import Telemetry
from tests.deployment import Deployment
from tests.waiting import wait_until

ORDER: Final = tuple(state for state in BatchState if not state.terminal)


class TornOff(Exception):
    """The hand was told to stop here."""


class Hand:
    """Brings batches of a deployment into any state of their life, at a real provider."""

    def __init__(self, deployment: Deployment) -> None:
        env = {name.removeprefix("BATCHLING_"): value for name, value in deployment.env.items()}
        settings = WorkerSettings.model_validate(
            {
                "redis_url": env["REDIS_URL"],
                "home": env["HOME"],
                "providers": {
                    one: {"base_url": env[f"PROVIDERS__{one.upper()}__BASE_URL"]}
                    for one in ("anthropic", "groq")
                },
            }
        )
        self.torn_at = ""
        self.store = Store(
            redis=connect(settings.redis_url),
            keys=deployment.keys,
            terms=Terms(lease_ms=60_000, result_ttl_ms=3_600_000, max_attempts=3),
        )
        self.telemetry = Telemetry()
        self.accounts = Accounts(
            self.store, settings.providers, settings.keyring().private_keys, silence_s=30.0
        )
        step_settings = StepSettings(
            namespace="default",
            poll_interval_s=0.0,
            max_attempts=3,
            reconcile_patience_s=1.5,
            results_patience_s=0.4,
        )
        self.engine = Engine(
            store=self.store,
            accounts=self.accounts,
            providers=Providers(settings.providers),
            step_settings=step_settings,
            telemetry=self.telemetry,
            reach=self._reach,
        )

    def _reach(self, point: str, batch: object) -> None:
        if point == self.torn_at:
            raise TornOff(point)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.accounts.close()
        await self.store.redis.aclose()

    async def batch(self, batch_id: BatchId) -> Batch:
        return Batch.decode(
            await self.store.redis.execute_command("HGETALL", self.store.keys.batch(batch_id))
        )

    async def claim(self, batch_id: BatchId) -> Claim:
        """Claims the batch, due or not."""
        await self.store.redis.execute_command("ZADD", self.store.keys.schedule, "XX", 0, batch_id)
        [due] = await self.store.scripts.claim(batch_ids=[batch_id], lease_ms=60_000)
        return self.store.claim(due.batch_id, due.token)

    async def step(self, batch_id: BatchId) -> None:
        """One step of the batch, whatever comes next."""
        state = (await self.batch(batch_id)).state
        if state is BatchState.OPEN:
            await self.store.redis.execute_command("ZADD", self.store.keys.schedule, "XX", 0, batch_id)
            [due] = await self.store.scripts.claim(batch_ids=[batch_id], lease_ms=60_000)
            assert await seal(self.store, due, self.telemetry)
            return
        claim = await self.claim(batch_id)
        if state in (BatchState.SEALED, BatchState.SUBMITTING):
            await self.engine.submit(claim)
        elif state is BatchState.SUBMITTED:
            await self.engine.poll([claim])
        else:
            await self.engine.collect(claim)

    async def bring(self, batch_id: BatchId, state: BatchState) -> None:
        """Takes the batch as far as the state; `submitting` is a create whose answer nobody wrote down."""
        self.torn_at = "submit.created" if state is BatchState.SUBMITTING else ""

        async def there() -> bool:
            if ORDER.index((await self.batch(batch_id)).state) >= ORDER.index(state):
                return True
            await self.step(batch_id)
            return False

        await wait_until(there, description=f"{batch_id} is {state.value}")
        assert (await self.batch(batch_id)).state is state
