"""The dialect that OpenAI-like providers share, on a wire that a test holds in its hands."""

from __future__ import annotations

import dataclasses
import datetime as dt
import gzip
import io
import json
import logging
import re
import tempfile
import tracemalloc
from collections.abc import AsyncIterator

import httpx
import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker import providers
from batchling_worker.dialects import list_search, poll_many
from batchling_worker.errors import Denied, FileNotReady, MaybeDone, PermanentError, TemporaryError
from batchling_worker.provider import Account, Ending, NotFound, Running

from .conftest import KEY
from .desk import CHAT, Desk, body, credential, submission
from .wire import Seen, Wire, answer

FILE = Ending(results=("file-1",))
ROW = b'{"id":"q","custom_id":"r%d","response":{"status_code":200,"request_id":"q","body":{"n":%d}},"error":null}\n'


def rows(n: int) -> bytes:
    return b"".join(ROW % (number, number) for number in range(n))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"m","messages":[{"content":"a\\nb \xc3\xa9 \\u2028 \xe2\x80\xa8"}],"n":1.50}',
        b'{\n  "model": "m",\r\n  "messages": []\n}\n',
    ],
)
def test_a_line_is_one_line_and_its_body_means_what_it_meant(wired: Desk, raw: bytes) -> None:
    line = wired.provider.line(custom_id="r1", endpoint=CHAT, body=raw)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert json.loads(line) == {"custom_id": "r1", "method": "POST", "url": CHAT, "body": json.loads(raw)}
    if b"\n" not in raw:
        assert raw in line


async def test_the_upload_is_a_form_with_the_file_under_its_label(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b'{"id":"file-7"}')
    file = io.BytesIO(b"one\ntwo\n")
    file.seek(4)
    assert await wired.provider.upload(wired.account, submission("batchling-x"), file) == "file-7"
    (seen,) = wire.seen
    purpose, content = seen.body.split(b'name="purpose"')[1].split(b'name="file"')
    assert b"\r\n\r\nbatch\r\n" in purpose
    assert re.search(rb'; filename="batchling-x-\w+\.jsonl"', content)
    assert b"\r\n\r\none\ntwo\n\r\n" in content
    assert (seen.header("user-agent") or "").startswith("batchling/")
    assert seen.header("authorization") == f"Bearer {KEY}"
    assert int(seen.header("content-length") or 0) == len(seen.body)


async def test_an_upload_is_not_held_in_memory(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b'{"id":"file-7"}')
    n_bytes = 24 << 20
    with tempfile.TemporaryFile() as file:
        file.truncate(n_bytes)
        tracemalloc.start()
        try:
            await wired.provider.upload(wired.account, submission(), file)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # The wire itself keeps the one copy that it received, and its stream's buffer while it grows.
    assert len(wire.seen[0].body) > n_bytes
    assert peak < 3 * n_bytes


@pytest.mark.parametrize("reply", [answer(b"{}"), answer(b'{"id":null}'), answer(b'{"id":"fi', length=99)])
async def test_an_upload_without_an_id_is_tried_again(wire: Wire, wired: Desk, reply: bytes) -> None:
    wire.reply = lambda seen: reply
    with pytest.raises(TemporaryError) as caught:
        await wired.upload()
    assert not isinstance(caught.value, MaybeDone)


async def test_create_sends_the_label_and_nothing_else_of_ours(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b'{"id":"batch_7"}', status=201)
    assert await wired.create("file-7", "batchling-x") == "batch_7"
    sent = json.loads(wire.seen[0].body)
    sent.pop("output_expires_after", None)
    assert sent == {
        "input_file_id": "file-7",
        "endpoint": CHAT,
        "completion_window": "24h",
        "metadata": {"batchling": "batchling-x"},
    }


@pytest.mark.parametrize("status", [400, 404])
@pytest.mark.parametrize(
    "message",
    [
        "Cannot find file file-7, or organization org-x does not have access to it.",
        "The input file 'file-7' was not found.",
        "No such File object: file-7",
    ],
)
async def test_a_file_that_is_not_visible_yet_is_not_a_refusal(
    wire: Wire, wired: Desk, status: int, message: str
) -> None:
    wire.reply = lambda seen: answer(json.dumps({"error": {"message": message}}).encode(), status=status)
    with pytest.raises(FileNotReady, match="file-7"):
        await wired.create("file-7")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Invalid file format for the Batch API."),
        (404, "The model m was not found."),
        (403, "No file found."),
    ],
)
async def test_other_refusals_of_a_create_stay_refusals(
    wire: Wire, wired: Desk, status: int, message: str
) -> None:
    wire.reply = lambda seen: answer(json.dumps({"error": {"message": message}}).encode(), status=status)
    with pytest.raises(PermanentError):
        await wired.create("file-7")


async def many_rows(n: int) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    filler = b'"text":"%b","n":' % (b"x" * 500)
    hundred = rows(100).replace(b'"n":', filler)
    for _ in range(n // 100):
        yield b"%x\r\n%b\r\n" % (len(hundred), hundred)
    yield b"0\r\n\r\n"


async def peak_of_reading(wire: Wire, desk: Desk, n: int) -> int:
    wire.reply = lambda seen: many_rows(n)
    n_read = 0
    tracemalloc.start()
    try:
        async for row in desk.provider.results(desk.account, FILE):
            assert row.status == 200
            n_read += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_read == n
    return peak


async def test_fifty_thousand_rows_need_no_more_memory_than_five_hundred(wire: Wire, wired: Desk) -> None:
    await peak_of_reading(wire, wired, 500)
    few, many = await peak_of_reading(wire, wired, 500), await peak_of_reading(wire, wired, 50_000)
    # Fifty thousand such rows are 32 MB.
    assert many < few + 1_000_000
    assert many < 4_000_000


async def test_a_row_may_be_many_megabytes_long(wire: Wire, wired: Desk) -> None:
    image = b"A" * (20 << 20)
    line = b'{"custom_id":"big","response":{"status_code":200,"body":{"image":"%b"}}}\n' % image
    wire.reply = lambda seen: answer(rows(2) + line + rows(1))
    answers = await wired.answers(FILE)
    assert [one.custom_id for one in answers] == ["r0", "r1", "big", "r0"]
    assert answers[2].body == b'{"image":"%b"}' % image


async def test_packed_results_are_unpacked_on_the_way(wire: Wire, wired: Desk) -> None:
    packed = gzip.compress(rows(300))
    wire.reply = lambda seen: answer(packed, headers="Content-Encoding: gzip\r\n")
    assert len(await wired.answers(FILE)) == 300


async def test_every_file_is_read_and_the_last_line_needs_no_newline(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(rows(3) if "out" in seen.target else (ROW % (9, 9)).rstrip(b"\n"))
    answers = await wired.answers(Ending(results=("out", "err/../x")))
    assert [one.custom_id for one in answers] == ["r0", "r1", "r2", "r9"]
    assert wire.seen[1].target.endswith("/files/err%2F..%2Fx/content")


async def test_an_empty_file_has_no_row(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b"")
    assert await wired.answers(FILE) == []
    assert await wired.answers(Ending()) == []


async def read_into(seen: list[str], desk: Desk, ending: Ending = FILE) -> None:
    async for one in desk.provider.results(desk.account, ending):
        seen.append(one.custom_id)  # noqa: PERF401 - what came before a cut counts


@pytest.mark.parametrize("cut", range(0, len(rows(2)), 17))
async def test_a_download_cut_anywhere_is_never_taken_for_the_whole(
    wire: Wire, wired: Desk, cut: int
) -> None:
    whole = rows(2)
    wire.reply = lambda seen: answer(whole[:cut], length=len(whole))
    seen: list[str] = []
    with pytest.raises(TemporaryError):
        await read_into(seen, wired)
    assert seen == ["r0", "r1"][: whole[:cut].count(b"\n")]


async def test_a_cut_in_chunks_or_without_any_length_is_noticed(wire: Wire, wired: Desk) -> None:
    half = rows(2)[:-30]
    unframed = b"HTTP/1.1 200 OK\r\n\r\n"
    wire.reply = lambda seen: unframed + rows(2)
    assert len(await wired.answers(FILE)) == 2
    wire.reply = lambda seen: unframed + half
    with pytest.raises(TemporaryError):
        await wired.answers(FILE)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(half), half)
    wire.reply = lambda seen: chunked
    with pytest.raises(TemporaryError):
        await wired.answers(FILE)


@pytest.mark.parametrize("status", [404, 410, 429, 500])
async def test_a_file_that_cannot_be_read_now_is_tried_again(wire: Wire, wired: Desk, status: int) -> None:
    wire.reply = lambda seen: answer(b'{"error":{"message":"No such File"}}', status=status)
    with pytest.raises(TemporaryError, match="No such File"):
        await wired.answers(FILE)


async def test_a_file_that_cannot_be_read_does_not_take_the_other_with_it(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b"{}", status=404) if "out" in seen.target else answer(rows(2))
    seen: list[str] = []
    with pytest.raises(Denied):
        await read_into(seen, wired, Ending(results=("out", "err")))
    assert seen == ["r0", "r1"]


async def test_broken_lines_are_counted_in_the_log_without_their_content(
    wire: Wire, wired: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "batchling")
    wire.reply = lambda seen: answer(rows(1) + b'{"custom_id":"r1","response":{"secret words\n' + rows(1))
    assert len(await wired.answers(FILE)) == 2
    # Others may log too, such as what is still running of an earlier test.
    (said,) = [record.getMessage() for record in caplog.records if "result_lines" in record.getMessage()]
    assert said.startswith("result_lines_skipped provider=")
    assert "n_broken=1" in said
    assert "secret" not in caplog.text


async def test_a_strange_status_is_not_an_end_and_is_logged_once(
    wire: Wire, wired: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    word = f"paused_{id(wire)}"
    wire.reply = lambda seen: answer(b'{"id":"batch_1","status":"%b"}' % word.encode())
    for _ in range(3):
        told = await wired.look(ProviderBatchId("batch_1"))
        assert told == Running(status=word, n_done=0, n_total=0)
    assert caplog.text.count("provider_status_unknown") == 1


async def test_an_error_under_a_200_is_not_a_look(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b'{"error":{"message":"oops"}}')
    with pytest.raises(TemporaryError):
        await wired.look(ProviderBatchId("batch_1"))


async def test_a_batch_that_is_not_known_is_an_answer(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b"{}", status=404)
    ids = [ProviderBatchId("batch_1"), ProviderBatchId("batch_2")]
    assert await wired.provider.look(wired.account, ids[:1]) == {ids[0]: NotFound()}


def page(*batches: tuple[str, int], more: str = "") -> bytes:
    """A page that both ways of paging understand."""
    data = [
        {"id": one, "created_at": at, "status": "validating", "metadata": {"batchling": one}}
        for one, at in batches
    ]
    paging = {"next_cursor": more or None}
    return answer(
        json.dumps({"data": data, "has_more": bool(more), "last_id": more, "paging": paging}).encode()
    )


def running(seen: Seen) -> bytes:
    """The batch that is asked for, as it runs."""
    one = seen.target.rpartition("/")[2]
    return answer(json.dumps({"id": one, "status": "in_progress"}).encode())


async def find(desk: Desk, label: str) -> list[ProviderBatchId]:
    return await desk.find(label, since=dt.datetime.fromtimestamp(1e6, dt.UTC))


async def test_a_search_ends_where_all_that_follows_is_older(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: page(("new", 1_000_000), ("old", 999_000), more="old")
    assert await find(wired, "wanted") == []
    assert len(wire.seen) == 1


async def test_a_list_in_another_order_is_searched_to_its_end(wire: Wire, wired: Desk) -> None:
    def reply(seen: Seen) -> bytes:
        if "=second" in seen.target:
            return page(("wanted", 1_000_000))
        return page(("oldest", 10), ("old", 20), more="second")

    wire.reply = reply
    assert await find(wired, "wanted") == ["wanted"]


async def test_a_search_without_end_never_answers_that_there_is_none(
    wire: Wire, wired: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_search, "MOST_PAGES", 3)
    wire.reply = lambda seen: page(("new", 1_000_000), more=f"after-{len(wire.seen)}")
    with pytest.raises(TemporaryError):
        await find(wired, "wanted")
    assert len(wire.seen) == 3


async def test_a_cursor_that_comes_again_ends_a_search_without_a_proof(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: page(("new", 1_000_000), more="again")
    with pytest.raises(TemporaryError):
        await find(wired, "wanted")
    assert len(wire.seen) == 2


async def test_a_search_goes_on_behind_an_empty_page(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: page(("wanted", 1)) if "=second" in seen.target else page(more="second")
    assert await find(wired, "wanted") == ["wanted"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"object":"list","data":[],"has_more":true}',
        b'{"object":"list","data":[],"has_more":true,"paging":{"next_cursor":null}}',
        b'{"error":"busy"}',
        b"{}",
    ],
)
@pytest.mark.parametrize("provider", ["openai", "groq", "azure", "doubleword"])
async def test_an_answer_that_is_not_a_page_or_hides_the_next_page_proves_nothing(
    wire: Wire, http: httpx.AsyncClient, provider: str, body: bytes
) -> None:
    account = Account(base_url=wire.url, headers=credential(provider, KEY), http=http, digest="a" * 20)
    wired = Desk(provider=providers.load(provider), account=account)
    wire.reply = lambda seen: answer(body)
    with pytest.raises(TemporaryError):
        await find(wired, "wanted")


async def test_looking_stops_when_every_batch_is_found(wire: Wire, wired: Desk) -> None:
    ids = [ProviderBatchId(f"b{n}") for n in range(4)]
    wire.reply = lambda seen: (
        page(*((one, 1) for one in ids), more="b0") if "?" in seen.target else running(seen)
    )
    assert set(await wired.provider.look(wired.account, ids)) == set(ids)
    assert len(wire.seen) == 1 + poll_many.LEAST_CONFIRMED


async def test_a_list_that_refuses_an_id_hides_no_other(wire: Wire, wired: Desk) -> None:
    def reply(seen: Seen) -> bytes:
        if "id=" in seen.target:
            return answer(b"{}", status=400)
        if seen.target.endswith("/b1"):
            return answer(b'{"id":"b1","status":"validating"}')
        return page() if "/batches?" in seen.target else answer(b"{}", status=404)

    wire.reply = reply
    ids = [ProviderBatchId(f"b{n}") for n in range(4)]
    looks = await wired.provider.look(wired.account, ids)
    found = Running(status="validating", n_done=0, n_total=0)
    assert looks == {**dict.fromkeys(ids, NotFound()), ids[1]: found}


@pytest.mark.parametrize("status", [200, 202, 400, 404, 409])
async def test_there_may_be_nothing_to_cancel(wire: Wire, wired: Desk, status: int) -> None:
    wire.reply = lambda seen: answer(b"<html>", status=status)
    await wired.provider.cancel(wired.account, ProviderBatchId("batch_1"))
    assert wire.seen[0].head.startswith("POST ")
    assert wire.seen[0].body == b""


@pytest.mark.parametrize(
    ("status", "kind"), [(401, PermanentError), (429, TemporaryError), (500, TemporaryError)]
)
async def test_a_cancel_that_did_not_come_through_says_so(
    wire: Wire, wired: Desk, status: int, kind: type[Exception]
) -> None:
    wire.reply = lambda seen: answer(b"{}", status=status)
    with pytest.raises(kind):
        await wired.provider.cancel(wired.account, ProviderBatchId("batch_1"))


async def test_ids_from_outside_stay_within_their_place_in_the_path(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b'{"id":"x","status":"validating"}')
    await wired.look(ProviderBatchId("../files?x=1#y"))
    assert wire.seen[0].target.endswith("/batches/..%2Ffiles%3Fx%3D1%23y")


async def test_a_path_in_the_base_url_is_kept(wire: Wire, wired: Desk) -> None:
    def reply(seen: Seen) -> bytes:
        return answer(b'{"id":"file-7"}')

    wire.reply = reply
    await wired.upload()
    target = wire.seen[-1].target
    for base_url in (f"{wire.url}/gateway/a", f"{wire.url}/gateway/a/"):
        account = dataclasses.replace(wired.account, base_url=base_url)
        await wired.provider.upload(account, submission(), io.BytesIO(body()))
        assert wire.seen[-1].target == f"/gateway/a{target}"
