"""Batches as OpenAI's Files and Batches API has them, and as the providers that follow it do."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, Final, TypeVar
from urllib.parse import quote

import msgspec

from batchling_client.wire.keys import ProviderBatchId

from . import http_errors, quota
from .batch_object import OUTCOMES, RUNNING, BatchObject
from .errors import Denied, FileNotReady, MaybeDone, PermanentError, QuotaFull, TemporaryError
from .openai_dialect import BatchPage, Dialect, FileObject, Query
from .openai_search import LABEL_NAME, BatchSearch, file_name
from .provider import Account, Answer, Ending, Look, NotFound, ProviderFacts, Sought, Source, Submission
from .provider_call import ProviderCall
from .result_lines import RowReader
from .result_rows import rows_of

logger = logging.getLogger("batchling.worker")

T = TypeVar("T")

UPLOAD_PATIENCE: Final = 2.5
"""How many times longer than usual a provider may chew on a file."""
LOOK_PAGES: Final = 2
LOOKS_TOGETHER: Final = 8
IDS_TOGETHER: Final = 100
"""Two hundred ids would make a URL of 8 KB, which is where gateways begin to refuse."""
NOTHING_TO_CANCEL: Final = frozenset({400, 404, 409, 410})
MISSING_WORDS: Final = ("find", "found", "no such", "not exist", "not ready", "processed")
MOST_WORDS: Final = 100

_NEWLINES_TO_SPACES: Final = bytes.maketrans(b"\n\r", b"  ")


class OpenAIFiles:
    """A provider in one of the dialects of OpenAI's Files and Batches API."""

    def __init__(self, facts: ProviderFacts, dialect: Dialect) -> None:
        self._facts = facts
        self._dialect = dialect
        self._strange_words: set[str] = set()

    @property
    def facts(self) -> ProviderFacts:
        return self._facts

    def line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """One request as a line of the input file; newlines between the tokens of the body become spaces.

        Inside JSON strings they cannot occur, so the body means what it meant.
        """
        if b"\n" in body or b"\r" in body:
            body = body.translate(_NEWLINES_TO_SPACES)
        name, url = msgspec.json.encode(custom_id), msgspec.json.encode(endpoint)
        return b'{"custom_id":%b,"method":"POST","url":%b,"body":%b}\n' % (name, url, body)

    async def upload(self, account: Account, submission: Submission, lines: BinaryIO) -> str:
        """Stores the input file under its label, read as a stream from its start; answers its id."""
        call = self._call(account, "store a file", "POST", "/files")
        name = file_name(submission)
        file = await call.upload(FileObject, {"purpose": "batch"}, name, lines, UPLOAD_PATIENCE)
        if not isinstance(file.id, str) or not file.id:
            raise http_errors.of_unreadable(call.deed)
        return file.id

    async def create(self, account: Account, submission: Submission, source: Source) -> ProviderBatchId:
        """Creates the batch; raises `FileNotReady` where the provider does not see its input file yet.

        Raises `QuotaFull` where too many tokens are enqueued: some say so here, others once they have validated it.
        """
        call = self._call(account, "create a batch", "POST", "/batches", paid=True)
        wish = {
            "input_file_id": source.file_id,
            "endpoint": submission.endpoint,
            "completion_window": submission.completion_window,
            "metadata": {LABEL_NAME: submission.label},
        }
        try:
            batch = await call.tell(BatchObject, wish)
        except MaybeDone:
            raise
        except (PermanentError, TemporaryError) as error:
            if quota.refusal_in(str(error)) is not None:
                account.weather.saw(None)
                raise QuotaFull(str(error)) from None
            if isinstance(error, PermanentError) and speaks_of_missing_file(error, source.file_id):
                raise FileNotReady(str(error)) from None
            raise
        if not batch.known_id:
            raise http_errors.of_unreadable(call.deed)
        return ProviderBatchId(batch.known_id)

    async def find(self, account: Account, sought: Sought) -> list[ProviderBatchId]:
        """The batches with the label or an input file sought; else those that file name or rows give away."""
        search = BatchSearch(
            provider=self, account=account, sought=sought, dialect=self._dialect, ask=self._asker(account)
        )
        return await search.found()

    async def look(
        self, account: Account, provider_batch_ids: Sequence[ProviderBatchId]
    ) -> Mapping[ProviderBatchId, Look]:
        """How the batches stand: from lists where there are several, one by one where a list leaves one out."""
        looks: dict[ProviderBatchId, Look] = {}
        for ids in _chunks(provider_batch_ids, min(self.facts.looks_at_once, IDS_TOGETHER)):
            if len(ids) > 1:
                looks |= await self._look_in_lists(account, set(ids))
            missing = [one for one in ids if one not in looks]
            for some in _chunks(missing, LOOKS_TOGETHER):
                looks |= await self._look_at_each(account, some)
        return looks

    async def results(self, account: Account, ending: Ending) -> AsyncGenerator[Answer, None]:
        """Every readable row of every result file, in any order; memory is that of the longest row."""
        denied: Denied | None = None
        for one in ending.results:
            try:
                async with contextlib.aclosing(self._rows(account, one, ending.after)) as rows:
                    async for answer in rows:
                        yield answer
            except Denied as error:
                # What the other file holds was paid for, whatever became of this one.
                denied = error
        if denied is not None:
            raise denied

    async def cancel(self, account: Account, provider_batch_id: ProviderBatchId) -> None:
        """Asks the provider to cancel; done or unknown batches are no error."""
        path = f"/batches/{quote(provider_batch_id, safe='')}/cancel"
        await self._call(account, "cancel a batch", "POST", path).nudge(fine=NOTHING_TO_CANCEL)

    def _call(
        self, account: Account, does: str, method: str, path: str, *, paid: bool = False
    ) -> ProviderCall:
        return ProviderCall(account, self.facts.name, does, method, self._dialect.root + path, paid=paid)

    def _asker(self, account: Account) -> Callable[[str, str], ProviderCall]:
        return lambda does, path: self._call(account, does, "GET", path)

    async def _page(self, account: Account, does: str, query: Query) -> BatchPage:
        return await self._call(account, does, "GET", "/batches").ask(BatchPage, query)

    async def _look_in_lists(
        self, account: Account, wanted: set[ProviderBatchId]
    ) -> dict[ProviderBatchId, Look]:
        dialect = self._dialect
        looks: dict[ProviderBatchId, Look] = {}
        cursor = ""
        for _ in range(1 if dialect.by_ids else LOOK_PAGES):
            query = dialect.by_ids(sorted(wanted)) if dialect.by_ids else dialect.page(cursor)
            try:
                page = await self._page(account, "look at batches", query)
            except PermanentError as error:
                # One id that it does not know must not hide the others: each is then looked at by itself.
                if dialect.by_ids is None or error.status not in (400, 404, 414):
                    raise
                break
            for batch in page.batches:
                provider_batch_id = ProviderBatchId(batch.known_id)
                if provider_batch_id in wanted:
                    looks[provider_batch_id] = self._told(batch)
            cursor = dialect.next_cursor(page)
            if len(looks) == len(wanted) or not cursor:
                break
        return looks

    async def _look_at_each(
        self, account: Account, ids: Sequence[ProviderBatchId]
    ) -> dict[ProviderBatchId, Look]:
        seen = await asyncio.gather(*(self._look_at(account, one) for one in ids), return_exceptions=True)
        looks: dict[ProviderBatchId, Look] = {}
        for one, look in zip(ids, seen, strict=True):
            if isinstance(look, BaseException):
                raise look
            looks[one] = look
        return looks

    async def _look_at(self, account: Account, provider_batch_id: ProviderBatchId) -> Look:
        call = self._call(account, "look at a batch", "GET", f"/batches/{quote(provider_batch_id, safe='')}")
        try:
            batch = await call.ask(BatchObject)
        except PermanentError as error:
            if error.status != 404:
                raise
            return NotFound()
        if not batch.known_id and not batch.word:
            raise http_errors.of_unreadable(call.deed)
        return self._told(batch)

    def _told(self, batch: BatchObject) -> Look:
        word = batch.word
        strange = word not in OUTCOMES and word not in RUNNING
        if strange and word not in self._strange_words and len(self._strange_words) < MOST_WORDS:
            self._strange_words.add(word)
            logger.warning("provider_status_unknown provider=%s status=%.40r", self.facts.name, word)
        return self._dialect.told(batch, dt.datetime.now(dt.UTC))

    def _rows(self, account: Account, one: str, after: str) -> AsyncGenerator[Answer, None]:
        call = self._call(account, "read results", "GET", f"/files/{quote(one, safe='')}/content")
        return rows_of(call, one, RowReader())


def speaks_of_missing_file(error: PermanentError, input_file_id: str) -> bool:
    """Whether a create was refused because the provider does not see its input file."""
    if error.status not in (400, 404):
        return False
    said = http_errors.message_of(error.body).lower()
    missing = any(words in said for words in MISSING_WORDS)
    return missing and ("file" in said or input_file_id.lower() in said)


def _chunks(sequence: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(sequence), size):
        yield sequence[start : start + size]
