"""Azure OpenAI: the same batches under its v1 path and under a dated version, of files that are processed first."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import httpx
import pytest

from batchling_client.wire.routes import Routes
from batchling_client.wire.states import Outcome
from batchling_worker import providers
from batchling_worker.errors import FileNotReady, PermanentError, QuotaFull, TemporaryError
from batchling_worker.provider import Account, Running
from batchling_worker.sandbox import Limits, Sandbox
from batchling_worker.sandbox.world.faults import (
    DropMetadata,
    HideFile,
    HideInputFileId,
    HoldFilePending,
    RefuseCreate,
)

from .desk import Desk, said

KEY = "az-canary-5f1c2d"
DATED = (("api-version", "2024-10-21"),)
QUERIES = {"v1": (), "v1 by name": (("api-version", "preview"),), "dated": DATED}


@pytest.fixture(params=QUERIES)
def desk(request: pytest.FixtureRequest, sandbox: Sandbox, http: httpx.AsyncClient) -> Desk:
    route = Routes().named("azure")
    assert route is not None
    account = Account(
        base_url=sandbox.base_url("azure"),
        headers=route.credential(KEY),
        query=QUERIES[request.param],
        http=http,
        digest="a" * 20,
    )
    return Desk(provider=providers.load("azure"), account=account)


async def test_a_batch_is_made_looked_at_and_read_under_its_own_path(desk: Desk, sandbox: Sandbox) -> None:
    one, other = await desk.submit(desk.requests(3), "l1"), await desk.submit(label="l2")
    assert isinstance(await desk.look(one), Running)
    sandbox.clock.advance(10)
    looks = await desk.provider.look(desk.account, [one, other])
    assert looks.keys() == {one, other}
    ended = await desk.ended(one)
    assert (ended.outcome, ended.n_done, ended.n_total) == (Outcome.COMPLETED, 3, 3)
    answers = await desk.answers_by_id(ended.ending)
    assert answers.keys() == {"r0", "r1", "r2"}
    assert said(answers["r0"])["choices"][0]["content_filter_results"]


async def test_a_cancelled_batch_tells_which_rows_never_ran(desk: Desk, sandbox: Sandbox) -> None:
    batch_id = await desk.submit(desk.requests(5))
    await desk.provider.cancel(desk.account, batch_id)
    sandbox.clock.advance(10)
    ended = await desk.ended(batch_id)
    assert ended.outcome is Outcome.CANCELLED
    assert len(await desk.answers(ended.ending)) == 5
    await desk.provider.cancel(desk.account, batch_id)


@pytest.mark.parametrize("faults", [(), (DropMetadata(),), (DropMetadata(), HideInputFileId())])
async def test_a_lost_create_is_found_whatever_form_its_times_have(
    desk: Desk, sandbox: Sandbox, faults: tuple[DropMetadata | HideInputFileId, ...]
) -> None:
    since = dt.datetime.fromtimestamp(sandbox.clock.now(), dt.UTC)
    await desk.submit(label="another")
    sandbox.faults.add(*faults)
    file_id = await desk.upload(desk.requests(2), "criteria")
    batch_id = await desk.create(file_id, "criteria", desk.requests(2))
    sandbox.clock.advance(10)
    assert await desk.find("criteria", files=[file_id], since=since, ours=["r0", "r1"]) == [batch_id]


async def test_a_search_stops_at_batches_older_than_the_create(desk: Desk, sandbox: Sandbox) -> None:
    for n in range(3):
        await desk.submit(label=f"old-{n}")
    sandbox.clock.advance(7200)
    sandbox.limits = Limits(page_size=1)
    since = dt.datetime.fromtimestamp(sandbox.clock.now(), dt.UTC)
    assert await desk.find("none", since=since) == []
    assert sandbox.ledger().calls["azure GET /batches"] == 1


async def test_no_batch_is_made_of_a_file_that_is_still_being_read(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(HoldFilePending(seconds=60))
    file_id = await desk.upload()
    with pytest.raises(TemporaryError, match="not read the input file yet") as waits:
        await desk.create(file_id)
    assert not isinstance(waits.value, FileNotReady)
    assert sandbox.ledger().totals.n_batches == 0
    sandbox.clock.advance(61)
    assert await desk.create(file_id)


async def test_a_file_that_is_not_seen_yet_is_waited_for(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(HideFile(seconds=60))
    file_id = await desk.upload()
    with pytest.raises(FileNotReady):
        await desk.create(file_id)
    sandbox.clock.advance(61)
    assert await desk.create(file_id)


async def test_a_full_quota_reported_with_400_is_not_a_failure(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.limits = Limits(max_enqueued_tokens=1, quota_at_create=True)
    with pytest.raises(QuotaFull, match="Enqueued token limit reached"):
        await desk.submit()


async def test_a_quota_is_known_by_its_code_too(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(RefuseCreate(status=400, code="token_limit_exceeded", message="Zu viel."))
    with pytest.raises(QuotaFull, match="Zu viel"):
        await desk.submit()


async def test_a_wrong_key_is_refused_without_being_told(desk: Desk) -> None:
    wrong = replace(desk, account=replace(desk.account, headers={"api-key": "invalid-canary"}))
    with pytest.raises(PermanentError) as refusal:
        await wrong.submit()
    assert refusal.value.status == 401
    assert "canary" not in str(refusal.value)
