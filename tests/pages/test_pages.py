"""The pages show what the store holds, from any process, and do what a person confirms, once."""

from __future__ import annotations

import secrets
from urllib.parse import quote

import pytest

from batchling_client.wire.keys import BatchId
from batchling_client.wire.records.batch import UNENDED_ALLOWED
from batchling_client.wire.states import BatchState, RowKind
from tests.scripts.byhand import ByHand, ids, out

from .browser import Browser


async def quarantined(there: ByHand) -> BatchId:
    batch_id = await there.sealed(ids(1))
    for _ in range(UNENDED_ALLOWED + 1):
        await there.begin(batch_id, await there.claimed(batch_id), nonce=secrets.token_hex(8))
    return batch_id


async def test_each_page_shows_what_the_store_holds(there: ByHand, browser: Browser) -> None:
    stuck, done = await quarantined(there), await there.in_state(BatchState.SETTLED, ids(1))
    model = there.spec.model

    overview = browser.get("/batchling")
    assert (overview.status, stuck in overview.body) == (200, True)
    assert f"groq / {model}" in overview.text.partition("Needs you")[2].partition("Waits by itself")[0]

    unfinished, over = (
        browser.get(f"/batches?model={model}&state={state}").body for state in ("unfinished", "over")
    )
    assert (stuck in unfinished, done in unfinished) == (True, False)
    assert (stuck in over, done in over) == (False, True)

    page = browser.get(f"/batch/{stuck}").text
    assert "Why: quarantined" in page
    assert f"batchling retry {stuck}" in page
    assert there.run_id in page.partition("Who waits")[2].partition("What happened")[0]
    assert model in browser.get("/lanes").text
    assert there.run_id in browser.get("/runs").text
    assert stuck in browser.get(f"/batches?run={there.run_id}").body
    assert browser.get(f"/find?q={done}").headers["location"] == f"/batch/{done}"
    assert browser.get("/batch/b-gone").status == 404
    assert 'href="/batchling"' in browser.get("/workers").body


@pytest.mark.parametrize("of", ["model", "run"])
async def test_pages_of_a_list_join_without_a_gap_while_batches_are_added(
    there: ByHand, browser: Browser, of: str
) -> None:
    made = [await there.sealed(ids(1)) for _ in range(60)]
    wanted = f"model={there.spec.model}" if of == "model" else f"run={there.run_id}&state=sealed"

    first = browser.get(f"/batches?{wanted}&sort=oldest")
    made.append(await there.sealed(ids(1)))
    (onwards,) = (one for one in first.links if "after=" in one)
    second = browser.get(f"/batches{onwards}")

    listed = [one.rpartition("/")[2] for page in (first, second) for one in page.links if "/batch/b" in one]
    assert sorted(listed) == sorted(made)
    assert not [one for one in second.links if "after=" in one]


async def test_a_partial_is_sent_again_only_if_it_has_changed(there: ByHand, browser: Browser) -> None:
    await there.in_state(BatchState.SETTLED, ids(1))
    path = f"/batches?model={there.spec.model}&state=all&partial=1"
    first = browser.get(path)
    assert "<html" not in first.body

    assert browser.get(path, If_None_Match=first.headers["etag"]).status == 304
    added = await there.sealed(ids(1))
    later = browser.get(path, If_None_Match=first.headers["etag"])
    assert (later.status, added in later.body) == (200, True)


async def test_a_hostile_word_is_shown_and_never_run(there: ByHand, browser: Browser) -> None:
    evil = f'"><script>alert({secrets.randbelow(10**9)})</script>'
    there.use_model(evil)
    batch_id = await there.sealed(ids(1))

    for path in (
        "/batchling",
        f"/batches?model={quote(evil)}",
        f"/batch/{batch_id}",
        "/lanes",
        f"/batch/{batch_id}/cancel",
    ):
        page = browser.get(path)
        assert (page.status, evil in page.text, "<script>alert" in page.body) == (200, True, False), path


async def test_nothing_is_cancelled_before_it_is_confirmed(there: ByHand, browser: Browser) -> None:
    batch_id = await there.sealed(ids(1))
    ask = browser.get(f"/batch/{batch_id}/cancel")
    assert (await there.batch(batch_id)).state is BatchState.SEALED

    done = browser.post(f"/batch/{batch_id}/cancel", ask.fields)

    assert (done.status, done.headers["location"]) == (303, f"/batch/{batch_id}?done=cancelled")
    cancelled = await there.batch(batch_id)
    assert cancelled.cancel_requested
    assert cancelled.error == f"Batch {batch_id} was cancelled by a person in Flower."


async def test_a_quarantined_batch_is_tried_again(there: ByHand, browser: Browser) -> None:
    stuck = await quarantined(there)
    ask = browser.get(f"/batch/{stuck}/retry")

    assert browser.post(f"/batch/{stuck}/retry", ask.fields).status == 303

    assert (await there.batch(stuck)).quarantined_at is None


async def test_many_are_cancelled_only_by_their_number_and_only_those_that_were_shown(
    there: ByHand, browser: Browser
) -> None:
    shown = [await there.sealed(ids(1)) for _ in range(3)]
    path = "/batches/cancel"
    ask = browser.get(f"{path}?model={there.spec.model}&state=sealed")
    later = await there.sealed(ids(1))
    fields = {name: value for name, value in ask.fields.items() if name != "q"}

    wrong = browser.post(path, fields | {"n": "4"})
    assert (wrong.status, (await there.batch(shown[0])).cancel_requested) == (409, False)

    changed = shown.pop()
    token = await there.claimed(changed)
    assert await there.begin(changed, token) is not None
    assert await there.scripts.intend(batch_id=changed, token=token, label="label") == "label"
    right = browser.post(path, fields | {"n": "3"})
    assert "2 batches are being cancelled. 1 batch no longer fitted" in right.text
    found = {one: (await there.batch(one)).cancel_requested for one in (*shown, changed, later)}
    assert found == dict.fromkeys(shown, True) | {changed: False, later: False}


async def test_a_wrong_word_in_the_url_is_answered_with_a_sentence(browser: Browser) -> None:
    for query in ("state=nonsense", "after=nonsense", "sort=nonsense"):
        page = browser.get(f"/batches?{query}")
        assert page.status == 400, query
        assert page.body.rstrip().endswith("."), query


async def test_failures_are_shown_by_reason_and_one_by_one_and_never_run(
    there: ByHand, browser: Browser
) -> None:
    evil = "400 </td><script>alert(1)</script>"
    failed, other = ids(2)
    batch_id = await there.in_state(BatchState.ENDED, [failed, other])
    await there.deliver(
        batch_id, await there.claimed(batch_id), [out(failed, RowKind.FAILURE, about=evil), out(other)]
    )

    for path in (f"/batch/{batch_id}", f"/failures/{batch_id}", f"/failures/{there.run_id}"):
        page = browser.get(path)
        assert (page.status, failed in page.body, other in page.body) == (200, True, False), path
        assert ("<script>alert" in page.body, "</td><script>alert(1)</script>" in page.text) == (
            False,
            True,
        ), path
    run = browser.get(f"/batches?run={there.run_id}")
    assert "1 answered, 1 failed, 0 waiting" in run.text
    assert f"/failures/{there.run_id}" in run.links
    assert f"/failures/{there.run_id}" in browser.get("/runs").links


async def test_an_account_says_that_its_key_is_refused(there: ByHand, browser: Browser) -> None:
    batch_id = await there.at_provider(ids(1))
    said = f"invalid key {secrets.token_hex(6)}"
    for name, value in (("until", 2**42), ("status", 401), ("why", said), ("n_failures", 3)):
        await there.redis.execute_command("HSET", there.keys.circuit(there.lane_id), name, value)
    await there.redis.execute_command("PEXPIRE", there.keys.circuit(there.lane_id), 60_000)
    await there.redis.set(there.keys.key_hint(there.spec.fingerprint), "a4f2", px=60_000)

    accounts = browser.get("/lanes").text.partition("Lanes Lane")[0]
    assert said in accounts
    assert f"{there.spec.fingerprint[:8]} ..a4f2" in accounts
    assert said in browser.get("/batchling").text.partition("Needs you")[2].partition("Waits by itself")[0]
    assert "key refused" in browser.get(f"/batch/{batch_id}").text


async def test_a_lane_is_paused_after_a_question_and_resumed(there: ByHand, browser: Browser) -> None:
    batch_id = await there.sealed(ids(1))
    [pause] = [
        link
        for link in browser.get("/lanes").links
        if link.startswith("/lanes/pause?") and there.lane_id in link
    ]
    ask = browser.get(pause)
    assert f"groq / {there.spec.model}" in ask.text
    assert await there.redis.execute_command("EXISTS", there.keys.paused) == 0

    given = {**ask.fields, "name": there.lane_id, "reason": "<b>budget</b>"}
    assert browser.post("/lanes/pause", given).status == 303
    page = browser.get("/lanes")
    assert "a person in Flower" in page.text
    assert "<b>budget" not in page.body

    [resume] = [link for link in page.links if link.startswith("/lanes/resume?")]
    assert browser.post("/lanes/resume", browser.get(resume).fields).status == 303
    assert await there.redis.execute_command("EXISTS", there.keys.paused) == 0
    assert (await there.batch(batch_id)).state is BatchState.SEALED


async def test_a_pause_without_a_token_or_of_nothing_pauses_nothing(there: ByHand, browser: Browser) -> None:
    await there.sealed(ids(1))
    fields = browser.get(f"/lanes/pause?lane={there.lane_id}").fields

    assert browser.post("/lanes/pause", {"name": there.lane_id}).status == 403
    assert browser.post("/lanes/pause", {**fields, "name": ""}).status == 400
    assert browser.post("/lanes/pause", {**fields, "name": "nobody"}).status == 409
    assert browser.get("/lanes/pause?lane=gone").status == 404
    assert await there.redis.execute_command("EXISTS", there.keys.paused) == 0
