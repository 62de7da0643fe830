"""What the pipeline relies on, of every registered provider, over HTTP and with the adapter that ships."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Awaitable, Collection

import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.states import Outcome
from batchling_worker.decisions import blame
from batchling_worker.errors import (
    FileNotReady,
    Limited,
    MaybeDone,
    PermanentError,
    TemporaryError,
    WorkerError,
)
from batchling_worker.pipeline.answer_check import checked
from batchling_worker.provider import Ended, NotFound, Running, SpentFiles
from batchling_worker.sandbox import Limits, Sandbox
from batchling_worker.sandbox.world import faults
from tests.form import Ability

from .desk import Desk, codes, said

LONG_S = 60.0


OWN_STORAGE = frozenset({"bedrock", "vertex"})
"""Their files lie in the user's own bucket."""
KEPT = frozenset({"doubleword"})
"""With a file its batch would be deleted too: files stay until they expire."""
NO_STORAGE = OWN_STORAGE | {"anthropic", "sference", "xai"}
"""The others of these take the requests in the create call, or in calls for it, and keep no files."""


def unable_of(sandbox: Sandbox, name: str) -> Collection[type[faults.Fault]]:
    return next(one.traits.unable for one in sandbox.emulators if one.name == name)


def since(sandbox: Sandbox) -> dt.datetime:
    return dt.datetime.fromtimestamp(sandbox.clock.now(), dt.UTC)


async def test_a_batch_runs_and_every_row_is_answered(desk: Desk, sandbox: Sandbox) -> None:
    batch = await desk.submit(desk.requests(40))
    sandbox.clock.advance(1.0)
    assert isinstance(await desk.look(batch), Running)
    sandbox.clock.advance(LONG_S)
    done = await desk.ended(batch)
    assert done.outcome is Outcome.COMPLETED
    # Some tell no counts.
    assert (done.n_done, done.n_total) in ((40, 40), (0, 0))
    assert done.ending.complaints == ()
    answers = await desk.answers_by_id(done.ending)
    assert set(answers) == set(desk.requests(40))
    assert {answer.status for answer in answers.values()} == {200}
    assert all(checked(answer, desk.form.endpoint) is answer for answer in answers.values())
    for number in range(40):
        assert f"Question {number}?" in desk.form.text(said(answers[f"r{number}"]))


async def test_the_order_of_results_does_not_matter(desk: Desk, sandbox: Sandbox) -> None:
    ordered: list[list[str]] = []
    for fault in (None, faults.KeepOrder()):
        if fault is not None:
            sandbox.faults.add(fault)
        batch = await desk.submit(desk.requests(30), label=f"batchling-test-{len(ordered)}")
        sandbox.clock.advance(LONG_S)
        answers = await desk.answers((await desk.ended(batch)).ending)
        ordered.append([answer.custom_id for answer in answers])
    assert ordered[0] != ordered[1]
    assert sorted(ordered[0]) == sorted(ordered[1]) == sorted(desk.requests(30))


@pytest.mark.needs(Ability.ROW_STATUSES)
async def test_rows_that_failed_come_with_their_status_and_body(desk: Desk, sandbox: Sandbox) -> None:
    batch = await desk.submit(
        {
            "good": desk.body(),
            "bad": desk.body("fault:400"),
            "busy": desk.body("fault:429"),
            "sick": desk.body("fault:503"),
        }
    )
    sandbox.clock.advance(LONG_S)
    done = await desk.ended(batch)
    answers = await desk.answers_by_id(done.ending)
    assert {one: answer.status for one, answer in answers.items()} == {
        "good": 200,
        "bad": 400,
        "busy": 429,
        "sick": 503,
    }
    assert {answer.origin for answer in answers.values()} == {"provider"}
    assert b"fail" in answers["bad"].body


async def test_a_batch_whose_rows_all_failed_has_its_results_too(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(faults.FailRows(n=None, status=400))
    batch = await desk.submit(desk.requests(3))
    sandbox.clock.advance(LONG_S)
    statuses = [answer.status for answer in await desk.answers((await desk.ended(batch)).ending)]
    if desk.form.can(Ability.ROW_STATUSES):
        assert statuses == [400, 400, 400]
    assert len(statuses) == 3
    assert all(400 <= status < 600 for status in statuses)


async def test_rows_that_a_provider_loses_breaks_or_repeats_cost_no_other(
    desk: Desk, sandbox: Sandbox
) -> None:
    sandbox.faults.add(
        faults.LoseRows(n=1),
        faults.BreakRows(n=2),
        faults.RepeatRows(n=3),
        faults.StrayRows(n=1),
        faults.ZeroRows(n=4),
    )
    batch = await desk.submit(desk.requests(20))
    sandbox.clock.advance(LONG_S)
    answers = await desk.answers((await desk.ended(batch)).ending)
    ours = {answer.custom_id: answer for answer in answers if not answer.custom_id.startswith("stray")}
    assert len(ours) == 17
    assert len(answers) == 17 + 3 + 1
    lost = [answer for answer in ours.values() if answer.status != 200]
    assert [(answer.status, answer.origin) for answer in lost] == [(503, "batch_row_lost")] * 4


@pytest.mark.needs(Ability.RESULT_FILES)
@pytest.mark.parametrize("fault", [faults.BlankFileIds(), faults.EmptyFiles()])
async def test_a_result_file_that_is_none_is_not_read(
    desk: Desk, sandbox: Sandbox, fault: faults.Fault
) -> None:
    sandbox.faults.add(fault)
    batch = await desk.submit(desk.requests(3))
    sandbox.clock.advance(LONG_S)
    assert len(await desk.answers_by_id((await desk.ended(batch)).ending)) == 3


@pytest.mark.needs(Ability.RESULT_FILES)
async def test_results_that_are_shown_late_are_waited_for(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(faults.LateFileIds(seconds=5.0))
    batch = await desk.submit(desk.requests(3))
    sandbox.clock.advance(3.0)
    assert isinstance(await desk.look(batch), Running)
    sandbox.clock.advance(5.0)
    assert len(await desk.answers_by_id((await desk.ended(batch)).ending)) == 3


@pytest.mark.needs(Ability.RESULT_FILES)
async def test_results_that_cannot_be_read_yet_are_read_later(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(faults.HideOutput(seconds=5.0))
    batch = await desk.submit(desk.requests(3))
    sandbox.clock.advance(3.0)
    ending = (await desk.ended(batch)).ending
    with pytest.raises(TemporaryError):
        await desk.answers(ending)
    sandbox.clock.advance(5.0)
    sandbox.faults.add(
        faults.TruncateDownload(sent=0.4), faults.RefuseDownload(status=503, retry_after="9", after=1)
    )
    # The rest of a broken download is asked for again, and the error is the refusal of that call.
    with pytest.raises(TemporaryError) as caught:
        await desk.answers(ending)
    assert caught.value.delay_s == 9.0
    assert len(await desk.answers_by_id(ending)) == 3


@pytest.mark.parametrize(
    "fault",
    [
        faults.TruncateDownload(sent=0.0),
        faults.TruncateDownload(sent=0.4),
        faults.RefuseDownload(status=429, retry_after="9"),
        faults.RefuseDownload(status=500),
    ],
    ids=repr,
)
async def test_results_that_break_off_or_are_refused_are_read_in_full_the_next_time(
    desk: Desk, sandbox: Sandbox, fault: faults.Fault
) -> None:
    batch = await desk.submit(desk.requests(3))
    sandbox.clock.advance(LONG_S)
    ending = (await desk.ended(batch)).ending
    sandbox.faults.add(fault)
    with contextlib.suppress(TemporaryError):
        assert len(await desk.answers(ending)) == 3, "what breaks off is taken up again, or told"
    assert sandbox.faults.n_struck(type(fault)) == 1
    assert len(await desk.answers_by_id(ending)) == 3


@pytest.mark.parametrize("status", [404, 500])
async def test_an_unreadable_second_result_file_is_an_error_and_is_read_later(
    desk: Desk, sandbox: Sandbox, status: int
) -> None:
    if faults.RefuseErrorFile in unable_of(sandbox, desk.provider.facts.name):
        return
    sandbox.faults.add(faults.RefuseErrorFile(status=status, seconds=LONG_S), faults.FailRows(status=400))
    batch = await desk.submit(desk.requests(4))
    sandbox.clock.advance(LONG_S / 2)
    ending = (await desk.ended(batch)).ending
    with pytest.raises(WorkerError):
        await desk.answers(ending)
    sandbox.clock.advance(LONG_S)
    assert len(await desk.answers_by_id(ending)) == 4


async def test_a_full_file_storage_is_reported_and_has_room_again_later(desk: Desk, sandbox: Sandbox) -> None:
    name = desk.provider.facts.name
    if name in NO_STORAGE:
        assert not desk.form.can(Ability.INPUT_FILE) or name in OWN_STORAGE
        return
    sandbox.limits = Limits(min_rows=1, max_stored_bytes=2 * len(desk.lines(desk.requests(3)).getvalue()))
    first = await desk.upload(desk.requests(3))
    with pytest.raises(WorkerError) as caught:
        await desk.upload(desk.requests(4), "batchling-test-2")
    assert "quota" in str(caught.value)
    if isinstance(caught.value, TemporaryError):
        assert caught.value.delay_s is None or caught.value.delay_s <= 3600.0, "nobody waits for ever"
    spent = SpentFiles(
        endpoint=desk.form.endpoint, label="batchling-test-1", provider_batch_id=None, inputs=(first,)
    )
    await desk.provider.delete(desk.account, spent)
    if name in KEPT:
        sandbox.clock.advance(31 * 86_400.0)
    assert await desk.upload(desk.requests(4), "batchling-test-3")


@pytest.mark.needs(Ability.UPLOAD)
@pytest.mark.parametrize(
    "fault",
    [
        faults.RefuseUpload(status=429, retry_after="9"),
        faults.RefuseUpload(status=500),
        faults.DropUploadAnswer(),
    ],
    ids=repr,
)
async def test_an_upload_that_is_refused_or_unanswered_is_a_temporary_trouble(
    desk: Desk, sandbox: Sandbox, fault: faults.Fault
) -> None:
    sandbox.faults.add(fault)
    with pytest.raises(TemporaryError):
        await desk.upload()
    assert sandbox.faults.n_struck(type(fault)) == 1
    batch = await desk.submit()
    sandbox.clock.advance(LONG_S)
    assert len(await desk.answers_by_id((await desk.ended(batch)).ending)) == 1


@pytest.mark.needs(Ability.CANCEL)
async def test_a_cancelled_batch_hands_out_what_was_done(desk: Desk, sandbox: Sandbox) -> None:
    batch = await desk.submit(desk.requests(20))
    sandbox.clock.advance(1.0)
    assert isinstance(await desk.look(batch), Running)
    await desk.provider.cancel(desk.account, batch)
    assert isinstance(await desk.look(batch), Running)
    sandbox.clock.advance(LONG_S)
    done = await desk.ended(batch)
    assert done.outcome is Outcome.CANCELLED
    answers = await desk.answers_by_id(done.ending)
    undone = [answer for answer in answers.values() if answer.origin != "provider"]
    assert 0 < len(answers) - len(undone) < 20
    if desk.form.can(Ability.UNDONE_ROWS):
        assert len(answers) == 20
        assert {(answer.status, answer.origin) for answer in undone} == {(499, "batch_cancelled")}
        assert codes(undone) == {"batch_cancelled"}


async def test_done_or_unknown_batches_may_be_cancelled_in_vain(desk: Desk, sandbox: Sandbox) -> None:
    batch = await desk.submit()
    sandbox.clock.advance(LONG_S)
    assert (await desk.ended(batch)).outcome is Outcome.COMPLETED
    await desk.provider.cancel(desk.account, batch)
    await desk.provider.cancel(desk.account, ProviderBatchId("batch_nobody"))
    assert (await desk.ended(batch)).outcome is Outcome.COMPLETED
    sandbox.faults.add(faults.RefuseCancel(status=503))
    with pytest.raises(TemporaryError):
        await desk.provider.cancel(desk.account, batch)


@pytest.mark.needs(Ability.EXPIRY)
async def test_an_expired_batch_hands_out_what_was_done(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(faults.ExpireBatch(done=0.25))
    batch = await desk.submit(desk.requests(8))
    sandbox.clock.advance(LONG_S)
    done = await desk.ended(batch)
    assert done.outcome is Outcome.EXPIRED
    answers = await desk.answers_by_id(done.ending)
    n_undone = 6 if desk.form.can(Ability.UNDONE_ROWS) else 0
    assert sorted((answer.status, answer.origin) for answer in answers.values()) == [
        *[(200, "provider")] * 2,
        *[(504, "batch_expired")] * n_undone,
    ]


@pytest.mark.needs(Ability.WHOLE_FAILURE)
async def test_a_batch_that_fails_as_a_whole_says_why(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(faults.FailBatch(code="invalid_json_line", message="Line 2 is not JSON.", line=2))
    batch = await desk.submit(desk.requests(3))
    sandbox.clock.advance(LONG_S)
    done = await desk.ended(batch)
    assert (done.outcome, done.ending.results) == (Outcome.FAILED, ())
    (complaint,) = done.ending.complaints
    assert "Line 2 is not JSON." in complaint.message
    assert blame.pointer(complaint).line == 2


@pytest.mark.needs(Ability.LABEL)
async def test_the_label_travels_with_a_batch(desk: Desk, sandbox: Sandbox) -> None:
    batch = await desk.submit(label="batchling-default-b7")
    (billed,) = sandbox.ledger().batches
    assert billed.provider_batch_id == batch
    assert "batchling-default-b7" in f"{billed.metadata} {billed.filename}"


@pytest.mark.needs(Ability.LABEL)
@pytest.mark.parametrize(
    "fault",
    [
        faults.DropCreateAnswer(),
        faults.FailCreateAnswer(status=500),
        faults.FailCreateAnswer(status=504, body="<html>"),
    ],
)
async def test_a_batch_whose_create_answer_was_lost_is_found_again(
    desk: Desk, sandbox: Sandbox, fault: faults.Fault
) -> None:
    sandbox.faults.add(fault)
    began = since(sandbox)
    file = await desk.upload()
    with pytest.raises(MaybeDone):
        await desk.create(file)
    await desk.submit(label="batchling-test-2")
    (billed, _) = sandbox.ledger().batches
    assert await desk.find(files=[file] if file else [], since=began) == [billed.provider_batch_id]


async def test_a_batch_whose_create_answer_was_lost_is_found_by_its_rows_when_it_has_ended(
    desk: Desk, sandbox: Sandbox
) -> None:
    sandbox.faults.add(faults.DropCreateAnswer())
    began, rows = since(sandbox), desk.requests(7)
    file = await desk.upload(rows)
    with pytest.raises(MaybeDone):
        await desk.create(file, requests=rows)
    other = await desk.submit(rows | {"more": desk.body()}, label="batchling-test-2")
    (billed, _) = sandbox.ledger().batches
    sandbox.clock.advance(LONG_S)
    found = await desk.find(files=[file] if file else [], since=began, ours=rows, others=[other])
    assert found == [billed.provider_batch_id]


async def test_a_batch_that_was_never_made_is_not_found(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(faults.DropCreateRequest())
    began = since(sandbox)
    file = await desk.upload()
    with pytest.raises(MaybeDone):
        await desk.create(file)
    # A label that begins with ours is another's.
    other = await desk.submit({"x": desk.body()}, label="batchling-test-12")
    sandbox.clock.advance(LONG_S)
    assert await desk.find(files=[file] if file else [], since=began, ours=["r0"], others=[other]) == []


@pytest.mark.needs(Ability.LABEL, Ability.INPUT_FILE)
async def test_the_search_goes_back_through_the_pages_as_far_as_it_must(desk: Desk, sandbox: Sandbox) -> None:
    names = ("before", "wanted", "later", "nobody")
    files = {name: await desk.upload(label=f"batchling-{name}") for name in names}
    before = await desk.create(files["before"], "batchling-before")
    sandbox.clock.advance(3600.0)
    began = since(sandbox)
    wanted = await desk.create(files["wanted"], "batchling-wanted")
    for number in range(130):
        await desk.create(files["later"], f"batchling-later-{number}")
    n_before = sum(sandbox.ledger().calls.values())
    assert await desk.find("batchling-wanted", files=[files["wanted"]], since=began) == [wanted]
    assert sum(sandbox.ledger().calls.values()) - n_before <= 20
    assert await desk.find("batchling-nobody", files=[files["nobody"]], since=began) == []
    earlier = began - dt.timedelta(hours=1)
    assert await desk.find("batchling-before", files=[files["before"]], since=earlier) == [before]


@pytest.mark.needs(Ability.LABEL)
async def test_a_batch_that_lists_leave_out_is_seen_all_the_same(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(faults.LagList(seconds=30.0))
    began = since(sandbox)
    late, listed = await desk.submit(), await desk.submit(label="batchling-test-2")
    looks = await desk.provider.look(desk.account, [late, listed])
    assert {one: type(look) for one, look in looks.items()} == {late: Running, listed: Running}
    assert await desk.find(since=began) == []
    sandbox.clock.advance(31.0)
    assert await desk.find(since=began) == [late]


async def test_many_batches_are_looked_at_with_few_calls(desk: Desk, sandbox: Sandbox) -> None:
    batches = [await desk.submit(label=f"batchling-test-{number}") for number in range(60)]
    n_before = sum(sandbox.ledger().calls.values())
    looks = await desk.provider.look(desk.account, batches)
    assert list(looks) == batches
    assert {type(look) for look in looks.values()} == {Running}
    confirmed = [one for one, look in looks.items() if isinstance(look, Running) and not look.listed]
    assert confirmed == batches[:3]
    assert sum(sandbox.ledger().calls.values()) - n_before <= 60 / desk.provider.facts.looks_at_once + 2 + 3


async def test_an_end_that_a_list_shows_is_looked_at_itself(desk: Desk, sandbox: Sandbox) -> None:
    batches = [await desk.submit(label=f"batchling-test-{number}") for number in range(12)]
    sandbox.clock.advance(LONG_S)
    n_before = sum(sandbox.ledger().calls.values())
    looks = await desk.provider.look(desk.account, batches)
    assert {one: type(look) for one, look in looks.items()} == dict.fromkeys(batches, Ended)
    assert sum(sandbox.ledger().calls.values()) - n_before <= 12 + 3


async def test_unknown_batches_among_known_ones_are_not_found(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(faults.HideBatch(seconds=5.0))
    hidden, known = await desk.submit(), await desk.submit(label="batchling-test-2")
    nobody = ProviderBatchId("batch_nobody")
    looks = await desk.provider.look(desk.account, [hidden, nobody, known])
    assert {one: type(look) for one, look in looks.items()} == {
        hidden: NotFound,
        nobody: NotFound,
        known: Running,
    }
    assert isinstance(await desk.look(hidden), NotFound)
    sandbox.clock.advance(6.0)
    assert not isinstance(await desk.look(hidden), NotFound)
    assert await desk.provider.look(desk.account, []) == {}


async def test_another_key_sees_nothing_of_a_batch(desk: Desk, sandbox: Sandbox) -> None:
    batch, began = await desk.submit(), since(sandbox)
    other = desk.under_key("sk-another")
    assert isinstance(await other.look(batch), NotFound)
    assert await other.find(since=began, ours=["r0"]) == []
    await other.provider.cancel(other.account, batch)
    sandbox.clock.advance(LONG_S)
    assert (await desk.ended(batch)).outcome is Outcome.COMPLETED


async def test_a_key_that_is_refused_is_refused_for_good(desk: Desk) -> None:
    stranger = desk.under_key("invalid-key")
    file = f"{desk.account.staging}/file-1".lstrip("/")
    calls: list[Awaitable[object]] = [stranger.create(file), stranger.look(ProviderBatchId("batch_1"))]
    if desk.form.can(Ability.INPUT_FILE):
        calls.append(stranger.upload())
    for call in calls:
        with pytest.raises(PermanentError) as caught:
            await call
        assert caught.value.status == 401


async def test_a_create_that_is_limited_is_neither_lost_nor_refused(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(faults.RefuseCreate(status=429, retry_after="17"))
    file = await desk.upload()
    with pytest.raises(TemporaryError) as caught:
        await desk.create(file)
    assert (type(caught.value), caught.value.delay_s) == (Limited, 17.0)
    sandbox.faults.add(
        faults.RefuseCreate(status=403, code="not_available_for_plan", message="Not on this plan.")
    )
    with pytest.raises(PermanentError, match=r"Not on this plan\.") as refused:
        await desk.create(file)
    assert refused.value.status == 403
    assert sandbox.ledger().totals.n_batches == 0


async def test_looks_that_do_not_come_through_are_temporary(desk: Desk, sandbox: Sandbox) -> None:
    batches = [await desk.submit(label=f"batchling-test-{number}") for number in range(5)]
    for ids in (batches[:1], batches):
        sandbox.faults.add(faults.RefusePoll(status=503, retry_after="4", times=len(ids) + 1))
        with pytest.raises(TemporaryError) as caught:
            await desk.provider.look(desk.account, ids)
        assert caught.value.delay_s == 4.0
        sandbox.faults.clear()
        sandbox.faults.add(faults.DropPollAnswer(times=len(ids) + 1))
        with pytest.raises(TemporaryError):
            await desk.provider.look(desk.account, ids)
        sandbox.faults.clear()
    assert len(await desk.provider.look(desk.account, batches)) == 5


@pytest.mark.parametrize(
    "lie",
    [
        faults.StaleList(times=None),
        faults.ListWithOtherIds(times=None),
        faults.ListWithoutFileIds(times=None),
        faults.EmptyPage(times=None),
        faults.EmptyPage(times=None, cursor=False),
    ],
    ids=["stale", "other-ids", "no-ids", "empty-pages", "empty-pages-without-cursor"],
)
async def test_a_list_that_lies_hides_no_end_and_no_results(
    desk: Desk, sandbox: Sandbox, lie: faults.Fault
) -> None:
    sandbox.faults.add(lie)
    batches = [await desk.submit(label=f"batchling-test-{number}") for number in range(6)]
    looks = await desk.provider.look(desk.account, batches)
    assert {type(look) for look in looks.values()} == {Running}
    sandbox.clock.advance(LONG_S)
    own = {one: await desk.look(one) for one in batches}
    assert {type(look) for look in own.values()} == {Ended}
    assert await desk.provider.look(desk.account, batches) == own


async def test_a_look_that_does_not_come_through_costs_no_other_batch(desk: Desk, sandbox: Sandbox) -> None:
    batches = [await desk.submit(label=f"batchling-test-{number}") for number in range(3)]
    sandbox.faults.add(faults.RefusePoll(status=503))
    looks = await desk.provider.look(desk.account, batches)
    assert sorted(type(look).__name__ for look in looks.values()) == ["Running", "Running", "TemporaryError"]


async def test_a_list_that_is_refused_is_done_without_at_once(desk: Desk, sandbox: Sandbox) -> None:
    batches = [await desk.submit(label=f"batchling-test-{number}") for number in range(5)]
    for status in (400, 403, 500, 503):
        sandbox.faults.add(faults.RefusePoll(status=status))
        looks = await desk.provider.look(desk.account, batches)
        assert looks == {
            one: look for one, look in looks.items() if isinstance(look, Running) and not look.listed
        }
    sandbox.faults.add(faults.RefusePoll(status=500, body="<html>It works!</html>"))
    assert set(await desk.provider.look(desk.account, batches)) == set(batches)


@pytest.mark.needs(Ability.INPUT_FILE)
async def test_an_upload_that_is_too_large_is_refused_for_good(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.limits = Limits(max_bytes=20)
    with pytest.raises(PermanentError):
        await desk.upload()


@pytest.mark.needs(Ability.INPUT_FILE)
async def test_a_file_that_is_not_visible_yet_becomes_a_batch_later(desk: Desk, sandbox: Sandbox) -> None:
    sandbox.faults.add(faults.HideFile(seconds=5.0))
    file = await desk.upload()
    try:
        batch = await desk.create(file)
    except FileNotReady:
        assert sandbox.ledger().totals.n_batches == 0
    else:
        sandbox.clock.advance(1.0)
        (complaint,) = (await desk.ended(batch)).ending.complaints
        assert file in complaint.message
    sandbox.clock.advance(6.0)
    batch = await desk.create(file)
    sandbox.clock.advance(LONG_S)
    assert (await desk.ended(batch)).outcome is Outcome.COMPLETED
