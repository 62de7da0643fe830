"""Batches of uploaded files, as OpenAI has them, and as the providers that follow it do."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import BinaryIO, Final
from urllib.parse import quote

import msgspec

from batchling_client.wire.keys import ProviderBatchId

from ...decisions import status_words
from ...errors import PermanentError
from ...provider import (
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
from .. import creates, http_errors
from ..poll_many import BatchList, Hint, ListPage, StrangeWords, chunks, looked_at, one_look
from ..provider_call import ProviderCall, known
from ..result_file import of_each, rows_of
from .batch_object import BatchObject
from .dialect import BatchPage, Dialect, FileObject, Query
from .search import BatchSearch, file_name

IDS_TOGETHER: Final = 100
"""Two hundred ids would make a URL of 8 KB, which is where gateways begin to refuse."""
EXPIRY_S: Final = 30 * 24 * 3600
"""Uploads and results ask to be deleted after so long: as late as providers allow, as a batch may run and be read."""
_ABSENT: Final = frozenset({404, 405, 501})
"""Statuses of servers that do not have a path."""
_STORAGE_FULL: Final = re.compile(
    r"quota for files|file (?:storage )?quota|storage (?:quota|limit)"
    r"|(?:maximum|limit) (?:number )?of files|too many files",
    re.IGNORECASE,
)
GONE: Final = frozenset({404, 410})
MOST_REMEMBERED: Final = 100
NOT_LISTED: Final = frozenset({400, 404, 414})
UNSEEN_FILE: Final = frozenset({400, 404})


class OpenAIFiles:
    """A provider whose batches are uploaded files, in its dialect."""

    def __init__(self, facts: ProviderFacts, dialect: Dialect) -> None:
        self._facts = facts
        self._dialect = dialect
        self._strange_words = StrangeWords(facts.name)
        self._no_expiry: set[str] = set()
        """Base URLs that have refused an expiry, as older versions and gateways may."""
        self._foreign: set[str] = set()

    @property
    def facts(self) -> ProviderFacts:
        return self._facts

    def line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """Return one request as a line of the input file; newlines between the tokens of the body become spaces."""
        return self._dialect.line(custom_id, endpoint, body)

    async def upload(self, account: Account, submission: Submission, lines: BinaryIO) -> str:
        """Store the input file under its label, read as a stream from its start; return its id."""
        expiry_s = self._expiry_s(account)
        if expiry_s:
            try:
                return await self._stored(account, submission, lines, self._dialect.expiry(expiry_s))
            except PermanentError as error:
                self._learn_no_expiry(account, error)
            lines.seek(0)
        return await self._stored(account, submission, lines, {})

    async def create(self, account: Account, submission: Submission, source: Source) -> ProviderBatchId:
        """Create the batch; raises `FileNotReady` if the provider does not see its input file yet.

        Raises `QuotaFull` where too many tokens are enqueued: some say so here, others once they have validated it.
        """
        call = self._call(account, "create a batch", "POST", self._dialect.batches, paid=True)
        with creates.refusals(
            account,
            lacks_file=lambda error: creates.speaks_of_missing_file(error, UNSEEN_FILE, source.file_id),
        ):
            batch = await self._made(account, call, submission, source)
        return creates.made(call.call_info, batch.named, submission.label)

    async def find(self, account: Account, criteria: SearchCriteria) -> list[ProviderBatchId]:
        """Return the batches with the label or an input file of the criteria; else match them by file name or rows."""
        search = BatchSearch(
            provider=self,
            account=account,
            criteria=criteria,
            dialect=self._dialect,
            ask=self._asker(account),
            foreign=self._foreign,
        )
        return await search.found()

    async def look(
        self, account: Account, provider_batch_ids: Sequence[ProviderBatchId]
    ) -> Mapping[ProviderBatchId, Seen]:
        """Return how each batch stands, by lists where there are several."""
        return await looked_at(
            account,
            provider_batch_ids,
            lists=self._lists(account, provider_batch_ids),
            at_one=lambda one: self._look_at(account, one),
        )

    async def results(self, account: Account, ending: Ending) -> AsyncGenerator[Answer, None]:
        """Yield every readable row of every result file, in any order; memory is that of the longest row."""
        read = functools.partial(self._rows, account, ending.after)
        async with contextlib.aclosing(of_each(ending.results, read)) as rows:
            async for answer in rows:
                yield answer

    async def cancel(self, account: Account, provider_batch_id: ProviderBatchId) -> None:
        """Ask the provider to cancel; succeed if the batch is done or unknown."""
        path = f"{self._dialect.batches}/{quote(provider_batch_id, safe='')}/cancel"
        await self._call(account, "cancel a batch", "POST", path).cancel()

    async def delete(self, account: Account, spent: SpentFiles) -> None:
        """Delete files; succeed if a file no longer exists."""
        for one in (*spent.inputs, *spent.results):
            if await self._is_for_batches(account, one):
                path = f"/files/{quote(one, safe='')}"
                await self._call(account, "delete a file", "DELETE", path).nudge(GONE)

    async def _is_for_batches(self, account: Account, file_id: str) -> bool:
        """Return whether nothing speaks against it: ids come from Redis, and a key can delete other files too."""
        call = self._call(account, "look at a file", "GET", f"/files/{quote(file_id, safe='')}")
        try:
            purpose = (await call.ask(FileObject)).purpose
        except PermanentError:
            return True
        return not isinstance(purpose, str) or purpose.startswith("batch")

    async def _stored(
        self, account: Account, submission: Submission, lines: BinaryIO, form: Mapping[str, str]
    ) -> str:
        call = self._call(account, "store a file", "POST", self._dialect.uploads)
        try:
            input_file_id = await self._dialect.stored(call, file_name(submission), lines, form)
        except PermanentError as error:
            elsewhere = bool(self.facts.route.stand_in) or account.base_url != self.facts.base_url
            raise with_advice(error, self.facts.name, elsewhere=elsewhere) from None
        if not input_file_id:
            raise http_errors.of_unreadable(call.call_info)
        return input_file_id

    async def _made(
        self, account: Account, call: ProviderCall, submission: Submission, source: Source
    ) -> BatchObject:
        """Send the create; where an expiry of the results is refused, and so no batch was made, send it without."""
        wish = self._dialect.wish(submission, source.file_id)
        expiry_s = self._expiry_s(account) if self._dialect.results_expire else 0
        if expiry_s:
            expiry = {"anchor": "created_at", "seconds": expiry_s}
            try:
                return await self._dialect.made(call, {**wish, "output_expires_after": expiry})
            except PermanentError as error:
                self._learn_no_expiry(account, error)
        return await self._dialect.made(call, wish)

    def _expiry_s(self, account: Account) -> int:
        """Return after how long files are to be deleted by the provider; 0 = nothing is asked for."""
        if account.keeps_files or self.facts.file_expiry_s is None or _place_of(account) in self._no_expiry:
            return 0
        shortest_s, longest_s = self.facts.file_expiry_s
        return max(shortest_s, min(EXPIRY_S, longest_s))

    def _learn_no_expiry(self, account: Account, error: PermanentError) -> None:
        """Remember that the provider refuses an expiry; raise the error if it is about anything else."""
        word = self._dialect.expiry_word.encode()
        if error.status not in (400, 422) or word not in str(error).encode() + error.body:
            raise error
        if len(self._no_expiry) < MOST_REMEMBERED:
            self._no_expiry.add(_place_of(account))

    def _call(
        self, account: Account, does: str, method: str, path: str, *, paid: bool = False
    ) -> ProviderCall:
        return ProviderCall(
            account, self.facts.name, does, method, self._dialect.root_of(account) + path, paid=paid
        )

    def _asker(self, account: Account) -> Callable[[str, str], ProviderCall]:
        return lambda does, path: self._call(account, does, "GET", path)

    async def _page(self, account: Account, does: str, query: Query) -> BatchPage:
        return await self._dialect.listed(self._call(account, does, "GET", self._dialect.batches), query)

    def _lists(self, account: Account, ids: Sequence[ProviderBatchId]) -> Iterator[BatchList]:
        by_ids = self._dialect.by_ids
        if by_ids is None:
            yield BatchList(
                name=self._dialect.batches,
                ids=ids,
                page=lambda cursor: self._list_page(account, self._dialect.page(cursor)),
            )
            return
        for some in chunks(sorted(ids), min(self.facts.looks_at_once, IDS_TOGETHER)):
            query = by_ids(some)
            yield BatchList(
                name=f"{self._dialect.batches} {' '.join(some)}",
                ids=some,
                page=functools.partial(self._certain, account, query),
            )

    async def _certain(self, account: Account, query: Query, _: str) -> ListPage:
        """Read what the list shows of certain batches; one id that it does not know must not hide the others' lists."""
        page = await known(self._list_page(account, query), NOT_LISTED)
        return ListPage(hints=[] if page is None else page.hints, following="")

    async def _list_page(self, account: Account, query: Query) -> ListPage:
        page = await self._page(account, "look at batches", query)
        hints = [Hint.of(batch.known_id, self._told(batch)) for batch in page.batches if batch.known_id]
        return ListPage(hints=hints, following=self._dialect.next_cursor(page))

    async def _look_at(self, account: Account, provider_batch_id: ProviderBatchId) -> Look:
        path = f"{self._dialect.batches}/{quote(provider_batch_id, safe='')}"
        call = self._call(account, "look at a batch", "GET", path)
        return await one_look(call, self._dialect.shown(call), provider_batch_id, self._shown)

    def _shown(self, batch: BatchObject) -> tuple[Running | Ended, Other] | None:
        if not batch.known_id and not batch.word:
            return None
        named = batch.named
        return self._told(batch), replace(
            named, input_file_id=""
        ) if self.facts.equal_files_are_one else named

    def _told(self, batch: BatchObject) -> Running | Ended:
        if batch.word in self._dialect.words:
            batch = msgspec.structs.replace(batch, status=self._dialect.words[batch.word])
        if not status_words.is_known(batch.word):
            self._strange_words.hear(batch.word)
        return self._dialect.told(batch, dt.datetime.now(dt.UTC))

    def _rows(self, account: Account, after: str, one: str) -> AsyncGenerator[Answer, None]:
        call = self._call(account, "read results", "GET", f"/files/{quote(one, safe='')}/content")
        return rows_of(call, one, self._dialect.rows())


def _place_of(account: Account) -> str:
    return f"{account.base_url} {account.query}"


def with_advice(error: PermanentError, provider: str, *, elsewhere: bool = False) -> PermanentError:
    """Return the error of an upload, with advice if the provider refuses more files or more bytes of files.

    `elsewhere` says whether settings name the server: it may have no files at all.
    """
    said = f"{error} {error.body.decode(errors='replace')}"
    if error.status in _ABSENT and elsewhere:
        advice = (
            f"batchling tried to store a file there: if the server has no /files and /batches like OpenAI's, its calls "
            f"cannot be batched. Unset BATCHLING_PROVIDERS__{provider.upper()}__BASE_URL in that case."
        )
    elif error.status in (400, 403, 413, 422, 429) and _STORAGE_FULL.search(said) is not None:
        advice = (
            f"Delete files at {provider} that are no longer needed (its console, or DELETE /files/ID), then send the "
            "requests again. batchling deletes its own files after use, unless BATCHLING_KEEP_FILES is true or the key "
            "may not delete files."
        )
    else:
        return error
    return PermanentError(
        f"{error} {advice}", status=error.status, body=http_errors.with_words(error.body, advice)
    )
