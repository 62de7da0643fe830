"""A pause keeps batches from being submitted, whatever it is of, and loses, bills and ends nothing meanwhile."""

from __future__ import annotations

import datetime as dt

import pytest

from batchling_client.operate import pausing
from batchling_client.views.batch_list import BatchLists
from batchling_client.wire.records.pause import Kind, Pause, pauses
from batchling_client.wire.states import BatchState
from tests.deployment import MODEL, SLOW_MODEL, Deployment
from tests.waiting import wait_until

OTHER_MODEL = "llama-3.3-70b-versatile"


async def pause(deployment: Deployment, name: str, reason: str = "") -> Pause:
    lists = BatchLists(deployment.redis, deployment.keys)
    return await pausing.pause(lists, deployment.redis, deployment.keys, name, by="ada", reason=reason)


async def resume(deployment: Deployment, name: str) -> list[Pause]:
    lists = BatchLists(deployment.redis, deployment.keys)
    return await pausing.resume(lists, deployment.scripts, name, by="ada")


async def waits(deployment: Deployment, why: str) -> None:
    async def waiting() -> bool:
        return any(why in one.error for one in await deployment.batches())

    await wait_until(waiting, description=f"a batch waits: {why}", within_s=60)


@pytest.mark.parametrize("what", ["provider", "model", "key", "lane"])
async def test_what_is_paused_is_not_submitted_until_it_is_resumed(deployment: Deployment, what: str) -> None:
    ids = await deployment.ask(2)
    (batch,) = await deployment.batches()
    name = {
        "provider": batch.spec.provider,
        "model": batch.spec.model,
        "key": batch.spec.fingerprint[:6],
        "lane": batch.lane_id[:6],
    }[what]
    made = await pause(deployment, name, "budget")
    assert made.kind.value == what
    deployment.fork()
    await waits(deployment, f"paused by ada (budget); `batchling resume {made.name}`")
    assert deployment.billed() == {}

    assert await resume(deployment, made.name) == [made]
    assert [one.status for one in await deployment.answered(ids)] == [200, 200]
    assert set(deployment.billed().values()) == {1}


async def test_a_pause_of_one_model_leaves_the_others_and_what_runs_alone(deployment: Deployment) -> None:
    running = await deployment.ask(1, model=SLOW_MODEL)
    deployment.fork()

    async def is_submitted() -> bool:
        return [one.submitted_at is not None for one in await deployment.batches()] == [True]

    await wait_until(is_submitted, description="a batch is submitted")
    paused = await deployment.ask(1, model=MODEL)
    await pause(deployment, "groq/" + MODEL)
    await pause(deployment, "groq/" + SLOW_MODEL)
    others = await deployment.ask(1, model=OTHER_MODEL)
    assert [one.status for one in await deployment.answered([*running, *others])] == [200, 200]
    await waits(deployment, "paused by ada")
    by_model = {one.spec.model: one.state for one in await deployment.batches()}
    assert by_model[MODEL] is BatchState.SEALED
    assert await deployment.results(paused) == [None]

    assert len(await resume(deployment, "")) == 2
    assert [one.status for one in await deployment.answered(paused)] == [200]


async def test_a_name_that_fits_nothing_or_several_pauses_nothing(deployment: Deployment) -> None:
    await deployment.ask(1)
    for name in ("nobody", "g", "openai"):
        with pytest.raises(pausing.UnknownPlace):
            await pause(deployment, name)
    with pytest.raises(pausing.UnknownPlace):
        await resume(deployment, "groq")
    assert await pausing.pauses_of(deployment.redis, deployment.keys) == []


def test_a_pause_that_nobody_wrote_pauses_nothing() -> None:
    whole = Pause(kind=Kind.PROVIDER, name="groq", by="ada", at=dt.datetime.now(dt.UTC))
    foreign = {
        b"provider:openai": b"{}",
        b"country:groq": whole.encode(),
        b"\xff": b"\xff",
        b"lane:x": b'{"by": "a", "at": 1e300}',
        whole.field.encode(): whole.encode(),
    }
    assert [one.field for one in pauses(foreign)] == [whole.field]
