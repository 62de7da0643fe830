"""A batch is its account's: what another key or another host does not see of it was not lost, and is not paid again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState, Outcome, Verdict
from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world.faults import DropCreateAnswer, LagList, RefuseCreate
from tests.deployment import MODEL, SLOW_MODEL, Deployment
from tests.waiting import wait_until

LONG_AGO = 1_000_000


@pytest.fixture
def elsewhere() -> Iterator[Sandbox]:
    with Sandbox(speeds={MODEL: 0.2, "*": 0.2}) as running:
        yield running


@pytest.fixture(params=["key", "host"])
def settings(request: pytest.FixtureRequest, provider: str, elsewhere: Sandbox) -> dict[str, str]:
    """The worker's settings after somebody has changed them."""
    prefix = f"BATCHLING_PROVIDERS__{provider.upper()}__"
    if request.param == "key":
        return {prefix + "API_KEY": "gsk-another"}
    return {prefix + "BASE_URL": elsewhere.base_url(provider)}


def under(deployment: Deployment, settings: dict[str, str]) -> int:
    return deployment.fork(
        **{name.removeprefix("BATCHLING_").lower(): said for name, said in settings.items()}
    )


async def only(deployment: Deployment) -> Batch:
    [batch] = await deployment.batches()
    return batch


async def in_state(deployment: Deployment, state: BatchState) -> None:
    async def there() -> bool:
        return [batch.state for batch in await deployment.batches()] == [state]

    await wait_until(there, description=f"the batch is {state}", within_s=20)


async def forgotten_for_long(deployment: Deployment) -> None:
    """The batch looks as if its provider had denied it for days."""
    batch = await only(deployment)
    await deployment.redis.execute_command(
        "HSET", deployment.keys.batch(batch.batch_id), "n_denied", 50, "denied_since", LONG_AGO
    )
    await deployment.due()


async def waits(deployment: Deployment, provider: str) -> None:
    """It is looked at several times, and each time it waits with a sentence for people."""
    words = f"was created with a different API key or host of {provider}: restore it"
    for _ in range(2):
        seen = (await only(deployment)).n_stumbles

        async def looked_at(seen: int = seen) -> bool:
            batch = await only(deployment)
            return batch.n_stumbles > seen and words in batch.error

        await deployment.due()
        await wait_until(looked_at, description="the batch waits for its account", within_s=20)


async def test_a_create_under_another_account_is_never_taken_for_undone(
    deployment: Deployment, provider: str, settings: dict[str, str], elsewhere: Sandbox
) -> None:
    deployment.sandbox.faults.add(DropCreateAnswer(), LagList(seconds=2.0))
    deployment.env["BATCHLING_RECONCILE_PATIENCE_SECONDS"] = "0"
    doomed = deployment.fork(crash_at="submit.searched")
    ids = await deployment.ask(5, provider=provider)
    await deployment.fork_died(doomed)
    another = under(deployment, settings)

    await waits(deployment, provider)

    assert (await only(deployment)).state is BatchState.SUBMITTING
    assert (len(deployment.sandbox.batches()), elsewhere.batches()) == (1, [])
    deployment.kill_fork(another)
    deployment.env["BATCHLING_RECONCILE_PATIENCE_SECONDS"] = "30"
    deployment.fork()
    await deployment.due()
    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_a_batch_that_another_account_does_not_see_is_not_lost(
    deployment: Deployment, provider: str, settings: dict[str, str], elsewhere: Sandbox
) -> None:
    doomed = deployment.fork(crash_at="submit.committed")
    ids = await deployment.ask(5, provider=provider)
    await deployment.fork_died(doomed)
    await forgotten_for_long(deployment)
    another = under(deployment, settings)

    await waits(deployment, provider)
    await forgotten_for_long(deployment)
    await waits(deployment, provider)

    assert (await only(deployment)).state is BatchState.SUBMITTED
    deployment.kill_fork(another)
    deployment.fork()
    await deployment.due()
    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)
    assert elsewhere.batches() == []


async def test_results_that_another_account_may_not_read_are_waited_for(
    deployment: Deployment, provider: str, settings: dict[str, str]
) -> None:
    doomed = deployment.fork(crash_at="poll.recorded")
    ids = await deployment.ask(5, provider=provider)
    await deployment.fork_died(doomed)
    await forgotten_for_long(deployment)
    another = under(deployment, settings)

    await waits(deployment, provider)
    await forgotten_for_long(deployment)
    await waits(deployment, provider)

    batch = await only(deployment)
    assert (batch.state, batch.outcome) == (BatchState.ENDED, Outcome.COMPLETED)
    deployment.kill_fork(another)
    deployment.fork()
    await deployment.due()
    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_a_key_that_is_refused_gives_up_nothing_that_another_created(
    deployment: Deployment, provider: str
) -> None:
    doomed = deployment.fork(crash_at="submit.committed")
    ids = await deployment.ask(5, provider=provider)
    await deployment.fork_died(doomed)
    await forgotten_for_long(deployment)
    another = under(deployment, {f"BATCHLING_PROVIDERS__{provider.upper()}__API_KEY": "invalid-key"})

    await waits(deployment, provider)

    deployment.kill_fork(another)
    deployment.fork()
    await deployment.due()
    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}


@pytest.mark.parametrize("point", ["submit.armed", "submit.committed"])
async def test_a_person_may_give_up_what_only_another_account_sees(
    deployment: Deployment, provider: str, settings: dict[str, str], point: str
) -> None:
    doomed = deployment.fork(crash_at=point)
    ids = await deployment.ask(5, provider=provider, model=SLOW_MODEL)
    await deployment.fork_died(doomed)
    under(deployment, settings)
    await waits(deployment, provider)
    batch = await only(deployment)

    verdict = await deployment.scripts.cancel(
        batch_id=batch.batch_id, lane_id=batch.lane_id, ending=b"{}", error="by a person"
    )
    await deployment.due()

    assert verdict is Verdict.OK
    results = await deployment.answered(ids)
    assert {(result.status, result.origin) for result in results} == {(499, "batch_cancelled")}
    assert (await only(deployment)).outcome is Outcome.CANCELLED
    assert all("error" in json.loads(result.body) for result in results)


async def test_a_file_of_another_account_is_uploaded_anew_and_billed_there_alone(
    deployment: Deployment, provider: str, settings: dict[str, str], elsewhere: Sandbox
) -> None:
    deployment.sandbox.faults.add(RefuseCreate(status=404, message="No such File object.", times=None))
    first = deployment.fork()
    ids = await deployment.ask(5, provider=provider)
    await wait_until(lambda: _stumbled(deployment), description="the create was refused")
    deployment.kill_fork(first)
    deployment.sandbox.faults.clear()
    under(deployment, settings)
    await deployment.due()

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    [*here] = deployment.sandbox.ledger().batches
    [*there] = elsewhere.ledger().batches
    assert len(here) + len(there) == 1
    assert (await only(deployment)).former_file_id != ""


async def _stumbled(deployment: Deployment) -> bool:
    return (await only(deployment)).n_stumbles >= 1
