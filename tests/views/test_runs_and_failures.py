"""Runs, failures and the pace: each counts its own and nothing else, also where records are damaged or missing."""

from __future__ import annotations

from batchling_client.views.batch_detail import detail_of
from batchling_client.views.batch_list import BatchLists
from batchling_client.views.failures import failures_of_batch, failures_of_run
from batchling_client.views.overview import overview_of
from batchling_client.views.run_view import RunStatus, run_view
from batchling_client.views.sent_again import in_words
from batchling_client.wire.ids import new_batch_id, new_run_id
from batchling_client.wire.keys import BatchId, RequestId, RunId
from batchling_client.wire.records.usage_and_failure import SentAgain
from batchling_client.wire.states import BatchState, RowKind
from tests.scripts.byhand import ByHand, ids, out, row

FILTERED = "400 content_filter the text was refused"


async def status_of(lists: BatchLists, run_id: RunId) -> RunStatus:
    record = await lists.inspection.run(run_id)
    assert record is not None
    return run_view(record).status


async def ended(byhand: ByHand, request_ids: list[RequestId], run_id: RunId) -> BatchId:
    """A batch that has ended, in which another run asked for the same requests too."""
    batch_id = await byhand.in_state(BatchState.ENDED, request_ids)
    await byhand.enqueue([row(one) for one in request_ids], into=new_batch_id(), run_id=run_id)
    return batch_id


async def test_a_run_goes_from_running_to_done_as_its_answers_come(byhand: ByHand, lists: BatchLists) -> None:
    good, bad = ids(2)
    batch_id = await byhand.in_state(BatchState.ENDED, [good, bad])
    assert await status_of(lists, byhand.run_id) is RunStatus.RUNNING
    await byhand.deliver(batch_id, await byhand.claimed(batch_id), [out(good)])
    assert await status_of(lists, byhand.run_id) is RunStatus.RUNNING
    await byhand.deliver(
        batch_id, await byhand.claimed(batch_id), [out(bad, RowKind.FAILURE, about=FILTERED)]
    )
    assert await status_of(lists, byhand.run_id) is RunStatus.DONE_WITH_FAILURES


async def test_a_run_whose_requests_were_all_withdrawn_waits_for_nothing(
    byhand: ByHand, lists: BatchLists
) -> None:
    [one] = ids(1)
    await byhand.withdraw(one, await byhand.opened([one]))

    assert await status_of(lists, byhand.run_id) is RunStatus.WITHDRAWN


async def test_a_run_of_a_release_that_did_not_count_is_not_called_waiting(
    byhand: ByHand, lists: BatchLists
) -> None:
    await byhand.opened(ids(1))
    await byhand.redis.execute_command("UNLINK", byhand.keys.run_rows(byhand.run_id))

    assert await status_of(lists, byhand.run_id) is RunStatus.UNKNOWN


async def test_the_failures_of_a_run_leave_out_those_of_others_in_its_batches(
    byhand: ByHand, lists: BatchLists
) -> None:
    shared, foreign = ids(2)
    batch_id = await byhand.in_state(BatchState.ENDED, [shared, foreign])
    other = new_run_id()
    await byhand.enqueue([row(shared)], into=new_batch_id(), run_id=other)
    rows = [out(one, RowKind.FAILURE, about=FILTERED) for one in (shared, foreign)]
    await byhand.deliver(batch_id, await byhand.claimed(batch_id), rows)

    record = await lists.inspection.run(other)
    assert record is not None
    found = await failures_of_run(byhand.redis, byhand.keys, record)
    assert [one.request_id for one in found.requests] == [shared]
    assert [(one.status, one.code, one.n_requests) for one in found.reasons] == [(400, "content_filter", 1)]
    assert (found.n_failed, found.n_unlisted) == (1, 0)


async def test_reasons_are_counted_beyond_the_failures_that_are_listed(
    byhand: ByHand, lists: BatchLists
) -> None:
    some = ids(3)
    batch_id = await byhand.in_state(BatchState.ENDED, some)
    rows = [out(one, RowKind.FAILURE, about=FILTERED) for one in some]
    await byhand.deliver(batch_id, await byhand.claimed(batch_id), rows)
    await byhand.redis.execute_command("LTRIM", byhand.keys.failed_rows(batch_id), 0, 0)

    found = await failures_of_batch(byhand.redis, byhand.keys, await byhand.batch(batch_id))
    assert [one.n_requests for one in found.reasons] == [3]
    assert (found.n_failed, found.n_unlisted, len(found.requests)) == (3, 2, 1)


async def test_a_foreign_line_among_the_failures_hides_no_other(byhand: ByHand, lists: BatchLists) -> None:
    [one] = ids(1)
    batch_id = await byhand.in_state(BatchState.ENDED, [one])
    await byhand.deliver(
        batch_id, await byhand.claimed(batch_id), [out(one, RowKind.FAILURE, about=FILTERED)]
    )
    for foreign in (b"\xff\xfe", b"", b"a b c", b"a 1 x y z"):
        await byhand.redis.execute_command("LPUSH", byhand.keys.failed_rows(batch_id), foreign)
    await byhand.redis.execute_command("HSET", byhand.keys.failures(batch_id), b"\xff", b"many")

    found = await failures_of_batch(byhand.redis, byhand.keys, await byhand.batch(batch_id))
    assert [each.request_id for each in found.requests] == [one]
    assert [each.n_requests for each in found.reasons] == [1]


async def test_the_pace_counts_what_came_in_once_and_outlives_no_day(
    byhand: ByHand, lists: BatchLists
) -> None:
    good, bad = ids(2)
    batch_id = await byhand.in_state(BatchState.ENDED, [good, bad])
    rows = [out(good, about="n_input=7 n_output=2"), out(bad, RowKind.FAILURE, about=FILTERED)]
    for _ in range(2):
        await byhand.deliver(batch_id, await byhand.claimed(batch_id), rows)

    now, _ = await lists.clock_and_lag()
    pace = await lists.pace(now)
    assert (pace.n_answered, pace.n_failed, pace.n_input, pace.n_output) == (2, 1, 7, 2)


async def test_an_id_is_found_by_its_beginning_however_many_batches_are_newer(
    byhand: ByHand, lists: BatchLists
) -> None:
    batch_id = await byhand.sealed(ids(1))
    newer = {f"b{n:09}zz": 10**15 + n for n in range(6000)}
    pairs = [part for name, at in newer.items() for part in (at, name)]
    await byhand.redis.execute_command("ZADD", byhand.keys.batches, *pairs)
    await byhand.redis.execute_command("ZADD", byhand.keys.runs, *pairs)

    for n_letters in (5, 10, 14):
        assert await lists.inspection.ids_beginning_with(batch_id[:n_letters]) == ([batch_id], [])
    assert await lists.inspection.ids_beginning_with(byhand.run_id[:12]) == ([], [byhand.run_id])
    assert await lists.inspection.ids_beginning_with("b-none") == ([], [])
    await byhand.redis.execute_command("ZREM", byhand.keys.batches, *newer)
    await byhand.redis.execute_command("ZREM", byhand.keys.runs, *newer)


async def test_a_batch_shows_the_runs_that_wait_for_it_before_those_that_do_not(
    byhand: ByHand, lists: BatchLists
) -> None:
    one, other = ids(2)
    batch_id = await byhand.opened([one])
    early, late = byhand.run_id, new_run_id()
    await byhand.enqueue([row(one)], into=batch_id, run_id=late)
    await byhand.enqueue([row(other)], into=batch_id, run_id=late)
    gone = new_run_id()
    await byhand.enqueue([row(one)], into=batch_id, run_id=gone)
    await byhand.redis.execute_command("UNLINK", byhand.keys.run(gone))

    batch = await lists.inspection.batch(batch_id)
    assert batch is not None
    detail = await detail_of(lists, batch)
    assert detail is not None
    assert [(one.run_id, one.n_waiting) for one in detail.runs] == [(late, 2), (early, 1)]


async def test_what_may_be_paid_twice_is_told_from_what_was_only_sent_again(
    byhand: ByHand, lists: BatchLists
) -> None:
    for reason, n in ((SentAgain.EXPIRED, 3), (SentAgain.MISSING, 2)):
        some = ids(n)
        source = await byhand.in_state(BatchState.ENDED, some)
        again = [row(one, attempt=2) for one in some]
        token, target = await byhand.claimed(source), new_batch_id()
        await byhand.requeue(source, token, again, target=target, sent_again=reason)
        await byhand.seal(target, await byhand.claimed(target))

    [run] = [run_view(one) for one in await lists.inspection.runs(10)]
    seen = await overview_of(lists, namespace="test", redis_at="here")
    assert (run.n_sent_again, run.n_may_be_paid_twice) == (5, 2)
    assert (seen.n_sent_again, seen.n_may_be_paid_twice) == (5, 2)
    assert in_words(seen.sent_again) == ("5 requests sent again (3 expired, 2 missing): 2 may be paid twice")
