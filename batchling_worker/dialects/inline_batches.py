"""Batches whose create takes the requests themselves: streamed there, and found again by number and rows."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final, Protocol, TypeAlias
from urllib.parse import quote

import msgspec

from batchling_client.wire.keys import ProviderBatchId

from ..decisions import status_words
from ..errors import Denied, PermanentError
from ..provider import (
    Account,
    Answer,
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
)
from . import creates, http_errors
from .list_search import SearchPage, made_since
from .poll_many import BatchList, Hint, ListPage, StrangeWords, looked_at, one_look
from .provider_call import ProviderCall
from .request_line import one_line
from .result_file import rows_of
from .result_lines import LineReader
from .row_search import found_by_rows

CREATE_PATIENCE: Final = 2.5
"""How many times longer than usual a provider may chew on a create that holds all of its requests."""
PIECE_BYTES: Final = 256 * 1024
MOST_FOUND: Final = 1_000
PERHAPS: Final = "perhaps:"
"""Begins a reference to results that the provider may not have."""

_NEWLINES_TO_COMMAS: Final = bytes.maketrans(b"\n", b",")

Query: TypeAlias = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A batch as its provider shows it; `n_rows` is 0 where it does not tell."""

    provider_batch_id: ProviderBatchId
    look: Running | Ended
    n_rows: int
    created_at: dt.datetime | None

    @property
    def named(self) -> Other:
        """What tells it from other batches."""
        return Other(provider_batch_id=self.provider_batch_id)


class BatchShape(Protocol):
    """A batch object, read leniently."""

    def shown(self) -> Shown:
        """Return what the batch shows of itself."""
        ...


class PageShape(Protocol):
    """A page of a list of batches, newest first."""

    @property
    def batches(self) -> Sequence[BatchShape]: ...

    @property
    def is_whole(self) -> bool:
        """Whether it is a page at all, and not an error or another object under a 200."""
        ...

    @property
    def next_cursor(self) -> str:
        """The cursor of the page after this one, or ''; raises `TemporaryError` where there is one, and no cursor."""
        ...

    @property
    def tells_more(self) -> bool:
        """Whether it says if it is the last page; where it does not, only what follows it shows that."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineDialect:
    """Where such providers differ."""

    root: str
    """The path of the batches."""
    opening: Callable[[Submission], bytes]
    """Makes the part of a create's body that comes before the requests."""
    body_name: str
    """What the body of a request is called in it."""
    batch: type[BatchShape]
    page: type[PageShape]
    page_query: Callable[[str, int], Query]
    """The query for the page at a cursor ('' is the first), where so many batches are wanted."""
    read_row: Callable[[str, Mapping[str, bytes]], Answer]
    """The answer of a result line from its custom_id and its fields, each in JSON."""
    results: str
    """What stands behind the path of a batch in that of its results."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent where the callers of a lane sent none of that name."""


class InlineBatches:
    """A provider that takes the requests with the create."""

    def __init__(self, facts: ProviderFacts, dialect: InlineDialect) -> None:
        self._facts = facts
        self._dialect = dialect
        self._strange_words = StrangeWords(facts.name)

    @property
    def facts(self) -> ProviderFacts:
        return self._facts

    def line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """Return one request as an element of the create's list; the body goes in as it is."""
        name, key = msgspec.json.encode(custom_id), msgspec.json.encode(self._dialect.body_name)
        return b'{"custom_id":%b,%b:%b}\n' % (name, key, one_line(body))

    async def upload(self, account: Account, submission: Submission, lines: BinaryIO) -> str:
        """Return '': nothing is stored before the create."""
        return ""

    async def create(self, account: Account, submission: Submission, source: Source) -> ProviderBatchId:
        """Create the batch from its lines; raises `QuotaFull` if too much is enqueued."""
        if source.lines is None:
            raise ValueError(f"a batch of {self._facts.name} is made of lines")
        opening = self._dialect.opening(submission)
        pieces = functools.partial(_body, opening, source.lines)
        n_bytes = _body_bytes(opening, source.lines)
        call = self._call(account, "create a batch", "POST", "", paid=True)
        with creates.refusals(account):
            batch = await call.hand_over(self._dialect.batch, pieces, n_bytes, CREATE_PATIENCE)
        return creates.made(call.call_info, batch.shown().named, submission.label)

    async def find(self, account: Account, criteria: SearchCriteria) -> Sequence[ProviderBatchId]:
        """Return batches of the same size whose results hold our rows; they show no label, and rows only at the end."""
        n_rows = criteria.submission.n_lines
        listed = made_since(
            functools.partial(self._search_page, account),
            made_at=lambda shown: shown.created_at,
            since=criteria.since,
            provider=self._facts.name,
            label=criteria.submission.label,
        )
        candidates = [
            shown.provider_batch_id
            async for shown, is_older in listed
            if shown.provider_batch_id and not is_older and (not n_rows or shown.n_rows in (0, n_rows))
        ]
        return await found_by_rows(self, account, criteria, candidates[::-1])

    async def look(
        self, account: Account, provider_batch_ids: Sequence[ProviderBatchId]
    ) -> Mapping[ProviderBatchId, Seen]:
        """Return how each batch stands, by a list where there are several."""
        n_wanted, query = len(provider_batch_ids), self._dialect.page_query
        batches = BatchList(
            name=f"{self._dialect.root} {query('', n_wanted)}",
            ids=provider_batch_ids,
            page=lambda cursor: self._list_page(account, query(cursor, n_wanted)),
        )
        return await looked_at(
            account, provider_batch_ids, lists=[batches], at_one=lambda one: self._look_at(account, one)
        )

    async def results(self, account: Account, ending: Ending) -> AsyncGenerator[Answer, None]:
        """Yield every readable row, in any order; memory is that of the longest row."""
        for one in ending.results:
            provider_batch_id, surely = one.removeprefix(PERHAPS), not one.startswith(PERHAPS)
            path = f"/{quote(provider_batch_id, safe='')}{self._dialect.results}"
            call = self._call(account, "read results", "GET", path)
            reader = LineReader(read=self._dialect.read_row)
            try:
                async with contextlib.aclosing(rows_of(call, provider_batch_id, reader)) as answers:
                    async for answer in answers:
                        yield answer
            except (Denied, PermanentError) as error:
                if surely or (isinstance(error, PermanentError) and error.status in (401, 403)):
                    raise

    async def delete(self, account: Account, spent: SpentFiles) -> None:
        """Do nothing: requests and results are parts of the batch, which its provider deletes in time."""

    async def cancel(self, account: Account, provider_batch_id: ProviderBatchId) -> None:
        """Ask the provider to cancel; succeed if the batch is done or unknown."""
        path = f"/{quote(provider_batch_id, safe='')}/cancel"
        await self._call(account, "cancel a batch", "POST", path).cancel()

    def _call(
        self, account: Account, does: str, method: str, path: str, *, paid: bool = False
    ) -> ProviderCall:
        if self._dialect.headers:
            account = replace(account, headers={**self._dialect.headers, **account.headers})
        return ProviderCall(account, self._facts.name, does, method, self._dialect.root + path, paid=paid)

    async def _search_page(self, account: Account, cursor: str, _: dt.datetime) -> SearchPage[Shown]:
        query = self._dialect.page_query(cursor, MOST_FOUND)
        page, behind = await self._page(account, "search its batches", query)
        # A server that does not tell whether there is more may show its whole list each time.
        return SearchPage(
            [batch.shown() for batch in page.batches], page.next_cursor, behind, not page.tells_more
        )

    async def _page(self, account: Account, does: str, query: Query) -> tuple[PageShape, dt.timedelta]:
        """Return a page and how far the provider's clock is behind; raises `TemporaryError` if it is not a page."""
        call = self._call(account, does, "GET", "")
        page = await call.ask_list(self._dialect.page, query)
        if not page.is_whole:
            raise http_errors.of_unreadable(call.call_info)
        return page, call.behind

    async def _list_page(self, account: Account, query: Query) -> ListPage:
        page, _ = await self._page(account, "look at batches", query)
        listed = [batch.shown() for batch in page.batches]
        hints = [
            Hint.of(shown.provider_batch_id, self._heard(shown))
            for shown in listed
            if shown.provider_batch_id
        ]
        return ListPage(hints=hints, following=page.next_cursor)

    async def _look_at(self, account: Account, provider_batch_id: ProviderBatchId) -> Look:
        call = self._call(account, "look at a batch", "GET", f"/{quote(provider_batch_id, safe='')}")
        return await one_look(call, call.ask(self._dialect.batch), provider_batch_id, self._told)

    def _told(self, batch: BatchShape) -> tuple[Running | Ended, Other] | None:
        shown = batch.shown()
        return (self._heard(shown), shown.named) if shown.provider_batch_id else None

    def _heard(self, shown: Shown) -> Running | Ended:
        look = shown.look
        if isinstance(look, Running) and not status_words.is_known(look.status):
            self._strange_words.hear(look.status)
        return look


async def _body(opening: bytes, lines: BinaryIO) -> AsyncIterator[bytes]:
    """Yield the create's body: the lines become the elements of the list that the opening has begun."""
    left = _size(lines) - 1
    lines.seek(0)
    yield opening + b"["
    while left > 0 and (piece := lines.read(min(PIECE_BYTES, left))):
        left -= len(piece)
        yield piece.translate(_NEWLINES_TO_COMMAS)
    yield b"]}"


def _body_bytes(opening: bytes, lines: BinaryIO) -> int:
    return len(opening) + len(b"[") + max(0, _size(lines) - 1) + len(b"]}")


def _size(lines: BinaryIO) -> int:
    return lines.seek(0, 2)
