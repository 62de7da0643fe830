"""Every false answer looks as its docstring says: in lists, files and rows, and at the gate."""

from __future__ import annotations

import email.utils
import json
from typing import Any

import httpx
import pytest

from batchling_worker.sandbox import Limits, Sandbox, emulator
from batchling_worker.sandbox.world import faults

from .caller import Caller, lines


async def listed(caller: Caller) -> dict[str, Any]:
    """Return the only batch, as the list shows it."""
    [batch] = (await caller.http.get("/batches")).raise_for_status().json()["data"]
    shown: dict[str, Any] = batch
    return shown


class TestLists:
    @pytest.mark.parametrize("seconds", [None, 100.0])
    async def test_a_stale_list_shows_a_batch_as_it_was_created(
        self, sandbox: Sandbox, caller: Caller, seconds: float | None
    ) -> None:
        sandbox.faults.add(faults.StaleList(seconds=seconds))
        assert (await caller.finish(lines(2)))["status"] == "completed"
        shown = await listed(caller)
        assert (shown["status"], shown["output_file_id"], shown["completed_at"]) == ("validating", None, None)
        assert shown["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
        sandbox.clock.advance(100)
        assert (await listed(caller))["status"] == ("validating" if seconds is None else "completed")

    async def test_a_list_may_name_files_that_nobody_has(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.ListWithOtherIds())
        batch = await caller.finish(lines(2))
        other = (await listed(caller))["output_file_id"]
        assert other not in (None, batch["output_file_id"])
        assert (await caller.http.get(f"/files/{other}/content")).status_code == 404
        assert len(await caller.ids(batch["output_file_id"])) == 2

    async def test_a_list_may_leave_out_the_files(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.ListWithoutFileIds())
        assert (await caller.finish(lines(2)))["output_file_id"]
        assert (await listed(caller))["output_file_id"] is None

    async def test_an_empty_page_leads_to_the_page_that_was_asked_for(
        self, sandbox: Sandbox, caller: Caller
    ) -> None:
        batch_id = await caller.create(lines(1))
        sandbox.faults.add(faults.EmptyPage(times=3))
        params: dict[str, str] = {}
        for _ in range(3):
            page = (await caller.http.get("/batches", params=params)).json()
            assert page["data"] == []
            if caller.provider == "openai":
                assert page["has_more"]
                params = {"after": page["last_id"]}
            else:
                params = {"cursor": page["paging"]["next_cursor"]}
        [batch] = (await caller.http.get("/batches", params=params)).json()["data"]
        assert batch["id"] == batch_id


class TestFiles:
    @pytest.mark.parametrize(
        ("what", "type_", "content"),
        [
            ("html", "text/html", b"<!DOCTYPE"),
            ("error", "application/json", b'{"error"'),
            ("nothing", "application/octet-stream", b""),
            ("half", "application/octet-stream", b'{"id"'),
            ("half the lines", "application/octet-stream", b'{"id"'),
        ],
    )
    async def test_a_download_may_be_something_else(
        self, sandbox: Sandbox, caller: Caller, what: Any, type_: str, content: bytes
    ) -> None:
        path = f"/files/{(await caller.finish(lines(10)))['output_file_id']}/content"
        true = (await caller.http.get(path)).content
        sandbox.faults.add(faults.GarbleDownload(what=what))
        got = await caller.http.get(path)
        assert (got.status_code, got.headers["content-type"].partition(";")[0]) == (200, type_)
        assert got.content.startswith(content)
        assert got.content != true
        if what.startswith("half"):
            assert true.startswith(got.content)
            assert got.content.endswith(b"\n") == (what == "half the lines")
        assert (await caller.http.get(path)).content == true

    @pytest.mark.parametrize("status", [404, 500])
    async def test_an_error_file_may_be_named_and_not_be_readable(
        self, sandbox: Sandbox, caller: Caller, status: int
    ) -> None:
        sandbox.faults.add(faults.RefuseErrorFile(status=status, seconds=60))
        batch = await caller.finish(lines(3))
        assert len(await caller.ids(batch["output_file_id"])) == 3
        path = f"/files/{batch['error_file_id']}/content"
        assert (await caller.http.get(path)).status_code == status
        sandbox.clock.advance(60)
        assert (await caller.http.get(path)).content == b""

    async def test_files_of_one_owner_have_a_quota(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.limits = Limits(max_files=2)
        for number in range(3):
            answer = await caller.upload(lines(1))
            assert answer.status_code == (200 if number < 2 else 400)
        assert "quota for files without expiry" in answer.text
        sandbox.limits = Limits(max_stored_bytes=300)
        assert (await caller.upload(lines(1))).status_code == 400


class TestBatches:
    async def test_a_failed_batch_may_say_why_in_its_error_file_alone(
        self, sandbox: Sandbox, caller: Caller
    ) -> None:
        sandbox.faults.add(faults.FailInErrorFile(message="Too long.", n=None))
        batch = await caller.finish(lines(3))
        assert (batch["status"], batch["errors"], batch["output_file_id"]) == ("failed", None, None)
        rows = [json.loads(text) for text in await caller.content(batch["error_file_id"])]
        assert {row["response"]["body"]["error"]["message"] for row in rows} == {"Too long."}
        assert sandbox.ledger().billed() == {}

    async def test_a_batch_may_have_a_word_of_its_own_for_its_status(
        self, sandbox: Sandbox, caller: Caller
    ) -> None:
        sandbox.faults.add(faults.SayStatus(word="complete"))
        assert (await caller.finish(lines(1)))["status"] == (await listed(caller))["status"] == "complete"

    async def test_a_cancel_may_never_come_to_an_end(self, sandbox: Sandbox, caller: Caller) -> None:
        sandbox.faults.add(faults.StickCancel())
        batch_id = await caller.create(lines(10))
        await caller.http.post(f"/batches/{batch_id}/cancel")
        sandbox.clock.advance(7 * 86_400)
        assert (await caller.batch(batch_id))["status"] == "cancelling"


class TestRows:
    @pytest.mark.parametrize("what", ["echo", "error", "text", "failed"])
    async def test_a_success_may_hold_no_answer(self, sandbox: Sandbox, caller: Caller, what: Any) -> None:
        sandbox.faults.add(faults.JunkRows(what=what, n=None))
        rows = lines(2)
        batch = await caller.finish(rows)
        got = [json.loads(text) for text in await caller.content(batch["output_file_id"])]
        assert {row["response"]["status_code"] for row in got} == {200}
        for row in got:
            body = row["response"]["body"]
            if what == "echo":
                assert body in [one["body"] for one in rows]
            elif what == "error":
                assert body["error"]["message"]
            elif what == "text":
                assert json.loads(body)["choices"]
            else:
                assert body["status"] == "failed"
        assert len(sandbox.ledger().billed()) == (2 if what == "text" else 0)

    @pytest.mark.parametrize("what", ["text", "object", "number"])
    async def test_a_row_may_fail_as_vllm_words_it(self, sandbox: Sandbox, caller: Caller, what: Any) -> None:
        sandbox.faults.add(faults.VllmRows(what=what, message="Too long."))
        batch = await caller.finish(lines(3))
        rows = [json.loads(text) for text in await caller.content(batch["output_file_id"])]
        [row] = [row for row in rows if row["error"] is not None]
        assert "Too long." in str(row["error"])
        if what == "number":
            assert (row["response"], row["error"]["code"]) == (None, 400)
        else:
            assert (row["response"]["status_code"], row["response"]["body"]) == (400, None)
        assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}


class TestCalls:
    async def test_a_call_may_be_answered_at_another_path(self, sandbox: Sandbox, caller: Caller) -> None:
        batch = await caller.finish(lines(2))
        sandbox.faults.add(faults.RedirectCall(call="look"), faults.RedirectCall(call="download"))
        for path in (f"/batches/{batch['id']}", f"/files/{batch['output_file_id']}/content"):
            moved = await caller.http.get(path)
            assert moved.status_code == 307
            place = httpx.URL(sandbox.url).join(moved.headers["location"])
            assert (await caller.http.get(place)).content == (await caller.http.get(path)).content

    async def test_an_account_may_have_no_money(self, sandbox: Sandbox, caller: Caller) -> None:
        file_id = (await caller.upload(lines(1))).json()["id"]
        sandbox.faults.add(faults.OutOfMoney())
        refused = await caller.post_batch(file_id)
        assert (refused.status_code, refused.json()["error"]["code"]) in {
            (429, "insufficient_quota"),
            (400, "blocked_api_access"),
        }
        assert (await caller.post_batch(file_id)).status_code == 200

    async def test_a_look_may_be_answered_with_an_error_under_200(
        self, sandbox: Sandbox, caller: Caller
    ) -> None:
        batch_id = await caller.create(lines(1))
        sandbox.faults.add(faults.RefusePoll(status=200, message="Overloaded."))
        assert (await caller.batch(batch_id))["error"]["message"] == "Overloaded."

    @pytest.mark.parametrize("seconds", [-60.0, 60.0])
    async def test_a_providers_clock_may_be_wrong(
        self, sandbox: Sandbox, caller: Caller, seconds: float
    ) -> None:
        sandbox.faults.add(faults.SkewClock(seconds=seconds, provider=caller.provider))
        now = sandbox.clock.now()
        answer = await caller.http.get(f"/batches/{await caller.create(lines(1))}")
        dated = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
        assert dated == int(now + seconds) == answer.json()["created_at"]

    async def test_a_clock_that_is_put_back_hides_no_results(self, sandbox: Sandbox, caller: Caller) -> None:
        batch = await caller.finish(lines(2))
        sandbox.faults.add(faults.SkewClock(seconds=-3600.0))
        shown = await caller.batch(batch["id"])
        assert shown["output_file_id"] == batch["output_file_id"]
        assert len(await caller.ids(shown["output_file_id"])) == 2


class TestUnable:
    def test_every_reason_belongs_to_a_fault(self, sandbox: Sandbox) -> None:
        for name in emulator.names():
            unable = {one.name: one.traits.unable for one in sandbox.emulators}[name]
            assert set(unable) <= set(faults.KINDS)
            assert all(reason.endswith(".") for reason in unable.values())

    async def test_a_fault_is_not_armed_for_a_provider_that_cannot_show_it(
        self, sandbox: Sandbox, caller: Caller
    ) -> None:
        ask = {"fault": "empty-page", "provider": "together"}
        async with httpx.AsyncClient() as http:
            refused = await http.post(f"{sandbox.url}/_sandbox/faults", json=ask)
        assert refused.status_code == 400
        assert "Its list has no pages." in refused.json()["error"]
