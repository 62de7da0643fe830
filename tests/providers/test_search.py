"""A batch is found again whatever its provider's lists leave out, and "there is none" is said only where it is sure."""

from __future__ import annotations

import datetime as dt

import pytest

from batchling_worker.errors import MaybeDone, PermanentError, TemporaryError
from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world import faults
from tests.form import Ability

from .desk import Desk, body

pytestmark = pytest.mark.needs(Ability.OPENAI_FILES)

LONG_S = 60.0
NAMELESS = (faults.DropMetadata, faults.HideInputFileId)

SHOWN: dict[str, list[faults.Fault]] = {
    "everything": [],
    "no metadata": [faults.DropMetadata()],
    "no input file": [faults.HideInputFileId()],
    "a bare list": [faults.ListWithoutLabels()],
    "a bare list, no metadata": [faults.ListWithoutLabels(), faults.DropMetadata()],
    "a bare list, no input file": [faults.ListWithoutLabels(), faults.HideInputFileId()],
}


def now(sandbox: Sandbox) -> dt.datetime:
    return dt.datetime.fromtimestamp(sandbox.clock.now(), dt.UTC)


@pytest.mark.parametrize("file_known", [True, False])
@pytest.mark.parametrize("shown", SHOWN)
async def test_a_lost_batch_is_found_by_whatever_its_provider_shows(
    desk: Desk, sandbox: Sandbox, shown: str, file_known: bool
) -> None:
    began = now(sandbox)
    foreign = await desk.submit(label="batchling-test-2")
    sandbox.faults.add(*SHOWN[shown], faults.DropCreateAnswer())
    file = await desk.upload()
    with pytest.raises(MaybeDone):
        await desk.create(file)

    found = await desk.find(files=[file] if file_known else [], since=began)

    [ours] = [one.provider_batch_id for one in sandbox.ledger().batches if one.provider_batch_id != foreign]
    assert found == [ours]


@pytest.mark.parametrize("file_known", [True, False])
@pytest.mark.parametrize("shown", SHOWN)
async def test_a_batch_of_another_is_ruled_out_by_whatever_its_provider_shows(
    desk: Desk, sandbox: Sandbox, shown: str, file_known: bool
) -> None:
    began = now(sandbox)
    sandbox.faults.add(*SHOWN[shown])
    await desk.submit(label="batchling-test-2")
    file = await desk.upload()

    assert await desk.find(files=[file] if file_known else [], since=began) == []


async def test_a_batch_made_of_either_file_is_found(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(faults.DropMetadata(times=None))
    began = now(sandbox)
    first, second = await desk.upload(), await desk.upload()
    batch = await desk.create(first)
    assert await desk.find(files=[second, first], since=began) == [batch]
    assert await desk.find(files=[first], since=began) == [batch]
    assert await desk.find(label="batchling-test-2", files=[second], since=began) == []


async def test_where_only_rows_can_tell_they_do_once_it_has_ended(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(*(kind(times=None) for kind in NAMELESS))
    began = now(sandbox)
    batch = await desk.submit(desk.requests(200))
    sandbox.clock.advance(1.0)
    for ours in (["r7"], []):
        with pytest.raises(TemporaryError, match="batchling-test-1"):
            await desk.find(since=began, ours=ours)
    sandbox.clock.advance(LONG_S)
    assert await desk.find(since=began, ours=["r7"]) == [batch]
    assert await desk.find(since=began, ours=["r200"]) == []
    assert await desk.find(since=began, ours=["r7"], others=[batch]) == []


async def test_rows_that_a_provider_lost_do_not_hide_the_batch(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(*(kind() for kind in NAMELESS))
    sandbox.faults.add(faults.LoseRows(n=150), faults.StrayRows(n=20), faults.BreakRows(n=20))
    began = now(sandbox)
    batch = await desk.submit(desk.requests(200))
    sandbox.clock.advance(LONG_S)
    assert await desk.find(since=began, ours=list(desk.requests(200))) == [batch]


@pytest.mark.parametrize(
    "fault",
    [faults.HideOutput(seconds=500), faults.RefuseDownload(status=500), faults.RefuseDownload(status=403)],
)
async def test_rows_that_cannot_be_read_rule_nothing_out(
    desk: Desk, sandbox: Sandbox, fault: faults.Fault
) -> None:
    sandbox.faults.add(*(kind() for kind in NAMELESS), fault)
    began = now(sandbox)
    await desk.submit(desk.requests(3))
    sandbox.clock.advance(LONG_S)
    with pytest.raises(TemporaryError):
        await desk.find(since=began, ours=["r200"])


async def test_a_nameless_batch_from_before_the_create_is_none_of_ours(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(*(kind(times=None) for kind in NAMELESS))
    sandbox.faults.add(faults.StickBatch())
    await desk.submit(desk.requests(3))
    sandbox.clock.advance(3600.0)
    assert await desk.find(since=now(sandbox), ours=["r0"]) == []


async def test_a_batch_that_was_made_twice_is_found_twice_the_oldest_first(
    desk: Desk, sandbox: Sandbox
) -> None:
    began = now(sandbox)
    first = await desk.submit()
    sandbox.clock.advance(1.0)
    second = await desk.submit()
    assert await desk.find(since=began) == [first, second]


async def test_a_search_that_is_refused_finds_nothing_out(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(*(kind(times=None) for kind in NAMELESS))
    began = now(sandbox)
    await desk.submit({"r0": body()})
    for after in (0, 1):
        sandbox.faults.add(faults.RefusePoll(status=403, after=after))
        with pytest.raises((PermanentError, TemporaryError)):
            await desk.find(since=began)
