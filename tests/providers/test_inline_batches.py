"""What providers share that take the requests with the create, on a wire that a test holds in its hands."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import tempfile
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.states import Outcome
from batchling_worker import providers
from batchling_worker.dialects import list_search
from batchling_worker.dialects.inline_batches import InlineBatches
from batchling_worker.errors import Denied, MaybeDone, PermanentError, QuotaFull, TemporaryError
from batchling_worker.provider import Account, Ending, Running, Source

from .conftest import KEY
from .desk import Desk, credential, submission
from .wire import Seen, Wire, answer

INLINE = tuple(name for name in providers.names() if isinstance(providers.load(name), InlineBatches))
NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
EXOTIC = (
    b'{"model":"m","system":[{"type":"text","text":"\\u2028 \xe2\x80\xa8 \\ud83d\\ude00"}],"cache_control":{},'
    b'"tools":[{"name":"t","input_schema":{}}],"thinking":{"budget_tokens":1.50e3},"n":12345678901234567890,'
    b'"messages":[],"requests":[{"custom_id":"x"}],"x\\n,":"]}"}'
)


@dataclasses.dataclass(frozen=True)
class Told:
    """How a provider tells of batches, for answers made by hand."""

    desk: Desk

    @property
    def name(self) -> str:
        return self.desk.provider.facts.name

    def batch(
        self, one: str, n_rows: int = 1, *, ended: bool = False, at: dt.datetime = NOW
    ) -> dict[str, Any]:
        if self.name == "anthropic":
            counts = {"succeeded" if ended else "processing": n_rows}
            word = "ended" if ended else "in_progress"
            batch = {"id": one, "processing_status": word, "request_counts": counts}
            return {**batch, "created_at": at.isoformat(), "results_url": "http://elsewhere.example/results"}
        word = "completed" if ended else "running"
        return {"id": one, "status": word, "request_count": n_rows, "created_at": at.isoformat()}

    def page(self, *batches: dict[str, Any], more: str = "") -> bytes:
        if self.name == "anthropic":
            return json.dumps({"data": batches, "has_more": bool(more), "last_id": more or None}).encode()
        return json.dumps({"items": batches}).encode()

    def rows(self, *custom_ids: str) -> bytes:
        lines = []
        for one in custom_ids:
            body = {"n": one}
            if self.name == "anthropic":
                fields: dict[str, Any] = {"result": {"type": "succeeded", "message": body}}
            else:
                fields = {"status": "completed", "result_json": body, "error_json": None}
            lines.append(json.dumps({"custom_id": one, **fields}) + "\n")
        return "".join(lines).encode()


@pytest.fixture(params=INLINE)
def inline(request: pytest.FixtureRequest, wire: Wire, http: httpx.AsyncClient) -> Desk:
    name = str(request.param)
    account = Account(base_url=wire.url, headers=credential(name, KEY), http=http, digest="a" * 20)
    return Desk(provider=providers.load(name), account=account)


def ending(one: str = "batch-1") -> Ending:
    return Ending(results=(one,))


async def test_every_body_goes_out_as_it_is(wire: Wire, inline: Desk) -> None:
    wire.reply = lambda seen: answer(json.dumps(Told(inline).batch("batch-7")).encode(), status=201)
    requests = {"r0": EXOTIC, "r1": b'{\n "model": "m",\r\n "messages": []\n}', "r2": inline.body()}
    assert await inline.submit(requests) == "batch-7"
    (seen,) = wire.seen
    sent = json.loads(seen.body)
    assert EXOTIC in seen.body
    assert [row["custom_id"] for row in sent["requests"]] == ["r0", "r1", "r2"]
    for row, body in zip(sent["requests"], requests.values(), strict=True):
        [(_, sent_body)] = [item for item in row.items() if item[0] != "custom_id"]
        assert sent_body == json.loads(body)
    assert int(seen.header("content-length") or 0) == len(seen.body)
    assert seen.header("transfer-encoding") is None
    assert seen.header("content-type") == "application/json"
    assert KEY in seen.head


async def test_lines_are_read_from_their_start(wire: Wire, inline: Desk) -> None:
    wire.reply = lambda seen: answer(json.dumps(Told(inline).batch("batch-7")).encode())
    lines = inline.lines(inline.requests(3))
    lines.seek(40)
    source = Source(file_id="", lines=lines)
    await inline.provider.create(inline.account, submission(n_lines=3), source)
    assert len(json.loads(wire.seen[0].body)["requests"]) == 3


async def test_a_create_is_not_held_in_memory(inline: Desk) -> None:
    line, n_lines = inline.lines({"r0": inline.body("x" * 1_000)}).getvalue(), 20_000
    received = Discarded(json.dumps(Told(inline).batch("batch-7")).encode())
    with tempfile.TemporaryFile() as lines:
        for _ in range(n_lines):
            lines.write(line)
        n_bytes = lines.tell()
        async with httpx.AsyncClient(transport=received) as http:
            account = dataclasses.replace(inline.account, http=http)
            source = Source(file_id="", lines=lines)
            tracemalloc.start()
            try:
                await inline.provider.create(account, submission(n_lines=n_lines), source)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert received.n_bytes >= n_bytes > 20_000_000
    assert peak < 4_000_000


@pytest.mark.parametrize("reply", [answer(b"{}"), answer(b'{"id":null}'), answer(b'{"id":"ba', length=99)])
async def test_an_answer_without_an_id_may_have_made_a_batch(wire: Wire, inline: Desk, reply: bytes) -> None:
    wire.reply = lambda seen: reply
    with pytest.raises(MaybeDone):
        await inline.submit()
    assert len(wire.seen) == 1


@pytest.mark.parametrize(("status", "kind"), [(529, MaybeDone), (500, MaybeDone), (409, MaybeDone)])
async def test_a_provider_in_trouble_may_have_made_a_batch(
    wire: Wire, inline: Desk, status: int, kind: type[Exception]
) -> None:
    wire.reply = lambda seen: answer(b'{"error":{"message":"Overloaded"}}', status=status)
    with pytest.raises(kind):
        await inline.submit()
    assert len(wire.seen) == 1


async def test_too_large_a_create_is_refused_in_the_providers_words(wire: Wire, inline: Desk) -> None:
    wire.reply = lambda seen: answer(b'{"error":{"message":"Too many bytes."}}', status=413)
    with pytest.raises(PermanentError, match="Too many bytes") as caught:
        await inline.submit()
    assert caught.value.status == 413


async def test_a_full_quota_raises_quota_full(wire: Wire, inline: Desk) -> None:
    wire.reply = lambda seen: answer(b'{"error":{"message":"Enqueued token limit reached"}}', status=429)
    with pytest.raises(QuotaFull):
        await inline.submit()


async def test_a_batch_is_made_of_lines(inline: Desk) -> None:
    with pytest.raises(ValueError, match="made of lines"):
        await inline.provider.create(inline.account, submission(), Source(file_id=""))


async def test_nothing_is_uploaded_beforehand(wire: Wire, inline: Desk) -> None:
    assert await inline.upload() == ""
    assert wire.seen == []


async def find(desk: Desk, n_rows: int = 2, others: tuple[str, ...] = ()) -> list[ProviderBatchId]:
    return await desk.find(since=NOW, ours=[f"r{n}" for n in range(n_rows)], others=others)


async def test_only_batches_of_as_many_rows_are_read(wire: Wire, inline: Desk) -> None:
    told = Told(inline)
    batches = [
        told.batch("larger", 3, ended=True),
        told.batch("other", 2, ended=True),
        told.batch("ours", 2, ended=True),
        told.batch("open", 9),
    ]
    replies = {"/ours/": told.rows("r0", "r1"), "/other/": told.rows("s0", "s1")}
    replies |= {f"/{one['id']}": json.dumps(one).encode() for one in batches}
    wire.reply = lambda seen: answer(
        next((said for place, said in replies.items() if place in seen.target), told.page(*batches))
    )
    assert await find(inline) == ["ours"]
    assert not [seen for seen in wire.seen if "/larger" in seen.target or "/open" in seen.target]


async def test_nothing_is_concluded_before_a_candidate_has_ended(wire: Wire, inline: Desk) -> None:
    told = Told(inline)
    wire.reply = lambda seen: answer(
        told.page(told.batch("open", 2)) if "/open" not in seen.target else told_batch(told, "open")
    )
    with pytest.raises(TemporaryError, match="may be"):
        await find(inline)
    assert await find(inline, others=("open",)) == []


async def test_a_candidate_whose_results_cannot_be_read_is_not_ruled_out(wire: Wire, inline: Desk) -> None:
    told = Told(inline)

    def reply(seen: Seen) -> bytes:
        if "/results" in seen.target:
            return answer(b"{}", status=404)
        shown = told.batch("ours", 2, ended=True)
        return answer(json.dumps(shown).encode() if "/ours" in seen.target else told.page(shown))

    wire.reply = reply
    with pytest.raises(TemporaryError, match="may be"):
        await find(inline)


async def test_batches_of_long_ago_are_left_alone(wire: Wire, inline: Desk) -> None:
    told = Told(inline)
    old = told.batch("old", 2, ended=True, at=NOW - list_search.CLOCKS_APART - dt.timedelta(seconds=1))
    wire.reply = lambda seen: answer(told.page(old, more="old"))
    assert await find(inline) == []
    assert len(wire.seen) == 1


async def test_a_list_that_cannot_be_read_says_nothing(wire: Wire, inline: Desk) -> None:
    wire.reply = lambda seen: answer(b"{}", status=503)
    with pytest.raises(TemporaryError):
        await find(inline)


async def test_what_a_list_leaves_out_is_looked_at_by_itself(wire: Wire, inline: Desk) -> None:
    told = Told(inline)

    def reply(seen: Seen) -> bytes:
        if "/second" in seen.target:
            return answer(json.dumps(told.batch("second", ended=True)).encode())
        if "/gone" in seen.target:
            return answer(b"{}", status=404)
        if "/first" in seen.target:
            return answer(json.dumps(told.batch("first")).encode())
        return answer(told.page(told.batch("first"), told.batch("third"), told.batch("strange")))

    wire.reply = reply
    ids = [ProviderBatchId(one) for one in ("first", "second", "gone", "third")]
    looks = await inline.provider.look(inline.account, ids)
    assert {one: type(look).__name__ for one, look in looks.items()} == {
        "first": "Running",
        "second": "Ended",
        "gone": "NotFound",
        "third": "Running",
    }


@pytest.mark.parametrize("inline", ["anthropic"], indirect=True)
async def test_a_search_goes_on_behind_an_empty_page(wire: Wire, inline: Desk) -> None:
    told = Told(inline)
    ours = told.batch("ours", 2, ended=True)
    replies = {"/ours/": told.rows("r0", "r1"), "/ours": json.dumps(ours).encode(), "=next": told.page(ours)}
    wire.reply = lambda seen: answer(
        next((said for place, said in replies.items() if place in seen.target), told.page(more="next"))
    )
    assert await find(inline) == ["ours"]
    wire.reply = lambda seen: answer(told.page(more="next"))
    with pytest.raises(TemporaryError, match="the same again"):
        await find(inline)


@pytest.mark.parametrize("inline", ["anthropic"], indirect=True)
@pytest.mark.parametrize("has_more", ['"has_more": "true"', '"last_id": "full"'])
async def test_a_search_goes_on_behind_a_page_that_does_not_say_that_it_is_the_last(
    wire: Wire, inline: Desk, has_more: str
) -> None:
    told = Told(inline)
    ours = told.batch("ours", 2, ended=True)
    first = b'{"data": [%b], %b}' % (json.dumps(told.batch("full", 9)).encode(), has_more.encode())
    replies = {"/ours/": told.rows("r0", "r1"), "/ours": json.dumps(ours).encode(), "=full": told.page(ours)}
    wire.reply = lambda seen: answer(
        next((said for place, said in replies.items() if place in seen.target), first)
    )
    assert await find(inline) == ["ours"]


@pytest.mark.parametrize("inline", ["anthropic"], indirect=True)
async def test_a_server_that_shows_its_whole_list_each_time_is_searched_to_its_end(
    wire: Wire, inline: Desk
) -> None:
    batches = json.dumps([Told(inline).batch(one, 9) for one in ("a", "b")]).encode()
    wire.reply = lambda seen: answer(b'{"data": %b}' % batches)
    assert await find(inline) == []
    assert len(wire.seen) == 2


@pytest.mark.parametrize("inline", ["anthropic"], indirect=True)
@pytest.mark.parametrize("counts", [{}, {"succeeded": 0, "processing": 2}, {"errored": 2}])
async def test_counts_that_do_not_add_up_do_not_deny_that_requests_were_answered(
    wire: Wire, inline: Desk, counts: dict[str, int]
) -> None:
    shown = {**Told(inline).batch("b", 2, ended=True), "request_counts": counts}
    wire.reply = lambda seen: answer(json.dumps(shown).encode())
    assert (await inline.ended(ProviderBatchId("b"))).ending.n_succeeded is None


@pytest.mark.parametrize("inline", ["anthropic"], indirect=True)
@pytest.mark.parametrize("word", ["errored", "failed"])
@pytest.mark.parametrize(
    "error",
    [
        {"message": "No room."},
        "No room.",
        {"type": "error", "error": "No room."},
        {"error": {"message": "No room."}},
    ],
)
async def test_the_words_of_a_failed_row_arrive_whatever_else_it_lacks(
    wire: Wire, inline: Desk, word: str, error: object
) -> None:
    row = {"custom_id": "r0", "result": {"type": word, "error": error}}
    wire.reply = lambda seen: answer(json.dumps(row).encode() + b"\n")
    (failed,) = await inline.answers(ending())
    assert (failed.custom_id, failed.status, failed.origin) == ("r0", 500, "provider")
    assert b"No room." in failed.body


@pytest.mark.parametrize("inline", ["anthropic"], indirect=True)
async def test_the_results_of_an_archived_batch_are_read_and_no_row_counts_as_lost(
    wire: Wire, inline: Desk
) -> None:
    told = Told(inline)
    shown = {**told.batch("b", 2, ended=True), "archived_at": NOW.isoformat(), "results_url": None}
    wire.reply = lambda seen: answer(
        told.rows("r0", "r1") if "/results" in seen.target else json.dumps(shown).encode()
    )
    look = await inline.ended(ProviderBatchId("b"))
    assert (look.outcome, look.ending.n_succeeded) == (Outcome.COMPLETED, 2)
    assert [one.custom_id for one in await inline.answers(look.ending)] == ["r0", "r1"]


@pytest.mark.parametrize("body", [b'{"error":{"message":"busy"}}', b"{}"])
async def test_an_answer_that_is_not_a_page_proves_nothing(wire: Wire, inline: Desk, body: bytes) -> None:
    wire.reply = lambda seen: answer(body)
    with pytest.raises(TemporaryError):
        await find(inline)


async def test_a_strange_status_is_not_an_end(wire: Wire, inline: Desk) -> None:
    field = "processing_status" if Told(inline).name == "anthropic" else "status"
    for word in ("paused", "", None, 7):
        shown = {**Told(inline).batch("b", ended=True), field: word}
        wire.reply = lambda seen, shown=shown: answer(json.dumps(shown).encode())  # type: ignore[misc]
        assert isinstance(await inline.look(ProviderBatchId("b")), Running)


async def test_ids_stay_in_their_place_of_the_path(wire: Wire, inline: Desk) -> None:
    wire.reply = lambda seen: answer(json.dumps(Told(inline).batch("../x")).encode())
    await inline.look(ProviderBatchId("../x?y"))
    await inline.provider.cancel(inline.account, ProviderBatchId("../x?y"))
    assert all("/..%2Fx%3Fy" in seen.target for seen in wire.seen)


async def test_no_other_host_is_asked_for_them(wire: Wire, inline: Desk) -> None:
    told = Told(inline)
    wire.reply = lambda seen: answer(
        told.rows("r0") if "/results" in seen.target else json.dumps(told.batch("b", ended=True)).encode()
    )
    done = await inline.ended(ProviderBatchId("b"))
    assert [one.custom_id for one in await inline.answers(done.ending)] == ["r0"]
    assert all("elsewhere" not in seen.target for seen in wire.seen)


@pytest.mark.parametrize("status", [404, 410])
async def test_results_that_are_not_there_are_denied(wire: Wire, inline: Desk, status: int) -> None:
    wire.reply = lambda seen: answer(b"{}", status=status)
    with pytest.raises(Denied):
        await inline.answers(ending())


async def test_what_breaks_off_goes_on_without_gap_or_double(
    wire: Wire, inline: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchling_worker.dialects.provider_call.RESUME_PAUSE_S", 0.0)
    ids = [f"r{n}" for n in range(50)]
    whole = Told(inline).rows(*ids)
    cuts = iter((7, len(whole) // 2, len(whole) - 1))
    wire.reply = lambda seen: answer(whole[: next(cuts, len(whole))], length=len(whole))
    assert [one.custom_id for one in await inline.answers(ending())] == ids


async def test_ten_thousand_rows_need_no_more_memory_than_five_hundred(wire: Wire, inline: Desk) -> None:
    chunk = Told(inline).rows(*(f"r{n}" for n in range(500)))

    async def stream(n_chunks: int) -> AsyncIterator[bytes]:
        yield answer(b"", length=len(chunk) * n_chunks)
        for _ in range(n_chunks):
            yield chunk

    peaks = []
    for n_chunks in (1, 1, 20):
        wire.reply = lambda seen, n=n_chunks: stream(n)  # type: ignore[misc]
        tracemalloc.start()
        try:
            n_rows = 0
            async for _ in inline.provider.results(inline.account, ending()):
                n_rows += 1
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert n_rows == 500 * n_chunks
        peaks.append(peak)
    assert peaks[2] < peaks[1] + 1_000_000


async def test_one_bad_line_costs_no_other(wire: Wire, inline: Desk) -> None:
    good = Told(inline).rows("r0", "r1")
    bad = [b"[]", b"7", b'{"custom_id":7}', b'{"custom', b'{"custom_id":""}', b"\xff\xfe", b"[" * 100_000]
    wire.reply = lambda seen: answer(b"\n".join([*bad, good, b"", *bad]))
    assert [one.custom_id for one in await inline.answers(ending())] == ["r0", "r1"]


async def test_a_row_in_json_that_python_alone_takes_is_read(wire: Wire, inline: Desk) -> None:
    line = Told(inline).rows("r0").replace(b'"n": "r0"', b'"n": "half a pair \\ud83d", "x": NaN')
    wire.reply = lambda seen: answer(b"\xef\xbb\xbf" + line)
    [one] = await inline.answers(ending())
    assert (one.custom_id, one.status) == ("r0", 200)
    assert "half a pair" in json.loads(one.body)["n"]


async def test_bodies_come_as_they_were_sent(wire: Wire, inline: Desk) -> None:
    body = b'{"text":"a\\u2028b \xc3\xa9", "n":1.50,  "big":12345678901234567890}'
    line = Told(inline).rows("r0").replace(b'{"n": "r0"}', body)
    wire.reply = lambda seen: answer(line)
    [one] = await inline.answers(ending())
    assert one.body == body


class Discarded(httpx.AsyncBaseTransport):
    """Read a request piece by piece, keep nothing, and answer."""

    def __init__(self, body: bytes) -> None:
        self.n_bytes = 0
        self._body = body

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for piece in request.stream:
            self.n_bytes += len(piece)
        assert request.headers["content-length"] == str(self.n_bytes)
        return httpx.Response(200, content=self._body)


def told_batch(told: Told, one: str) -> bytes:
    return json.dumps(told.batch(one, 2)).encode()
