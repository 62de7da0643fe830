"""xAI's Batch API: requests are appended to a container, which answers row by row and never says that it is done."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import functools
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import BinaryIO, Final
from urllib.parse import quote

import msgspec

from batchling_client.wire import answer_shape, error_words
from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.routes import route_of
from batchling_client.wire.states import Outcome

from ..dialects import bounds, creates, http_errors
from ..dialects.lenient_json import elements_of, object_in, text_in, value_in
from ..dialects.list_search import SearchPage, made_since
from ..dialects.openai.chat_as_response import as_response
from ..dialects.poll_many import BatchList, Hint, ListPage, looked_at, one_look
from ..dialects.provider_call import ProviderCall, known
from ..dialects.request_line import one_line
from ..dialects.result_file import log_skipped, no_result_file
from ..dialects.result_lines import Fields, LineReader
from ..dialects.row_answers import JSON_HEADERS, UNRUN, answer_of, lost
from ..dialects.row_errors import LONGEST_WORDS, stated_in
from ..errors import CreateBegun, Denied, FileNotReady, PermanentError, TemporaryError, TooLarge
from ..provider import (
    Account,
    Answer,
    Complaint,
    Ended,
    Ending,
    Look,
    Other,
    ProviderFacts,
    Running,
    SearchCriteria,
    Seen,
    Source,
    SpentFiles,
    Submission,
    label_in,
)

FACTS: Final = ProviderFacts(
    route=route_of("xai"),
    looks_at_once=100,
    searchable=True,
    early_results=True,
    discount_percent=20,
    source="https://docs.x.ai/docs/guides/batch-api",
    checked_on=dt.date(2026, 11, 23),
    verified=("docs", "capture"),
    inline=True,
    repeatable=True,
)

KINDS: Final = {
    "/v1/chat/completions": "chat_get_completion",
    "/v1/responses": "responses",
    "/v1/images/generations": "image_generation",
    "/v1/images/edits": "image_edit",
    "/v1/videos": "video_generation",
    "/v1/videos/generations": "video_generation",
    "/v1/videos/extensions": "video_extension",
}
"""Endpoint -> the name of a row's request field."""
PIECE_ROWS: Final = 2_000
PIECE_BYTES: Final = 12_000_000
"""The size of an append call: xAI accepts 25 MB, and a piece is held in memory."""
LIST_ROWS: Final = "100"
RESULT_ROWS: Final = (250, 25, 1)
"""Rows in a page of results, which is held in memory: fewer once a page proves too large."""
PAGE_BYTES: Final = 16 * 1024 * 1024
MOST_PAGES: Final = 250_000
"""Pages of results of one container: no container holds more rows."""
MOST_BARREN: Final = 100
"""So many pages in a row without a row are no results any more."""
CANCEL_SETTLES: Final = dt.timedelta(seconds=20)
"""How long after a cancel a cancelled row may still turn out to have succeeded."""
APPEND_SETTLES: Final = dt.timedelta(minutes=10)
"""How long the counters of a container with too few rows are taken to lag behind."""
ERROR_FIELDS: Final = frozenset({"error", "code", "message", "detail"})
"""What an error under a 200 has instead of results."""
CANNOT_BE_CANCELLED: Final = frozenset({403, 412})
OTHER_CONTENT: Final = 412
STATUSES: Final = {
    3: 400,
    4: 504,
    5: 404,
    7: 403,
    8: 429,
    9: 400,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    16: 401,
}
"""gRPC code of a row's error -> HTTP status."""
CANCELLED_CODE: Final = 1

_NAME: Final = re.compile(r"(\S+) (\d{1,9}) (\w+)(?: (\d{1,11}))?")


class _State(msgspec.Struct, frozen=True):
    num_requests: object = 0
    num_pending: object = 0
    num_success: object = 0
    num_error: object = 0
    num_cancelled: object = 0


class _Container(msgspec.Struct, frozen=True):
    """A batch as it is shown; every field may be absent or of an undocumented type."""

    batch_id: object = None
    name: object = None
    create_time: object = None
    expire_time: object = None
    cancel_time: object = None
    cancel_by_xai_message: object = None
    state: object = None

    @property
    def known_id(self) -> str:
        return bounds.identifier(self.batch_id)

    @property
    def named(self) -> Other:
        """What tells it from other containers."""
        return Other(provider_batch_id=self.known_id, label=bounds.text(self.name).partition(" ")[0])

    @property
    def counts(self) -> _State:
        return msgspec.convert(self.state, _State) if isinstance(self.state, dict) else _State()


class _Page(msgspec.Struct, frozen=True):
    batches: list[_Container] | None = None
    pagination_token: object = None
    error: object = None
    """Set if a 200 carries an error: such a page does not mean that the list is empty."""


class Xai:
    """xAI's batches: one container per batch, found by its name and filled in pieces that may be sent twice."""

    facts: Final = FACTS

    def line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """Return one request as an element of an append call; newlines between the tokens of the body become spaces."""
        row = msgspec.json.encode(custom_id), msgspec.json.encode(KINDS[endpoint]), one_line(body)
        return b'{"batch_request_id":%b,"batch_request":{%b:%b}}\n' % row

    async def upload(self, account: Account, submission: Submission, lines: BinaryIO) -> str:
        """Create an empty container, which costs nothing; its name says whose it is and what it will hold."""
        call = self._call(account, "make a container", "POST", "/batches")
        container = await call.tell(_Container, {"name": _name(submission)})
        return creates.made(call.call_info, container.named, submission.label)

    async def create(self, account: Account, submission: Submission, source: Source) -> ProviderBatchId:
        """Append the requests piece by piece; the provider skips requests that the container already holds.

        Where a piece is refused after others were taken, the batch is what they hold: they run, and are paid for.
        """
        if source.lines is None:
            raise RuntimeError("xai was given no lines to append")
        container = source.file_id
        for n_taken, piece in enumerate(pieces(source.lines)):
            call = self._call(
                account,
                "append requests",
                "POST",
                f"/batches/{quote(container, safe='')}/requests",
                paid=True,
            )
            try:
                await call.give(piece)
            except PermanentError as error:
                if error.status == 404:
                    raise (TemporaryError if n_taken else FileNotReady)(str(error)) from None
                if n_taken or error.status == OTHER_CONTENT:
                    break
                raise
        return ProviderBatchId(container)

    async def find(self, account: Account, criteria: SearchCriteria) -> list[ProviderBatchId]:
        """Return the container once it holds every row; raises `CreateBegun` for a container known only by its name."""
        label, n_lines = criteria.submission.label, criteria.submission.n_lines
        known = [await self._shown(account, one) for one in criteria.input_file_ids]
        made = [one for one in known if one is not None]
        if not made:
            listed = made_since(
                functools.partial(self._search_page, account),
                made_at=lambda one: _moment(one.create_time),
                since=criteria.since,
                provider=FACTS.name,
                label=label,
                ordered=False,
            )
            made = [
                one
                async for one, is_older in listed
                if one.known_id and not is_older and label_in(one.named.label, label)
            ]
            made.reverse()
        whole = [
            one for one in made if bounds.count(one.counts.num_requests) >= max(1, _n_meant(one) or n_lines)
        ]
        if not whole and made and not criteria.input_file_ids:
            fullest = max(made, key=lambda one: bounds.count(one.counts.num_requests))
            raise CreateBegun(fullest.known_id)
        return [ProviderBatchId(one.known_id) for one in whole]

    async def look(
        self, account: Account, provider_batch_ids: Sequence[ProviderBatchId]
    ) -> Mapping[ProviderBatchId, Seen]:
        """Return the state of each batch, from the list if there are several."""
        batches = BatchList(
            name="/batches", ids=provider_batch_ids, page=lambda token: self._list_page(account, token)
        )
        return await looked_at(
            account, provider_batch_ids, lists=[batches], at_one=lambda one: self._look_at(account, one)
        )

    async def results(self, account: Account, ending: Ending) -> AsyncGenerator[Answer, None]:
        """Yield every readable row, page by page; an early reading repeats its last page next time."""
        for reference in ending.results:
            container, _, kind = reference.partition(" ")
            # A hash is enough to know a token again.
            token, tokens, n_barren = ending.after, {hash(ending.after)}, 0
            rows = reader(kind)
            sizes = list(RESULT_ROWS)
            while True:
                try:
                    page = await self._result_page(account, container, token, sizes[0])
                except TooLarge:
                    if len(sizes) == 1:
                        raise
                    sizes.pop(0)
                    continue
                answers = await asyncio.to_thread(_answers, rows, page)
                n_barren = 0 if answers else n_barren + 1
                for answer in answers:
                    yield dataclasses.replace(answer, cursor=token)
                following = text_in(page.get("pagination_token", b""))
                if not following:
                    break
                if hash(following) in tokens or len(following) > bounds.LONGEST_CURSOR:
                    raise TemporaryError("xai names a page of results as the next one again")
                if n_barren > MOST_BARREN or len(tokens) >= MOST_PAGES:
                    raise TemporaryError("xai names more pages of results than there are rows")
                token = following
                tokens.add(hash(token))
            if rows.n_broken:
                log_skipped(FACTS.name, container, rows)

    async def _result_page(
        self, account: Account, container: str, token: str, n_rows: int
    ) -> dict[str, bytes]:
        """Return the fields of a page of results; raises `TooLarge` where it does not fit into memory."""
        path = f"/batches/{quote(container, safe='')}/results"
        call = self._call(account, "read results", "GET", path)
        query = [("limit", str(n_rows)), *([("pagination_token", token)] if token else [])]
        try:
            page = await call.rows(query, PAGE_BYTES)
        except PermanentError as error:
            if error.status != 404:
                raise
            raise Denied(str(error)) from None
        if "results" not in page and not page.keys().isdisjoint(ERROR_FIELDS):
            raise no_result_file(FACTS.name, container)
        return page

    async def delete(self, account: Account, spent: SpentFiles) -> None:
        """Do nothing: a container holds the requests and their results, and expires after thirty days."""

    async def cancel(self, account: Account, provider_batch_id: ProviderBatchId) -> None:
        """Ask the provider to cancel; succeed if the batch is done or unknown."""
        path = f"/batches/{quote(provider_batch_id, safe='')}:cancel"
        await self._call(account, "cancel a batch", "POST", path).cancel(fine=CANNOT_BE_CANCELLED)

    def _call(
        self, account: Account, does: str, method: str, path: str, *, paid: bool = False
    ) -> ProviderCall:
        return ProviderCall(account, FACTS.name, does, method, f"/v1{path}", paid=paid)

    async def _page(self, account: Account, does: str, token: str) -> tuple[_Page, ProviderCall]:
        """Return a page of the list and the call. Raises `TemporaryError` if the answer is not a page."""
        call = self._call(account, does, "GET", "/batches")
        page = await call.ask_list(
            _Page, [("limit", LIST_ROWS), *([("pagination_token", token)] if token else [])]
        )
        if page.error is not None:
            raise http_errors.of_unreadable(call.call_info)
        return page, call

    async def _search_page(self, account: Account, token: str, _: dt.datetime) -> SearchPage[_Container]:
        page, call = await self._page(account, "search its batches", token)
        return SearchPage(page.batches or (), bounds.cursor(page.pagination_token), call.behind)

    async def _list_page(self, account: Account, token: str) -> ListPage:
        page, call = await self._page(account, "look at batches", token)
        hints = [
            Hint.of(one.known_id, _told(one, call.answered_at)) for one in page.batches or () if one.known_id
        ]
        return ListPage(hints=hints, following=bounds.cursor(page.pagination_token))

    async def _shown(self, account: Account, container: str) -> _Container | None:
        call = self._call(account, "look at a batch", "GET", f"/batches/{quote(container, safe='')}")
        return await known(call.ask(_Container))

    async def _look_at(self, account: Account, provider_batch_id: ProviderBatchId) -> Look:
        call = self._call(account, "look at a batch", "GET", f"/batches/{quote(provider_batch_id, safe='')}")

        def told(container: _Container) -> tuple[Running | Ended, Other] | None:
            return (_told(container, call.answered_at), container.named) if container.known_id else None

        return await one_look(call, call.ask(_Container), provider_batch_id, told)


def _answers(rows: LineReader, page: Mapping[str, bytes]) -> list[Answer]:
    return list(rows.answers(elements_of(page.get("results", b""))))


def pieces(lines: BinaryIO) -> Iterator[bytes]:
    """Yield the bodies of the append calls that hold these lines."""
    rows: list[bytes] = []
    size = 0
    for line in lines:
        if rows and (len(rows) >= PIECE_ROWS or size + len(line) > PIECE_BYTES):
            yield b'{"batch_requests":[%b]}' % b",".join(rows)
            rows, size = [], 0
        rows.append(line.rstrip(b"\n"))
        size += len(line)
    if rows:
        yield b'{"batch_requests":[%b]}' % b",".join(rows)


def _name(submission: Submission) -> str:
    """Return the name of a container: label, number of rows, their kind, and the second of its creation.

    The kind is the only word on how the rows are to be told, and over REST a container shows no more of its making than
    the day (2026-11-23).
    """
    second = int(dt.datetime.now(dt.UTC).timestamp())
    return f"{submission.label} {submission.n_lines} {KINDS[submission.endpoint]} {second}"


def _n_meant(container: _Container) -> int:
    """Return how many rows the container is meant for; 0 if its name does not say."""
    named = _NAME.fullmatch(bounds.text(container.name))
    return int(named[2]) if named else 0


def _made_at(container: _Container) -> dt.datetime | None:
    """Return when the container was created, by the clock of the worker that named it; None if nothing says."""
    named = _NAME.fullmatch(bounds.text(container.name))
    if named is None or named[4] is None:
        return _moment(container.create_time)
    return dt.datetime.fromtimestamp(int(named[4]), dt.UTC)


def _told(container: _Container, now: dt.datetime) -> Running | Ended:
    """Return the state of a container; xAI has no status word for it, and all counters are 0 at first."""
    counts = container.counts
    n_total, n_pending, n_succeeded = (
        bounds.count(one) for one in (counts.num_requests, counts.num_pending, counts.num_success)
    )
    n_done = n_succeeded + bounds.count(counts.num_error) + bounds.count(counts.num_cancelled)
    named = _NAME.fullmatch(bounds.text(container.name))
    reference = f"{container.known_id} {named[3] if named else ''}"
    refusal = bounds.text(container.cancel_by_xai_message)
    complaints = (Complaint(code="", message=refusal),) if refusal else ()

    def ended(status: str, outcome: Outcome) -> Ended:
        ending = Ending(
            results=(reference,) if n_total else (),
            complaints=complaints,
            # Counters that do not count all requests lag behind.
            n_succeeded=n_succeeded if n_succeeded or n_done >= n_total else None,
        )
        return Ended(status=status, outcome=outcome, ending=ending, n_done=n_done, n_total=n_total)

    if refusal and not n_pending:
        return ended("rejected", Outcome.FAILED)
    if refusal or container.cancel_time is not None:
        cancelled_at = _moment(container.cancel_time)
        settled = cancelled_at is None or now - cancelled_at >= CANCEL_SETTLES
        if settled and not n_pending:
            return ended("cancelled", Outcome.CANCELLED)
        return Running(status="cancelling", n_done=n_done, n_total=n_total)
    if n_total and not n_pending and not _lags(container, n_total, now):
        return ended("completed", Outcome.COMPLETED)
    if _has_expired(container, now):
        return ended("expired", Outcome.EXPIRED)
    return Running(
        status="running" if n_total else "pending",
        n_done=n_done,
        n_total=n_total,
        early=Ending(results=(reference,)) if n_succeeded else None,
    )


def _lags(container: _Container, n_total: int, now: dt.datetime) -> bool:
    """Return whether counters may lag behind the rows: settling the batch now would run missing rows again.

    A worker's clock that is far off tells nothing.
    """
    made_at = _made_at(container)
    return n_total < _n_meant(container) and made_at is not None and abs(now - made_at) < APPEND_SETTLES


def _has_expired(container: _Container, now: dt.datetime) -> bool:
    said = bounds.text(container.expire_time)
    moment = _moment(said)
    if moment is not None:
        return now >= moment
    try:
        return now.date() > dt.date.fromisoformat(said)
    except ValueError:
        return False


def _moment(said: object) -> dt.datetime | None:
    """Return a timestamp; None for a bare date, which some containers show."""
    words = bounds.text(said)
    return bounds.aware(words) if "T" in words else None


def reader(kind: str) -> LineReader:
    """Return a reader of the rows of requests of that kind."""
    return LineReader(read=functools.partial(_answer, kind), id_of=_request_id)


def _request_id(row: Fields) -> str:
    return text_in(row.get("batch_request_id", b""))


def _answer(kind: str, custom_id: str, row: Fields) -> Answer:
    result = object_in(row.get("batch_result"))
    for name, body in object_in(answer_shape.unpacked(result.get("response", b""))).items():
        return _told_as(custom_id, name, body, kind)
    error = value_in(result.get("error")) or value_in(row.get("error_message"))
    if not error:
        raw = stated_in(result) or stated_in(row)
        error = value_in(raw) or raw[:LONGEST_WORDS].decode(errors="replace")
    return _failed(custom_id, error) if error else lost(custom_id)


def _told_as(custom_id: str, name: str, body: bytes, kind: str) -> Answer:
    """Return the answer; requests for a response are answered in the shape of a chat and converted."""
    body = answer_shape.unpacked(body)
    if name == KINDS["/v1/chat/completions"] and kind == KINDS["/v1/responses"]:
        # A body that cannot be read as a chat is reported to its caller by `answer_check`.
        with contextlib.suppress(ValueError, RecursionError):
            body = as_response(body)
    return answer_of(custom_id, 200, body)


def _failed(custom_id: str, error: object) -> Answer:
    """Return the answer of a failed row; its error is a sentence, at best with a gRPC code, never an HTTP status."""
    said = error if isinstance(error, dict) else {"message": error}
    code, message = said.get("code"), said.get("message")
    if code == CANCELLED_CODE:
        status, origin = UNRUN["batch_cancelled"]
    else:
        named = error_words.named_in(said)
        status, origin = (
            STATUSES.get(code, named or 500) if isinstance(code, int) else named or 500,
            "provider",
        )
    words = message if isinstance(message, str) else msgspec.json.encode(error).decode()
    body = msgspec.json.encode({"code": str(code or "batch_row_failed"), "error": words})
    return Answer(custom_id=custom_id, status=status, body=body, headers=JSON_HEADERS, origin=origin)


PROVIDER: Final = Xai()
