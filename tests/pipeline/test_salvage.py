"""Never lost: whatever the result files hold or lack, every caller gets an answer or the provider's reason."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker.sandbox.world.faults import (
    BlankFileIds,
    BreakRows,
    EmptyFiles,
    ExpireBatch,
    FailRows,
    Fault,
    HideOutput,
    LateFileIds,
    LieInCounts,
    LoseRows,
    RefuseDownload,
    RepeatRows,
    SpoilRows,
    StickBatch,
    StrayRows,
    TruncateDownload,
    ZeroRows,
)
from tests.deployment import SLOW_MODEL, Deployment, in_turn
from tests.form import form_of
from tests.waiting import wait_until

ANSWER = '{"custom_id":"CUSTOM_ID","response":{"status_code":%s,"request_id":"q","body":%s},"error":null}'
NO_ANSWER = '{"custom_id":"CUSTOM_ID","response":null,"error":%s}'
CHOICES = '"choices":[{"index":0,"message":{"role":"assistant","content":"ok"}}]'
OTHER = ANSWER % (200, "{" + CHOICES + ',"other":1}')


def spoilt(*lines: str) -> SpoilRows:
    return SpoilRows(n=3, lines=lines)


def beside(*lines: str, file: str = "output") -> SpoilRows:
    return SpoilRows(n=3, lines=lines, stays=True, file="error" if file == "error" else "output")


AGAIN: dict[str, tuple[Fault, int]] = {
    "rows missing from both files": (LoseRows(n=7), 7),
    "all rows but one missing from both files": (LoseRows(n=39), 39),
    "result lines cut in half": (BreakRows(n=5), 5),
    "rows with status_code 0": (ZeroRows(n=4), 4),
    "rows failed with 500": (FailRows(n=6, status=500), 6),
    "rows failed with 429": (FailRows(n=6, status=429), 6),
    "half of the batch expired": (ExpireBatch(done=0.5), 20),
    "the whole batch expired": (ExpireBatch(done=0.0), 40),
    "NUL bytes for a line": (spoilt("\0\0\0\0"), 3),
    "a line that is not UTF-8": (spoilt('\xff\xfe{"custom_id"'), 3),
    "JSON but not an object": (spoilt("[1]", '"x"', "7", "null", "true"), 3),
    "custom_id null": (spoilt(OTHER.replace('"CUSTOM_ID"', "null")), 3),
    "custom_id a number": (spoilt(OTHER.replace('"CUSTOM_ID"', "12")), 3),
    "custom_id missing": (spoilt('{"response":{"status_code":200,"body":{}}}', "{}"), 3),
    "a line of 50 MB": (SpoilRows(n=1, lines=("A" * 50_000_000,)), 1),
    "neither answer nor error": (spoilt(NO_ANSWER % "null"), 3),
    "an error that is a text": (spoilt(NO_ANSWER % '"overloaded"'), 3),
    "an error that is a list": (spoilt(NO_ANSWER % '["a",{"b":1}]'), 3),
    "an error whose code is a number": (spoilt(NO_ANSWER % '{"code":5,"message":[1]}'), 3),
    "an error without a word": (spoilt(NO_ANSWER % "{}"), 3),
}
"""Damage, and how many rows are asked again."""

KEPT: dict[str, Fault] = {
    "duplicated rows": RepeatRows(n=5),
    "a second answer that differs": beside(OTHER),
    "a second line that failed": beside(ANSWER % (500, '{"error":{}}')),
    "a second line in the error file that failed": beside(ANSWER % (500, '{"error":{}}'), file="error"),
    "a second line in the error file that was refused": beside(ANSWER % (400, '{"error":{}}'), file="error"),
    "a second line that expired": beside(NO_ANSWER % '{"code":"batch_expired"}', file="error"),
    "rows nobody asked for": StrayRows(n=5),
    "rows nobody asked for, of any name": beside(OTHER.replace("CUSTOM_ID", "b" * 26), "{}"),
    "a custom_id of a megabyte": beside(OTHER.replace("CUSTOM_ID", "c" * 1_000_000)),
    "blank lines": beside("", "  ", "\r"),
    "a status spelt as a text": spoilt(
        ANSWER % ('"200"', '{"choices":[{"index":0,"message":{"role":"assistant","content":"ok"}}],"a":1}')
    ),
    "a status that is none": spoilt(ANSWER % ('"fine"', "{" + CHOICES + ',"a":1}')),
    "a status beyond HTTP": spoilt(ANSWER % (777, "{" + CHOICES + ',"a":1}')),
    "an answer that is not UTF-8": spoilt(ANSWER % (200, "{" + CHOICES + ',"a":"\xff"}')),
    "half of a surrogate pair": spoilt(
        ANSWER
        % (
            200,
            '{"choices":[{"index":0,"message":{"role":"assistant","content":"ok"}}],"text":"cut \\ud83d"}',
        )
    ),
    "NaN in an answer": spoilt(
        ANSWER % (200, '{"choices":[{"index":0,"message":{"role":"assistant","content":"ok"}}],"score":NaN}')
    ),
    "a byte order mark": spoilt("\xef\xbb\xbf" + OTHER),
    "answers with CRLF": spoilt(OTHER + "\r"),
    "an error file id of ''": BlankFileIds(),
    "an error file id of {}": BlankFileIds(value={}),
    "empty files": EmptyFiles(),
    "files that are hidden at first": HideOutput(seconds=0.5),
    "file ids that are shown late": LateFileIds(seconds=0.7),
    "a download cut in the middle": TruncateDownload(sent=0.5),
    "a download cut at once": TruncateDownload(sent=0.0),
    "a download refused 503": RefuseDownload(status=503),
    "counters that are null": LieInCounts(counts=None),
    "counters that are none": LieInCounts(counts={}),
    "counters of 0/0": LieInCounts(counts={"total": 0, "completed": 0, "failed": 0}),
    "more done than rows": LieInCounts(counts={"total": 3, "completed": 10**12, "failed": 0}),
    "counters below zero": LieInCounts(counts={"total": -40, "completed": -1, "failed": -7}),
    "counters of other types": LieInCounts(counts={"total": "40", "completed": 1.5, "failed": [7]}),
}
"""What costs no row a second attempt."""


NO_ANSWERS: dict[str, tuple[str, int, str]] = {
    "an answer in a list": ("[{" + CHOICES + "}]", 502, "batch_answer_unfit"),
    "a number": ("7", 502, "batch_answer_unfit"),
    "an empty object": ("{}", 502, "batch_answer_unfit"),
    "null": ("null", 502, "batch_answer_unfit"),
    "a text": ('"ok"', 502, "batch_answer_unfit"),
    "a list of validation errors": ('{"detail":[{"loc":["n"],"msg":"is 7"}]}', 422, "provider"),
    "a sentence": ('{"message":"is 7"}', 502, "batch_answer_unfit"),
}
"""The body of a row with status 200, and what its caller gets."""


@pytest.mark.parametrize(("body", "provider"), in_turn(NO_ANSWERS))
async def test_a_row_that_is_counted_as_done_and_holds_no_answer_is_paid_for_once(
    deployment: Deployment, provider: str, body: str
) -> None:
    said, status, origin = NO_ANSWERS[body]
    deployment.sandbox.faults.add(spoilt(ANSWER % (200, said)))
    deployment.fork()
    ids = await deployment.ask(40, provider=provider)

    results = await deployment.answered(ids)

    assert Counter((result.status, result.origin) for result in results) == {
        (200, "provider"): 37,
        (status, origin): 3,
    }
    assert all(json.loads(result.body)["error"]["message"] for result in results if result.status != 200)
    [batch] = await deployment.settled()
    assert (batch.n_requests, batch.n_succeeded, batch.n_failed) == (40, 37, 3)
    assert deployment.billed() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize(("damage", "provider"), in_turn(AGAIN))
async def test_damaged_results_are_salvaged_and_only_the_rest_is_sent_again(
    deployment: Deployment, provider: str, damage: str
) -> None:
    fault, n_again = AGAIN[damage]
    deployment.sandbox.faults.add(fault)
    deployment.fork()
    ids = await deployment.ask(40, provider=provider)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    batches = await deployment.settled()
    assert [batch.n_requests for batch in batches] == [40, n_again]
    assert sum(batch.n_succeeded for batch in batches) == 40
    assert await deployment.told() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize(("oddity", "provider"), in_turn(KEPT))
async def test_odd_results_cost_no_row_a_second_attempt(
    deployment: Deployment, provider: str, oddity: str
) -> None:
    deployment.sandbox.faults.add(KEPT[oddity])
    deployment.fork()
    ids = await deployment.ask(40, provider=provider)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    [batch] = await deployment.settled()
    assert (batch.n_succeeded, batch.n_failed, batch.n_requeued) == (40, 0, 0)
    assert await deployment.told() == dict.fromkeys(ids, 1)
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_attempts_are_counted_by_the_row(deployment: Deployment, provider: str) -> None:
    deployment.fork()
    prompts = ["fine", "fault:500x1", "fault:429x2", "fault:503", "fault:missingx1", "fault:zero"]
    ids = await deployment.ask(6, provider=provider, prompts=prompts)

    results = await deployment.answered(ids)

    assert [result.status for result in results] == [200, 200, 200, 503, 200, 503]
    assert results[5].origin == "batch_row_lost"
    batches = await deployment.settled()
    assert [batch.n_requests for batch in batches] == [6, 5, 3]
    assert [deployment.billed()[one] for one in ids] == [1, 2, 3, 3, 2, 3]


async def test_an_answer_in_another_batch_s_results_is_not_taken(
    deployment: Deployment, provider: str
) -> None:
    deployment.fork()
    mine = await deployment.ask(2, provider=provider, model=SLOW_MODEL)
    stray = OTHER.replace("CUSTOM_ID", mine[0])
    deployment.sandbox.faults.add(SpoilRows(lines=(stray,), stays=True, model=form_of(provider).model))
    theirs = await deployment.ask(2, provider=provider)

    results = await deployment.answered([*mine, *theirs])

    assert all(b'"other"' not in result.body for result in results)
    assert sum(batch.n_succeeded for batch in await deployment.settled()) == 4


async def test_a_failed_row_comes_back_as_it_is_and_is_not_sent_again(
    deployment: Deployment, provider: str
) -> None:
    deployment.fork()
    ids = await deployment.ask(3, provider=provider, prompts=["fine", "fault:400", "fine"])

    results = await deployment.answered(ids)

    assert [result.status for result in results] == [200, 400, 200]
    assert "error" in json.loads(results[1].body)
    [batch] = await deployment.settled()
    assert (batch.n_succeeded, batch.n_failed, batch.state) == (2, 1, BatchState.SETTLED)


async def test_a_row_that_fails_three_times_is_answered_with_its_last_error(
    deployment: Deployment, provider: str
) -> None:
    deployment.sandbox.faults.add(FailRows(n=1, status=503, times=3))
    deployment.fork()
    ids = await deployment.ask(5, provider=provider)

    results = await deployment.answered(ids)

    assert sorted(result.status for result in results) == [200, 200, 200, 200, 503]
    batches = await deployment.settled()
    assert [batch.n_requests for batch in batches] == [5, 1, 1]


async def test_a_cancelled_batch_tells_its_callers(deployment: Deployment, provider: str) -> None:
    ids = await deployment.ask(4, provider=provider, linger_ms=60_000)
    [batch] = await deployment.batches()
    verdict = await deployment.scripts.cancel(
        batch_id=batch.batch_id, lane_id=batch.lane_id, ending=b"{}", error="cancelled by a person"
    )
    deployment.fork()

    results = await deployment.answered(ids)

    assert verdict == "OK"
    assert {result.origin for result in results} == {"batch_cancelled"}
    assert {json.loads(result.body)["error"]["message"] for result in results} == {
        f"Batch {batch.batch_id} was cancelled by a person."
    }
    [batch] = await deployment.settled()
    assert batch.state is BatchState.CANCELLED
    assert deployment.billed() == {}


async def test_finished_rows_of_a_cancelled_batch_are_delivered_and_the_others_fail(
    deployment: Deployment, provider: str
) -> None:
    deployment.sandbox.faults.add(
        FailRows(n=30, status=500), StickBatch(state="in_progress", done=0.5, times=None)
    )
    deployment.fork()
    ids = await deployment.ask(60, provider=provider, model=SLOW_MODEL)

    async def half_done() -> bool:
        return any(batch.n_done >= 5 for batch in await deployment.batches())

    await wait_until(half_done, description="some rows are done", within_s=20)
    [batch] = await deployment.batches()
    await deployment.scripts.cancel(
        batch_id=batch.batch_id, lane_id=batch.lane_id, ending=b"{}", error="by a person"
    )

    results = await deployment.answered(ids)

    done = {one for one, result in zip(ids, results, strict=True) if result.status == 200}
    rest = {result.origin for result in results if result.status != 200}
    assert 0 < len(done) < 60
    assert rest == {"batch_cancelled"}
    assert set(deployment.sandbox.ledger().billed()) == done
    [batch] = await deployment.settled()
    assert batch.state is BatchState.CANCELLED
    assert await deployment.told() == dict.fromkeys(ids, 1)


async def test_a_download_torn_again_and_again_leaves_no_gap_and_tells_nothing_twice(
    deployment: Deployment, provider: str
) -> None:
    deployment.sandbox.faults.add(TruncateDownload(sent=0.3), TruncateDownload(sent=0.8))
    deployment.env["BATCHLING_LEASE_SECONDS"] = "0.3"
    doomed = deployment.fork(crash_at="collect.chunk")
    ids = await deployment.ask(2_000, provider=provider)
    await deployment.fork_died(doomed)
    second = deployment.fork()

    async def some() -> bool:
        return sum((await deployment.told()).values()) > 200

    await wait_until(some, description="some requests are answered", within_s=20)
    deployment.kill_fork(second)
    deployment.fork()

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    [batch] = await deployment.settled()
    assert (batch.n_succeeded, batch.n_requeued) == (2_000, 0)
    assert await deployment.told() == dict.fromkeys(ids, 1)
    assert deployment.billed() == dict.fromkeys(ids, 1)
