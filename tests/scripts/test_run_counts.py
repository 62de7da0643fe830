"""What runs and batches count for people: each request once, whatever is sent again, joined, moved or withdrawn."""

from __future__ import annotations

from batchling_client.views.inspection import Inspection
from batchling_client.wire.ids import new_batch_id, new_mailbox, new_run_id
from batchling_client.wire.keys import ProviderBatchId, RequestId, RunId
from batchling_client.wire.records.usage_and_failure import (
    FailedRow,
    Reason,
    SentAgain,
    Tokens,
    fields_of_sent_again,
)
from batchling_client.wire.states import BatchState, RowKind, Verdict

from .byhand import ByHand, ids, out, row

METERED = Tokens(n_input=10, n_cached=4, n_output=3).spelled()


async def counts(byhand: ByHand, run_id: RunId) -> dict[str, int]:
    """Return the counts of a run, without what is 0."""
    fields = await byhand.redis.execute_command("HGETALL", byhand.keys.run(run_id))
    return {name.decode(): int(n) for name, n in fields.items() if name.startswith(b"n_") and int(n)}


async def listed(byhand: ByHand, run_id: RunId) -> list[RequestId]:
    found = Inspection(byhand.redis, byhand.keys).request_ids_of(run_id)
    return [one async for some in found for one in some]


async def test_each_run_that_waits_counts_an_answer_once_however_often_it_is_delivered(
    byhand: ByHand,
) -> None:
    good, bad = ids(2)
    other, mailbox = new_run_id(), new_mailbox()
    batch_id = await byhand.in_state(BatchState.ENDED, [good, bad])
    await byhand.enqueue([row(good), row(bad)], into=new_batch_id(), run_id=other, mailbox=mailbox)
    token = await byhand.claimed(batch_id)
    failed = out(bad, RowKind.FAILURE, about="429 rate_limit_exceeded slow down")
    for _ in range(2):
        await byhand.deliver(
            batch_id, token, [out(good, about=METERED), failed], mailboxes=[byhand.mailbox, mailbox]
        )

    fates = {"n_requests": 2, "n_succeeded": 1, "n_failed": 1, "n_input": 10, "n_cached": 4, "n_output": 3}
    assert await counts(byhand, byhand.run_id) == fates
    assert await counts(byhand, other) == {**fates, "n_reused": 2}
    batch = await byhand.batch(batch_id)
    assert batch.tokens == Tokens(n_input=10, n_cached=4, n_output=3)


async def test_a_failure_is_counted_by_its_reason_and_listed_without_words(byhand: ByHand) -> None:
    one, other, odd = ids(3)
    batch_id = await byhand.in_state(BatchState.ENDED, [one, other, odd])
    about = "400 content_filter the text was refused"
    rows = [out(each, RowKind.FAILURE, about=about) for each in (one, other)]
    await byhand.deliver(
        batch_id, await byhand.claimed(batch_id), [*rows, out(odd, RowKind.FAILURE, about="\n")]
    )

    reasons = await byhand.redis.execute_command("HGETALL", byhand.keys.failures(batch_id))
    assert {Reason.decode(name): int(n) for name, n in reasons.items()} == {
        Reason(status=400, code="content_filter"): 2,
        Reason(status=0, code="unknown"): 1,
    }
    first, *_ = await byhand.redis.execute_command("LRANGE", byhand.keys.failed_rows(batch_id), 0, -1)
    assert FailedRow.decode(first) == FailedRow(
        request_id=one,
        attempt=1,
        reason=Reason(status=400, code="content_filter"),
    )


async def test_a_run_that_asks_again_counts_and_lists_a_request_once(byhand: ByHand) -> None:
    """In flight, and when it was answered meanwhile."""
    flying, answered = ids(2)
    await byhand.in_state(BatchState.SETTLED, [answered])
    await byhand.opened([flying])
    for _ in range(2):
        await byhand.enqueue([row(flying), row(answered)], into=new_batch_id(), repeats="11")

    assert await listed(byhand, byhand.run_id) == [answered, flying]
    counted = await counts(byhand, byhand.run_id)
    assert (counted["n_requests"], counted["n_succeeded"]) == (2, 1)


async def test_an_answer_of_an_earlier_run_is_counted_once_though_the_reply_was_lost(byhand: ByHand) -> None:
    [answered] = ids(1)
    await byhand.in_state(BatchState.SETTLED, [answered])
    later = new_run_id()
    for anew in (True, False):
        await byhand.enqueue([row(answered)], into=new_batch_id(), run_id=later, ask_failed_anew=anew)

    counted = await counts(byhand, later)
    assert (counted["n_requests"], counted["n_succeeded"]) == (1, 1)
    assert await listed(byhand, later) == [answered]


async def test_a_withdrawn_request_is_waited_for_no_more_until_it_is_asked_for_again(byhand: ByHand) -> None:
    kept, dropped = ids(2)
    batch_id = await byhand.opened([kept, dropped])
    await byhand.withdraw(dropped, batch_id)
    assert await counts(byhand, byhand.run_id) == {"n_requests": 2, "n_withdrawn": 1}
    members = await byhand.redis.execute_command("SMEMBERS", byhand.keys.run_withdrawn(byhand.run_id))
    assert members == {dropped.encode()}

    await byhand.enqueue([row(dropped)], into=batch_id)
    assert await counts(byhand, byhand.run_id) == {"n_requests": 3, "n_withdrawn": 1}


async def test_a_request_that_moved_on_is_counted_by_its_run_when_it_is_answered(byhand: ByHand) -> None:
    [one] = ids(1)
    source = await byhand.in_state(BatchState.ENDED, [one])
    target = new_batch_id()
    await byhand.requeue(source, await byhand.claimed(source), [row(one, attempt=2)], target=target)
    assert await counts(byhand, byhand.run_id) == {"n_requests": 1}
    await byhand.seal(target, await byhand.claimed(target))
    await byhand.deliver(target, await byhand.claimed(target), [out(one)])

    assert await counts(byhand, byhand.run_id) == {"n_requests": 1, "n_succeeded": 1}


async def test_a_batch_names_the_runs_that_wait_for_it_those_that_joined_and_those_that_moved_on(
    byhand: ByHand,
) -> None:
    [one] = ids(1)
    source = await byhand.in_state(BatchState.ENDED, [one])
    other = new_run_id()
    await byhand.enqueue([row(one)], into=new_batch_id(), run_id=other)
    target = new_batch_id()
    await byhand.requeue(source, await byhand.claimed(source), [row(one, attempt=2)], target=target)

    assert set((await byhand.batch(source)).runs) == {byhand.run_id, other}
    assert set((await byhand.batch(target)).runs) == {byhand.run_id, other}


async def test_a_batch_names_a_hundred_runs_and_says_that_there_are_more(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    runs = [new_run_id() for _ in range(120)]
    for run_id in [*runs, *runs]:
        await byhand.enqueue([row(one)], into=batch_id, run_id=run_id)

    batch = await byhand.batch(batch_id)
    assert batch.runs == (byhand.run_id, *runs[:99])
    assert batch.has_more_runs


async def test_requests_that_are_sent_again_are_counted_once_with_the_reason(byhand: ByHand) -> None:
    """For their runs, the batch, and the lane with its minute; a repeated call counts nothing twice."""
    lost = ids(3)
    source = await byhand.in_state(BatchState.ENDED, lost)
    token = await byhand.claimed(source)
    rows = [row(one, attempt=2) for one in lost]
    for _ in range(2):
        await byhand.requeue(source, token, rows, sent_again=SentAgain.LOST)

    assert (await byhand.batch(source)).sent_again == {SentAgain.LOST: 3}
    assert (await counts(byhand, byhand.run_id))["n_again_lost"] == 3
    lane = await byhand.redis.execute_command(
        "HMGET", byhand.keys.lane(byhand.lane_id), *fields_of_sent_again()
    )
    assert [n for n in lane if n] == [b"3"]


async def test_requests_that_were_not_sent_before_count_as_moved_alone(byhand: ByHand) -> None:
    [one] = ids(1)
    source = await byhand.in_state(BatchState.ENDED, [one])
    await byhand.requeue(source, await byhand.claimed(source), [row(one)])

    assert (await byhand.batch(source)).sent_again == {}
    assert await counts(byhand, byhand.run_id) == {"n_requests": 1}


async def test_a_second_batch_at_the_provider_counts_once_whoever_finds_it(byhand: ByHand) -> None:
    batch_id = await byhand.in_state(BatchState.SUBMITTED, ids(4))
    verdicts = [
        await byhand.scripts.surplus(batch_id, ProviderBatchId(one)) for one in ("twin", "twin", "other")
    ]

    assert verdicts == [Verdict.OK, Verdict.USED, Verdict.OK]
    assert (await byhand.batch(batch_id)).sent_again == {SentAgain.SURPLUS: 8}
    assert await byhand.scripts.surplus(new_batch_id(), ProviderBatchId("twin")) is Verdict.USED


async def test_a_damaged_run_costs_no_answer(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.in_state(BatchState.ENDED, [one])
    keys = byhand.keys
    foreign = [keys.run(byhand.run_id), keys.run_rows(byhand.run_id)]
    foreign += [keys.failures(batch_id), keys.failed_rows(batch_id)]
    for key in foreign:
        await byhand.redis.execute_command("SET", key, "foreign")
    failed = out(one, RowKind.FAILURE, about="400 x y")
    assert (await byhand.deliver(batch_id, await byhand.claimed(batch_id), [failed])).n_answered == 1
    await byhand.redis.execute_command("UNLINK", *foreign)
