"""Every fault does what its docstring says, as often as it is armed, to the providers and models it is armed for."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, get_args

import httpx
import pytest

from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world import faults
from tests.waiting import wait_until

from .caller import Caller, line, lines


def leaves(kind: type[faults.Fault]) -> set[type[faults.Fault]]:
    below = kind.__subclasses__()
    return set().union(*(leaves(sub) for sub in below)) if below else {kind}


def test_every_fault_can_be_armed_over_http_and_is_documented() -> None:
    assert set(get_args(faults.AnyFault)) == leaves(faults.Fault)
    for kind in leaves(faults.Fault):
        assert kind.__doc__
        assert kind.__doc__.count("\n") == 0
        tag = str(kind.__struct_config__.tag)
        assert faults.decode_faults(json.dumps([{"fault": tag, "times": 3}]).encode()) == [kind(times=3)]


class TestMatching:
    def test_fault_strikes_as_often_as_armed(self) -> None:
        table = faults.FaultTable()
        table.add(faults.RefusePoll(times=2, after=1, status=500))
        struck = [table.take(faults.RefusePoll, "groq") is not None for _ in range(5)]
        assert struck == [False, True, True, False, False]
        assert not table.armed()

    def test_fault_strikes_only_whom_it_is_for(self) -> None:
        table = faults.FaultTable()
        table.add(faults.RefuseCreate(provider="groq", model="m", times=None))
        assert table.take(faults.RefuseCreate, "openai", "m") is None
        assert table.take(faults.RefuseCreate, "groq", "other") is None
        assert table.take(faults.RefuseCreate, "groq") is None
        assert table.take(faults.DropCreateAnswer, "groq", "m") is None
        for _ in range(3):
            assert table.take(faults.RefuseCreate, "groq", "m") is not None
        table.clear()
        assert table.take(faults.RefuseCreate, "groq", "m") is None


class TestCreate:
    async def test_dropped_create_answer_leaves_a_batch(self, sandbox: Sandbox, caller: Caller) -> None:
        file_id = (await caller.upload(lines(2))).json()["id"]
        sandbox.faults.add(faults.DropCreateAnswer())
        with pytest.raises(httpx.RemoteProtocolError):
            await caller.post_batch(file_id)
        assert len(await caller.listed()) == 1
        sandbox.clock.advance(10)
        assert sandbox.ledger().totals.n_rows == 2
        assert (await caller.post_batch(file_id)).status_code == 200

    async def test_dropped_create_request_leaves_nothing(self, sandbox: Sandbox, caller: Caller) -> None:
        file_id = (await caller.upload(lines(2))).json()["id"]
        sandbox.faults.add(faults.DropCreateRequest())
        with pytest.raises(httpx.RemoteProtocolError):
            await caller.post_batch(file_id)
        assert not await caller.listed()
        assert sandbox.ledger().totals.n_batches == 0

    async def test_failed_create_answer_leaves_a_batch(self, sandbox: Sandbox, caller: Caller) -> None:
        file_id = (await caller.upload(lines(2))).json()["id"]
        sandbox.faults.add(faults.FailCreateAnswer(status=502))
        assert (await caller.post_batch(file_id)).status_code == 502
        assert len(await caller.listed()) == 1

    async def test_refused_create_leaves_nothing(self, sandbox: Sandbox, caller: Caller) -> None:
        file_id = (await caller.upload(lines(2))).json()["id"]
        sandbox.faults.add(faults.RefuseCreate(status=429, code="slow_down", retry_after="7", times=2))
        for _ in range(2):
            refused = await caller.post_batch(file_id)
            assert refused.status_code == 429
            assert refused.headers["Retry-After"] == "7"
            assert refused.json()["error"]["code"] == "slow_down"
        assert not await caller.listed()
        assert (await caller.post_batch(file_id)).status_code == 200

    async def test_body_of_a_refusal_may_be_anything(self, sandbox: Sandbox, caller: Caller) -> None:
        file_id = (await caller.upload(lines(1))).json()["id"]
        sandbox.faults.add(faults.RefuseCreate(status=503, body="<html>busy</html>"))
        assert (await caller.post_batch(file_id)).text == "<html>busy</html>"

    async def test_slow_create_answers_late(self, sandbox: Sandbox, caller: Caller) -> None:
        file_id = (await caller.upload(lines(1))).json()["id"]
        sandbox.faults.add(faults.SlowCreate(seconds=0.2))
        started = time.monotonic()
        assert (await caller.post_batch(file_id)).status_code == 200
        assert time.monotonic() - started >= 0.2


class TestKey:
    async def test_every_call_of_a_refused_key_is_refused_and_no_other(
        self, sandbox: Sandbox, caller: Caller
    ) -> None:
        sandbox.faults.add(faults.RefuseKey(key="ke", status=403, times=None))
        assert (await caller.http.get("/batches")).status_code == 403
        assert (await caller.upload(lines(1))).status_code == 403
        assert sandbox.faults.n_struck(faults.RefuseKey) == 2
        caller.http.headers["Authorization"] = "Bearer another"
        assert (await caller.http.get("/batches")).status_code == 200

    async def test_a_silent_key_is_heard_in_full_and_not_answered(
        self, sandbox: Sandbox, caller: Caller
    ) -> None:
        sandbox.faults.add(faults.SilenceKey(key="key", seconds=60.0))
        call = asyncio.create_task(caller.http.post("/batches", content=b"{}"))
        await wait_until(
            lambda: sandbox.faults.n_struck(faults.SilenceKey) == 1, description="the call is heard"
        )
        assert (await caller.http.get("/batches")).status_code == 200
        _, unanswered = await asyncio.wait([call], timeout=0.2)
        assert unanswered == {call}
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


class TestUpload:
    async def test_dropped_upload_answer_leaves_a_file(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.DropUploadAnswer())
        with pytest.raises(httpx.RemoteProtocolError):
            await caller.upload(lines(1))
        assert len((await caller.http.get("/files")).json()["data"]) == 1

    async def test_refused_upload_leaves_nothing(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.RefuseUpload(status=500))
        assert (await caller.upload(lines(1000))).status_code == 500
        assert not (await caller.http.get("/files")).json()["data"]

    async def test_slow_upload_answers_late(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.SlowUpload(seconds=0.2))
        started = time.monotonic()
        assert (await caller.upload(lines(1))).status_code == 200
        assert time.monotonic() - started >= 0.2

    async def test_hidden_file_turns_up(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.HideFile(seconds=5))
        file_id = (await caller.upload(lines(1))).json()["id"]
        assert (await caller.http.get(f"/files/{file_id}")).status_code == 404
        refused = await caller.post_batch(file_id)
        sandbox.clock.advance(5)
        if refused.status_code == 200:
            assert (await caller.batch(refused.json()["id"]))["status"] == "failed"
        assert (await caller.http.get(f"/files/{file_id}")).status_code == 200
        assert (await caller.post_batch(file_id)).status_code == 200


class TestPoll:
    async def test_refused_polls_end(self, sandbox: Sandbox, caller: Caller) -> None:
        batch_id = await caller.create(lines(1))
        sandbox.faults.add(faults.RefusePoll(status=500, times=2))
        assert (await caller.http.get(f"/batches/{batch_id}")).status_code == 500
        assert (await caller.http.get("/batches")).status_code == 500
        assert (await caller.http.get(f"/batches/{batch_id}")).status_code == 200

    async def test_dropped_poll_changes_nothing(self, sandbox: Sandbox, caller: Caller) -> None:
        batch_id = await caller.create(lines(1))
        sandbox.faults.add(faults.DropPollAnswer())
        with pytest.raises(httpx.RemoteProtocolError):
            await caller.batch(batch_id)
        assert (await caller.batch(batch_id))["id"] == batch_id

    async def test_refused_cancel_lets_the_batch_run(self, sandbox: Sandbox, caller: Caller) -> None:
        batch_id = await caller.create(lines(1))
        sandbox.faults.add(faults.RefuseCancel(status=500))
        assert (await caller.http.post(f"/batches/{batch_id}/cancel")).status_code == 500
        sandbox.clock.advance(10)
        assert (await caller.batch(batch_id))["status"] == "completed"

    async def test_hidden_batch_turns_up(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.HideBatch(seconds=5))
        batch_id = await caller.create(lines(1))
        assert (await caller.http.get(f"/batches/{batch_id}")).status_code == 404
        assert not await caller.listed()
        sandbox.clock.advance(5)
        assert await caller.listed() == [batch_id]
        assert (await caller.batch(batch_id))["status"] == "completed"

    async def test_lost_batch_stays_lost(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.LoseBatch(seconds=5))
        batch_id = await caller.create(lines(1))
        assert (await caller.batch(batch_id))["id"] == batch_id
        sandbox.clock.advance(5)
        assert (await caller.http.get(f"/batches/{batch_id}")).status_code == 404
        assert sandbox.ledger().totals.n_rows == 1

    async def test_lagging_list_shows_a_batch_late(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.LagList(seconds=5))
        batch_id = await caller.create(lines(1))
        assert (await caller.batch(batch_id))["id"] == batch_id
        assert not await caller.listed()
        sandbox.clock.advance(5)
        assert await caller.listed() == [batch_id]


class TestBatch:
    async def test_failed_batch_bills_nothing(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.FailBatch(seconds=30))
        batch_id = await caller.create(lines(2))
        sandbox.clock.advance(29)
        assert (await caller.batch(batch_id))["status"] == "validating"
        sandbox.clock.advance(1)
        batch = await caller.batch(batch_id)
        assert batch["status"] == "failed"
        assert [error["code"] for error in batch["errors"]["data"]] == ["token_limit_exceeded"]
        assert sandbox.ledger().totals.n_rows == 0

    async def test_expired_batch_delivers_what_was_done(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.ExpireBatch(done=0.4))
        batch = await caller.finish(lines(10))
        assert batch["status"] == "expired"
        done, undone = await caller.ids(batch["output_file_id"]), await caller.ids(batch["error_file_id"])
        assert (len(done), len(undone)) == (4, 6)
        assert len({*done, *undone}) == 10
        assert sandbox.ledger().totals.n_rows == 4

    @pytest.mark.parametrize("state", ["validating", "in_progress", "finalizing"])
    async def test_stuck_batch_continues_after_its_time(
        self, sandbox: Sandbox, caller: Caller, state: Any
    ) -> None:
        sandbox.faults.add(faults.StickBatch(state=state, seconds=3600))
        batch_id = await caller.create(lines(2))
        sandbox.clock.advance(3600)
        assert (await caller.batch(batch_id))["status"] == state
        sandbox.clock.advance(2)
        assert (await caller.batch(batch_id))["status"] == "completed"

    async def test_batch_stuck_for_ever_expires(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.StickBatch(state="in_progress", done=0.5))
        batch_id = await caller.create(lines(4))
        sandbox.clock.advance(86_399)
        batch = await caller.batch(batch_id)
        assert batch["status"] == "in_progress"
        assert batch["request_counts"] == {"total": 4, "completed": 2, "failed": 0}
        sandbox.clock.advance(1)
        batch = await caller.batch(batch_id)
        assert batch["status"] == "expired"
        assert len(await caller.ids(batch["output_file_id"])) == 2

    async def test_cancel_may_forget_what_was_done_and_billed(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.ForgetDoneOnCancel())
        batch_id = await caller.create(lines(100))
        sandbox.clock.advance(0.4)
        await caller.http.post(f"/batches/{batch_id}/cancel")
        sandbox.clock.advance(1)
        batch = await caller.batch(batch_id)
        assert batch["status"] == "cancelled"
        assert batch["request_counts"]["completed"] == 0
        assert not await caller.content(batch["output_file_id"])
        n_billed = sandbox.ledger().totals.n_rows
        assert n_billed > 0
        assert len(await caller.ids(batch["error_file_id"])) == 100 - n_billed


class TestResults:
    async def test_lost_rows_are_billed_and_in_no_file(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.LoseRows(n=3))
        batch = await caller.finish(lines(10))
        assert len(await caller.ids(batch["output_file_id"])) == 7
        assert batch["error_file_id"] is None
        assert batch["request_counts"]["completed"] == 10
        assert sandbox.ledger().totals.n_rows == 10

    async def test_repeated_rows_are_there_twice_and_billed_once(
        self, sandbox: Sandbox, caller: Caller
    ) -> None:
        sandbox.faults.add(faults.RepeatRows(n=3))
        ids = await caller.ids((await caller.finish(lines(10)))["output_file_id"])
        assert (len(ids), len(set(ids))) == (13, 10)
        assert sandbox.ledger().totals.n_rows == 10

    async def test_stray_rows_have_ids_nobody_sent(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.StrayRows(n=2))
        rows = lines(10)
        ids = await caller.ids((await caller.finish(rows))["output_file_id"])
        assert len({*ids} - {row["custom_id"] for row in rows}) == 2

    async def test_broken_rows_are_not_json(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.BreakRows(n=2))
        texts = await caller.content((await caller.finish(lines(10)))["output_file_id"])
        assert len(texts) == 10
        assert sum(1 for text in texts if not text.endswith("}")) == 2

    async def test_zero_rows_are_empty_and_counted_as_completed(
        self, sandbox: Sandbox, caller: Caller
    ) -> None:
        sandbox.faults.add(faults.ZeroRows(n=2))
        batch = await caller.finish(lines(10))
        assert batch["request_counts"] == {"total": 10, "completed": 10, "failed": 0}
        rows = [json.loads(text) for text in await caller.content(batch["error_file_id"])]
        assert len(rows) == 2
        assert rows[0]["response"] == {"status_code": 0, "request_id": "", "body": {}}
        assert rows[0]["error"] is None

    async def test_failed_rows_fail_with_the_status(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.FailRows(n=4, status=503), faults.FailRows(n=None, status=429))
        batch = await caller.finish(lines(10))
        rows = [json.loads(text) for text in await caller.content(batch["error_file_id"])]
        assert [row["response"]["status_code"] for row in rows] == [503] * 4
        assert (await caller.finish(lines(10)))["output_file_id"] is None

    async def test_order_is_shuffled_unless_kept(self, sandbox: Sandbox, caller: Caller) -> None:
        rows = lines(50)
        sent = [row["custom_id"] for row in rows]
        assert await caller.ids((await caller.finish(rows))["output_file_id"]) != sent
        sandbox.faults.add(faults.KeepOrder())
        assert await caller.ids((await caller.finish(rows))["output_file_id"]) == sent

    async def test_missing_file_may_have_a_blank_id(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.BlankFileIds())
        assert (await caller.finish(lines(1)))["error_file_id"] == ""

    async def test_missing_file_may_be_an_empty_one(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.EmptyFiles())
        batch = await caller.finish(lines(1))
        assert (await caller.http.get(f"/files/{batch['error_file_id']}/content")).content == b""

    async def test_file_ids_may_come_late(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.LateFileIds(seconds=60))
        batch = await caller.finish(lines(1))
        assert (batch["status"], batch["output_file_id"]) == ("completed", None)
        sandbox.clock.advance(60)
        assert len(await caller.ids((await caller.batch(batch["id"]))["output_file_id"])) == 1

    async def test_output_may_be_hidden_at_first(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.HideOutput(seconds=60))
        batch = await caller.finish(lines(1))
        assert (await caller.http.get(f"/files/{batch['output_file_id']}/content")).status_code == 404
        sandbox.clock.advance(60)
        assert len(await caller.ids(batch["output_file_id"])) == 1

    async def test_faults_of_one_batch_spare_the_next(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.LoseRows(n=3, model="other"), faults.LoseRows(n=1))
        assert len(await caller.ids((await caller.finish(lines(10)))["output_file_id"])) == 9
        assert len(await caller.ids((await caller.finish(lines(10)))["output_file_id"])) == 10
        assert len(await caller.ids((await caller.finish(lines(10, "other")))["output_file_id"])) == 7


class TestDownload:
    async def test_truncated_download_is_seen_as_such(self, sandbox: Sandbox, caller: Caller) -> None:
        batch = await caller.finish(lines(2000))
        sandbox.faults.add(faults.TruncateDownload(sent=0.5))
        read = bytearray()

        async def read_all(answer: httpx.Response) -> None:
            async for chunk in answer.aiter_raw():
                read.extend(chunk)

        async with caller.http.stream("GET", f"/files/{batch['output_file_id']}/content") as answer:
            with pytest.raises(httpx.RemoteProtocolError):
                await read_all(answer)
        assert len(read) == int(answer.headers["Content-Length"]) // 2
        assert len(await caller.ids(batch["output_file_id"])) == 2000

    async def test_refused_download_can_be_repeated(self, sandbox: Sandbox, caller: Caller) -> None:
        batch = await caller.finish(lines(2))
        sandbox.faults.add(faults.RefuseDownload(status=500))
        assert (await caller.http.get(f"/files/{batch['output_file_id']}/content")).status_code == 500
        assert len(await caller.ids(batch["output_file_id"])) == 2

    async def test_slow_download_takes_its_time(self, sandbox: Sandbox, caller: Caller) -> None:
        batch = await caller.finish(lines(20))
        sandbox.faults.add(faults.SlowDownload(bytes_per_second=50_000))
        started = time.monotonic()
        n_bytes = len("\n".join(await caller.content(batch["output_file_id"])))
        assert time.monotonic() - started >= n_bytes / 50_000 * 0.9


class TestRealtime:
    async def test_refused_realtime_call_costs_nothing(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.RefuseRealtime(status=529))
        body = line("a")["body"]
        assert (await caller.http.post("/chat/completions", json=body)).status_code == 529
        assert (await caller.http.post("/chat/completions", json=body)).status_code == 200
        assert sandbox.ledger().totals.n_realtime == 1


class TestMarkers:
    @pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
    async def test_marked_row_fails_alone(self, caller: Caller, status: int) -> None:
        batch = await caller.finish([line("a", f"please fault:{status}"), line("b")])
        rows = [json.loads(text) for text in await caller.content(batch["error_file_id"])]
        assert [(row["custom_id"], row["response"]["status_code"]) for row in rows] == [("a", status)]
        assert await caller.ids(batch["output_file_id"]) == ["b"]

    async def test_model_name_may_hold_the_marker(self, caller: Caller) -> None:
        batch = await caller.finish([line("a", model="fault:400-model")])
        assert await caller.ids(batch["error_file_id"]) == ["a"]

    async def test_limited_marker_lets_the_row_through_later(self, caller: Caller) -> None:
        rows = [line("a", "fault:500x2")]
        outcomes = [(await caller.finish(rows))["output_file_id"] is not None for _ in range(3)]
        assert outcomes == [False, False, True]

    async def test_quirks_can_be_marked(self, sandbox: Sandbox, caller: Caller) -> None:
        rows = [line(quirk, f"fault:{quirk}") for quirk in ("missing", "zero", "twice")]
        batch = await caller.finish(rows)
        assert await caller.ids(batch["output_file_id"]) == ["twice", "twice"]
        assert await caller.ids(batch["error_file_id"]) == ["zero"]
        assert sandbox.ledger().executed() == {"missing": 1, "zero": 1, "twice": 1}
        broken = await caller.finish([line("broken", "fault:broken")])
        [text] = await caller.content(broken["output_file_id"])
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)
