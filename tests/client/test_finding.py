"""A person names a batch or a run by its id, its first letters, the run's name or the provider's id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner

from batchling_client.cli.main import main
from batchling_client.operate import steering
from batchling_client.views.inspection import Inspection, RunRecord
from batchling_client.wire.deployment import connection
from batchling_client.wire.keys import BatchId, Keys, RunId
from tests.scripts.byhand import ByHand, ids, row

from .conftest import RedisServer


@pytest.fixture
async def byhand(redis_server: RedisServer, namespace: str) -> AsyncIterator[ByHand]:
    redis = connection.connect(redis_server.url)
    yield ByHand(redis, Keys(namespace))
    await redis.aclose()


async def found(byhand: ByHand, name: str) -> str:
    one = await steering.find(Inspection(byhand.redis, byhand.keys), name)
    return one.run_id if isinstance(one, RunRecord) else one.batch_id


async def name_run(byhand: ByHand, run_id: RunId, name: str) -> None:
    await byhand.redis.execute_command("HSET", byhand.keys.run(run_id), "name", name)


async def test_every_name_of_a_batch_or_a_run_finds_it(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(2))
    await name_run(byhand, byhand.run_id, "five")
    provider_batch_id = (await byhand.batch(batch_id)).provider_batch_id

    assert provider_batch_id
    for name in (batch_id, batch_id[:8], provider_batch_id):
        assert await found(byhand, name) == batch_id
    for name in (byhand.run_id, byhand.run_id[:-1], "five"):
        assert await found(byhand, name) == byhand.run_id


async def test_the_newest_run_of_a_name_is_taken_and_an_id_that_several_begin_with_is_refused(
    byhand: ByHand,
) -> None:
    newer = RunId(byhand.run_id[:-1] + "~")
    for run_id in (byhand.run_id, newer):
        await byhand.enqueue([row(ids(1)[0])], into=BatchId("b-some"), run_id=run_id)
        await name_run(byhand, run_id, "five")

    with pytest.raises(steering.UnknownId, match="2 ids begin with") as caught:
        await found(byhand, byhand.run_id[:-1])
    assert byhand.run_id in str(caught.value)
    assert newer in str(caught.value)

    # A program or file that is run again under its name has the answers of its earlier runs.
    inspection = Inspection(byhand.redis, byhand.keys)
    told: list[str] = []
    assert await steering.run_named(inspection, "five", warn=told.append) == newer
    named = await steering.find(inspection, "five", warn=told.append)
    assert isinstance(named, RunRecord)
    assert named.run_id == newer
    assert (
        told
        == [
            f"2 runs are called 'five': {newer} is the newest and is used. To choose another, give its id: "
            f"{byhand.run_id}."
        ]
        * 2
    )


@pytest.mark.parametrize("name", ["", "b", "nobody", "*", "b0000000000"])
async def test_a_name_that_fits_nothing_is_refused(byhand: ByHand, name: str) -> None:
    await byhand.at_provider(ids(1))
    with pytest.raises(steering.UnknownId, match="no batch and no run"):
        await found(byhand, name)


@pytest.mark.parametrize("command", ["show", "retry", "cancel"])
async def test_commands_take_the_name_of_a_live_run(
    byhand: ByHand, redis_server: RedisServer, namespace: str, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    byhand.run_id = RunId("r")  # whose requests the rows are
    await byhand.at_provider(ids(2))
    await name_run(byhand, byhand.run_id, "five")
    monkeypatch.setenv("BATCHLING_REDIS_URL", redis_server.url)
    monkeypatch.setenv("BATCHLING_NAMESPACE", namespace)

    done = await asyncio.to_thread(CliRunner().invoke, main, [command, "five", "--json"])

    assert done.exit_code == 0, done.output
