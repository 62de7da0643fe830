"""Upgrade: a worker of the next wire version finishes what this one began, and the two may run side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence

import httpx
import msgspec
import pytest

from batchling_client import batchify
from batchling_client.views.inspection import Inspection
from batchling_client.wire import version_1
from batchling_client.wire.keys import WIRE_VERSION, BatchId, CustomId, Keys, ProviderBatchId, RequestId
from batchling_client.wire.scripts import Scripts
from batchling_client.wire.states import BatchState
from batchling_worker import providers
from batchling_worker.app import make_app
from batchling_worker.provider import Account, Ended, Provider, Source, Submission
from batchling_worker.runtime import tasks
from batchling_worker.runtime.wire_versions import queue_of
from batchling_worker.settings import WorkerSettings
from tests.client.asking import ask_all, content
from tests.deployment import MODEL, Deployment
from tests.waiting import wait_until
from tests.wire import golden

from .hand import ORDER, Hand

NEXT = "tests.next_version"


async def newest(deployment: Deployment) -> BatchId:
    return (await deployment.batches())[-1].batch_id


async def one_in_each_state(deployment: Deployment) -> list[RequestId]:
    """Batches of this version in every state but the terminal ones."""
    ids: list[RequestId] = []
    async with Hand(deployment) as hand:
        for state in reversed(ORDER):
            ids += await deployment.ask(10)
            await hand.bring(await newest(deployment), state)
    assert {batch.state for batch in await deployment.batches()} == set(ORDER)
    return ids


def of_next_version(deployment: Deployment) -> None:
    """From here on the deployment is asked as a client of the next version asks."""
    deployment.keys = Keys("default", version=WIRE_VERSION + 1)
    deployment.scripts = Scripts(deployment.redis, deployment.keys)


def of_first_version(deployment: Deployment) -> None:
    """From here on the deployment is asked as a client of the first version asks."""
    deployment.keys = Keys("default", version=version_1.VERSION)
    deployment.scripts = Scripts(deployment.redis, deployment.keys)


async def answered_once(deployment: Deployment, ids: Sequence[RequestId]) -> None:
    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    await deployment.settled()
    billed = deployment.billed()
    assert {request_id: billed.get(request_id) for request_id in ids} == dict.fromkeys(ids, 1)


async def test_the_next_version_finishes_what_this_one_began_in_every_state(deployment: Deployment) -> None:
    ids = await one_in_each_state(deployment)

    deployment.worker(app=NEXT)

    await answered_once(deployment, ids)


async def test_this_version_finishes_what_the_first_one_began_in_every_state(deployment: Deployment) -> None:
    of_first_version(deployment)
    ids = await one_in_each_state(deployment)

    deployment.worker()

    await answered_once(deployment, ids)


async def test_two_versions_side_by_side_answer_the_clients_of_both_once(deployment: Deployment) -> None:
    ids = await one_in_each_state(deployment)
    deployment.worker()
    deployment.worker(app=NEXT)
    ids += await deployment.ask(40, rows=10)
    await answered_once(deployment, ids)

    of_next_version(deployment)
    await answered_once(deployment, await deployment.ask(40, rows=10))
    assert "KeyError" not in deployment.worker_logs()


async def test_a_worker_of_this_version_leaves_the_next_versions_batches_alone(
    deployment: Deployment,
) -> None:
    this = deployment.keys
    of_next_version(deployment)
    ids = await deployment.ask(5)
    async with Hand(deployment) as hand:
        await hand.bring(await newest(deployment), BatchState.SEALED)
        held = await hand.claim(await newest(deployment))
    app = make_app(WorkerSettings(redis_url=deployment.url, home=deployment.home))
    app.send_task(
        tasks.SUBMIT, args=[held.batch_id, held.token, WIRE_VERSION + 1], queue=queue_of(WIRE_VERSION)
    )
    deployment.keys, deployment.scripts = this, Scripts(deployment.redis, this)
    worker = deployment.worker()

    await answered_once(deployment, await deployment.ask(3))

    of_next_version(deployment)
    assert [batch.state for batch in await deployment.batches()] == [BatchState.SEALED]
    assert worker.poll() is None
    assert await deployment.redis.zscore(deployment.keys.schedule, held.batch_id) is not None
    assert deployment.billed().keys().isdisjoint(ids)


@pytest.mark.parametrize("app", ["batchling_worker", NEXT])
async def test_a_worker_drains_what_the_first_release_wrote(deployment: Deployment, app: str) -> None:
    """Byte for byte as it was written then; only what the provider knows of it is of today."""
    of_first_version(deployment)
    await golden.restore(deployment.redis, deployment.keys.prefix, golden.load()["deployment"])
    for state in (BatchState.SUBMITTING, BatchState.SUBMITTED, BatchState.ENDED):
        await _told_to_provider(deployment, state)

    deployment.worker(app=app, seal_private_key=golden.PRIVATE_KEY)

    ids = [one for state in ORDER for one in golden.requests_of(state)]
    await answered_once(deployment, ids)
    states = {batch.batch_id: batch.state for batch in await deployment.batches()}
    assert [states[golden.batch_of(state)] for state in ORDER] == [BatchState.SETTLED] * len(ORDER)
    assert states[golden.batch_of(BatchState.CANCELLED)] is BatchState.CANCELLED


async def _told_to_provider(deployment: Deployment, state: BatchState) -> None:
    """The input file, and from `submitted` on the batch, of a golden batch, at the sandbox."""
    provider = providers.load("groq")
    batch_id, ids = golden.batch_of(state), golden.requests_of(state)
    lines = b"".join(
        provider.line(custom_id=CustomId(one), endpoint=golden.SPEC.endpoint, body=golden.body(one))
        for one in ids
    )
    submission = Submission(
        batch_id=batch_id,
        label=f"batchling-default-{batch_id}",
        endpoint=golden.SPEC.endpoint,
        model=golden.MODEL,
        completion_window="24h",
        n_lines=len(ids),
    )
    async with httpx.AsyncClient() as http:
        account = Account(
            base_url=deployment.sandbox.base_url("groq"),
            headers=golden.CREDENTIAL,
            http=http,
            digest="golden",
        )
        file_id = await provider.upload(account, submission, io.BytesIO(lines))
        known = {"input_file_id": file_id}
        if state is not BatchState.SUBMITTING:
            known["provider_batch_id"] = await provider.create(account, submission, Source(file_id=file_id))
        if state is BatchState.ENDED:
            known["ending"] = await _ending(provider, account, ProviderBatchId(known["provider_batch_id"]))
    words = [word for pair in known.items() for word in pair]
    await deployment.redis.execute_command("HSET", deployment.keys.batch(batch_id), *words)


async def _ending(provider: Provider, account: Account, provider_batch_id: ProviderBatchId) -> str:
    found: list[Ended] = []

    async def over() -> bool:
        look = (await provider.look(account, [provider_batch_id]))[provider_batch_id]
        found.extend([look] if isinstance(look, Ended) else [])
        return bool(found)

    await wait_until(over, description="the golden batch has ended at the sandbox")
    return msgspec.json.encode(found[0].ending).decode()


async def test_a_message_that_names_no_version_means_the_first(deployment: Deployment) -> None:
    """As those of an older release, which may still lie in its queue; the lease is so long that nothing else helps."""
    of_first_version(deployment)
    ids = await deployment.ask(5, linger_ms=0)
    async with Hand(deployment) as hand:
        await hand.bring(await newest(deployment), BatchState.SEALED)
        held = await hand.claim(await newest(deployment))
    app = make_app(WorkerSettings(redis_url=deployment.url, home=deployment.home))
    app.send_task(tasks.SUBMIT, args=[held.batch_id, held.token], queue=queue_of(1))

    deployment.worker(app=NEXT)

    await answered_once(deployment, ids)


async def test_a_client_of_this_version_is_answered_where_only_the_next_works(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REDIS_URL", "HOME"):
        monkeypatch.setenv(f"BATCHLING_{name}", deployment.env[f"BATCHLING_{name}"])
    deployment.worker(app=NEXT)
    inspection = Inspection(deployment.redis, Keys("default"))

    async def seen() -> bool:
        return bool(await inspection.workers())

    await wait_until(seen, description="the next version shows itself to clients of this one", within_s=20)

    async with batchify(batch_window_seconds=0.05, live_display=False) as run:
        replies = await ask_all(run, "one", "two", model=MODEL)

    assert all(content(reply) for reply in replies)


def test_each_version_has_its_own_queue_and_reads_those_of_the_versions_it_drains(
    deployment_settings: WorkerSettings,
) -> None:
    app = make_app(deployment_settings)
    assert app.conf.task_default_queue == "batchling.2"
    assert [queue.name for queue in app.conf.task_queues] == ["batchling.2", "batchling"]
    assert queue_of(1) == "batchling"


@pytest.fixture
def deployment_settings() -> WorkerSettings:
    return WorkerSettings(redis_url="unix:///nowhere")
