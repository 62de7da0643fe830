"""Intend, uploaded, arm, submitted: a record stands before each call that could be paid for, and one id wins."""

from __future__ import annotations

import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.records.batch import EarlyRead
from batchling_client.wire.states import BatchState, Verdict
from batchling_client.wire.stubs import Fsync

from ..redis_server import skip_without_waitaof
from .byhand import ByHand, ids


async def test_the_first_label_stays_in_force(byhand: ByHand) -> None:
    batch_id, token = await byhand.in_submission(ids(1))
    assert await byhand.scripts.intend(batch_id=batch_id, token=token, label="other") == "label"
    token = await byhand.claimed(batch_id)
    assert await byhand.scripts.intend(batch_id=batch_id, token=token, label="third") == "label"
    assert (await byhand.batch(batch_id)).state is BatchState.SUBMITTING


async def test_intent_and_upload_keep_the_claim(byhand: ByHand) -> None:
    batch_id, token = await byhand.in_submission(ids(1))
    scripts = byhand.scripts
    assert (
        await scripts.uploaded(batch_id=batch_id, token=token, input_file_id="file-1", n_lines=1)
        is Verdict.OK
    )
    assert await scripts.arm(batch_id=batch_id, token=token) is Verdict.OK
    assert await byhand.claims(batch_id) == []
    batch = await byhand.batch(batch_id)
    assert (batch.input_file_id, batch.n_lines) == ("file-1", 1)


async def test_an_armed_create_is_remembered_until_it_is_surely_refused(byhand: ByHand) -> None:
    batch_id, token = await byhand.in_submission(ids(1))
    assert (await byhand.batch(batch_id)).create_at is None
    await byhand.scripts.arm(batch_id=batch_id, token=token)

    await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=0, error="lost")
    assert (await byhand.batch(batch_id)).create_at is not None

    token = await byhand.claimed(batch_id)
    await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=0, error="429", create_refused=True)
    assert (await byhand.batch(batch_id)).create_at is None


async def test_a_submission_that_came_to_nothing_leaves_requests_that_can_be_withdrawn(
    byhand: ByHand,
) -> None:
    [one, other] = ids(2)
    batch_id, token = await byhand.in_submission([one, other])
    assert await byhand.withdraw(one, batch_id) is Verdict.TOO_LATE
    token = await byhand.claimed(batch_id)
    await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=0, error="no upload")
    assert (await byhand.batch(batch_id)).state is BatchState.SEALED
    assert await byhand.withdraw(other, batch_id) is Verdict.OK


@pytest.mark.parametrize("begun", ["stored", "armed", "refused", "doubted", "opened elsewhere"])
async def test_a_submission_that_may_have_come_to_something_stays_one(byhand: ByHand, begun: str) -> None:
    batch_id, token = await byhand.in_submission(ids(1))
    if begun == "stored":
        await byhand.scripts.uploaded(batch_id=batch_id, token=token, input_file_id="file-1", n_lines=1)
    if begun in ("armed", "refused"):
        await byhand.scripts.arm(batch_id=batch_id, token=token)
    if begun == "doubted":
        await byhand.scripts.arm(batch_id=batch_id, token=token, doubted=True)
    if begun == "opened elsewhere":
        await byhand.opened_elsewhere(batch_id)
    refused = begun == "refused"
    await byhand.scripts.release(
        batch_id=batch_id, token=token, delay_s=0, error="no", create_refused=refused
    )
    assert (await byhand.batch(batch_id)).state is BatchState.SUBMITTING


async def test_an_intent_counts_as_on_disk_only_when_redis_says_so(alone: ByHand) -> None:
    skip_without_waitaof()
    soon = Fsync(replicas=0, within_ms=100)
    batch_id, token = await alone.in_submission(ids(1))
    verdicts = []
    for settings in (
        ("appendonly", "no"),
        ("appendfsync", "always"),
        ("appendonly", "yes"),
        ("appendfsync", "no"),
    ):
        await alone.redis.execute_command("CONFIG", "SET", *settings)
        await alone.redis.execute_command("SCRIPT", "FLUSH")
        if settings == ("appendonly", "yes"):
            await alone.redis.execute_command("WAITAOF", 1, 0, 10_000)
        # A busy disk may take long to say yes; the others say no, or nothing.
        fsync = Fsync(replicas=0, within_ms=10_000) if settings == ("appendonly", "yes") else soon
        verdicts.append(await alone.scripts.arm(batch_id=batch_id, token=token, fsync=fsync))
    missing = Verdict.NOT_ON_DISK
    assert verdicts == [missing, missing, Verdict.OK, missing]
    assert (await alone.batch(batch_id)).create_at is not None

    no_replica = Fsync(replicas=1, within_ms=100)
    await alone.redis.execute_command("CONFIG", "SET", "appendfsync", "always")
    assert await alone.scripts.arm(batch_id=batch_id, token=token, fsync=no_replica) is missing
    assert await alone.scripts.arm(batch_id=batch_id, token=token - 1, fsync=soon) is Verdict.STALE


async def test_a_batch_knows_under_which_run_of_redis_its_creates_are_known(byhand: ByHand) -> None:
    batch_id, token = await byhand.in_submission(ids(1))
    run_id = (await byhand.redis.info("server"))["run_id"]
    assert (await byhand.batch(batch_id)).server == run_id

    await byhand.redis.hset(byhand.keys.batch(batch_id), "server", "another")
    await byhand.scripts.arm(batch_id=batch_id, token=token)

    assert (await byhand.batch(batch_id)).server == run_id


async def test_the_second_creator_learns_the_id_in_force(byhand: ByHand) -> None:
    batch_id, slow = await byhand.in_submission(ids(1))
    fast = await byhand.claimed(batch_id)
    await byhand.begin(batch_id, fast)
    await byhand.scripts.arm(batch_id=batch_id, token=fast)

    assert await byhand.submitted(batch_id, slow, "surplus") == (Verdict.STALE, "")
    assert await byhand.submitted(batch_id, fast, "kept") == (Verdict.OK, "")
    assert await byhand.submitted(batch_id, slow, "surplus") == (Verdict.STALE, "kept")
    assert (await byhand.batch(batch_id)).provider_batch_id == "kept"


async def test_errors_are_counted_in_a_row_and_a_success_ends_the_row(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(1))
    for n in (1, 2):
        token = await byhand.claimed(batch_id)
        await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=0, error="503")
        batch = await byhand.batch(batch_id)
        assert (batch.n_stumbles, batch.error) == (n, "503")

    await byhand.progress(batch_id, await byhand.claimed(batch_id))
    batch = await byhand.batch(batch_id)
    assert (batch.n_stumbles, batch.error) == (0, "")


async def test_how_far_early_results_were_read_is_kept_from_look_to_look(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(1))
    assert (await byhand.batch(batch_id)).early == EarlyRead()
    read = EarlyRead(cursor="row 7", n_done=8)
    await byhand.progress(batch_id, await byhand.claimed(batch_id), early=read)
    await byhand.progress(batch_id, await byhand.claimed(batch_id), early=None)
    assert (await byhand.batch(batch_id)).early == read


async def test_a_damaged_word_on_early_results_has_them_read_from_the_start(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(1))
    key = byhand.keys.batch(batch_id)
    for damaged in (b"\xff", b"[1]", b'{"cursor":7}', b"{"):
        await byhand.redis.execute_command("HSET", key, "early", damaged)
        assert (await byhand.batch(batch_id)).early == EarlyRead()


async def test_handing_back_without_an_error_does_not_count_as_a_stumble(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(1))
    token = await byhand.claimed(batch_id)
    await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=0)
    assert (await byhand.batch(batch_id)).n_stumbles == 0
    assert len(await byhand.claims(batch_id)) == 1


async def test_a_batch_that_ended_may_end_anew_and_is_collected_anew(byhand: ByHand) -> None:
    batch_id = await byhand.over(ids(1))
    await byhand.scripts.collected(batch_id=batch_id, token=await byhand.claimed(batch_id))
    assert (await byhand.batch(batch_id)).collected_at is not None

    await byhand.ended(batch_id, await byhand.claimed(batch_id), error="the results are gone")

    batch = await byhand.batch(batch_id)
    assert (batch.collected_at, batch.error) == (None, "the results are gone")


async def test_a_batch_remembers_the_account_it_was_made_under(byhand: ByHand) -> None:
    batch_id, token = await byhand.in_submission(ids(1))
    scripts = byhand.scripts
    seen = [(await byhand.batch(batch_id)).account]
    await scripts.uploaded(batch_id=batch_id, token=token, input_file_id="f", n_lines=1, account="one")
    seen.append((await byhand.batch(batch_id)).account)
    await scripts.arm(batch_id=batch_id, token=token, account="two")
    seen.append((await byhand.batch(batch_id)).account)
    await scripts.submitted(
        batch_id=batch_id, token=token, provider_batch_id=ProviderBatchId("pb"), delay_s=0, account="three"
    )
    seen.append((await byhand.batch(batch_id)).account)
    assert seen == ["", "one", "two", "three"]


async def test_the_file_before_the_last_one_is_remembered(byhand: ByHand) -> None:
    batch_id, token = await byhand.in_submission(ids(1))
    for input_file_id, former in (("f1", ""), ("f1", ""), ("f2", "f1"), ("f2", "f1")):
        await byhand.scripts.uploaded(batch_id=batch_id, token=token, input_file_id=input_file_id, n_lines=1)
        batch = await byhand.batch(batch_id)
        assert (batch.input_file_id, batch.former_file_id) == (input_file_id, former)
