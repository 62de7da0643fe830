"""The search for a batch whose create went unanswered: by label, input file, file name, and by its rows at last."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from batchling_client.wire.keys import ProviderBatchId

from ...provider import Account, Provider, SearchCriteria, Submission, label_in
from .. import bounds
from ..list_search import SearchPage, made_since
from ..provider_call import ProviderCall, known
from ..row_search import found_by_rows
from .batch_object import BatchObject, file_id
from .dialect import Dialect, FileObject

LOOKS_TOGETHER: Final = 8
UNSEEN_FILE: Final = frozenset({400, 403, 404, 410})
"""Statuses with which a provider refuses a look at a file of another account, whose id a gateway may show for ours."""
MOST_FOREIGN: Final = 10_000
FILE_ENDING: Final = ".jsonl"


def file_name(submission: Submission) -> str:
    """Return a name for a submission's input file, a new one each time.

    An upload whose answer was lost may have been stored: servers refuse its name from then on, as llm-d's batch gateway
    did with a 500 (its issue 214).
    """
    return f"{submission.label}-{secrets.token_hex(4)}{FILE_ENDING}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSearch:
    """One search of one account's batches."""

    provider: Provider
    account: Account
    criteria: SearchCriteria
    dialect: Dialect
    ask: Callable[[str, str], ProviderCall]
    """A call that reads: what it does, in words, and its path."""
    foreign: set[str] = field(default_factory=set)
    """Labels and batches that an earlier search has seen to be made of a file of another name, which stays so."""

    async def found(self) -> list[ProviderBatchId]:
        """Return every batch of the submission, the oldest first.

        The result is empty only if the list was read back far enough and every batch in it was ruled out: a provider's
        own search for the label may miss a batch that shows no label.
        """
        found = [batch async for batch in self._searched() if self._is_ours(batch)]
        if found:
            return [ProviderBatchId(batch.known_id) for batch in found][::-1]
        return await self._found_in_list()

    async def _searched(self) -> AsyncGenerator[BatchObject, None]:
        query = self.dialect.search(self.criteria.submission.label)
        if query:
            call = self.ask("search its batches", self.dialect.batches)
            page = await self.dialect.listed(call, query)
            for batch in page.batches:
                if batch.known_id:
                    yield batch

    async def _found_in_list(self) -> list[ProviderBatchId]:
        found: list[ProviderBatchId] = []
        nameless: list[ProviderBatchId] = []
        seen: set[str] = set()
        async for batch, is_older in self._made_since():
            # Where pages are counted, a batch that is made meanwhile shifts others onto the next one.
            if not batch.known_id or batch.known_id in seen:
                continue
            seen.add(batch.known_id)
            ours = self._is_ours(batch)
            if ours:
                await self._keep(batch, found)
            elif ours is None and not is_older and not self._is_foreign(batch.known_id):
                nameless.append(ProviderBatchId(batch.known_id))
        if found or not nameless:
            return found[::-1]
        return await self._found_nameless(nameless[::-1])

    async def _keep(self, batch: BatchObject, found: list[ProviderBatchId]) -> None:
        """Add a batch of ours, unless an earlier attempt made it: a provider may store equal files as one."""
        provider_batch_id = ProviderBatchId(batch.known_id)
        if not await self.criteria.is_another(provider_batch_id):
            found.append(provider_batch_id)

    def _made_since(self) -> AsyncGenerator[tuple[BatchObject, bool], None]:
        """Yield every batch of the list, each with whether it is too old to be ours."""
        return made_since(
            self._page,
            made_at=lambda batch: batch.made_at,
            since=self.criteria.since,
            provider=self.provider.facts.name,
            label=self.criteria.submission.label,
        )

    async def _page(self, cursor: str, oldest: dt.datetime) -> SearchPage[BatchObject]:
        call = self.ask("search its batches", self.dialect.batches)
        query = [*self.dialect.page(cursor), *self.dialect.made_since(oldest)]
        page = await self.dialect.listed(call, query)
        following = self.dialect.next_cursor(page)
        # A server that knows no pages shows the whole list each time, and no cursor of its own.
        ends_with = page.batches[-1].known_id if page.batches else ""
        is_whole_list = page.has_more is None and following == ends_with
        return SearchPage(page.batches, following, call.behind, is_whole_list)

    async def _found_nameless(self, candidates: Sequence[ProviderBatchId]) -> list[ProviderBatchId]:
        """Return ours among batches listed without label and input file: look at each batch, then at its rows."""
        found: list[ProviderBatchId] = []
        untold: list[ProviderBatchId] = []
        for start in range(0, len(candidates), LOOKS_TOGETHER):
            some = candidates[start : start + LOOKS_TOGETHER]
            told = await asyncio.gather(*(self._told_apart(one) for one in some))
            for one, ours in zip(some, told, strict=True):
                if ours:
                    found.append(one)
                elif ours is None:
                    untold.append(one)
        return found or await found_by_rows(self.provider, self.account, self.criteria, untold)

    async def _told_apart(self, one: ProviderBatchId) -> bool | None:
        path = f"{self.dialect.batches}/{quote(one, safe='')}"
        batch = await known(self.dialect.shown(self.ask("look at a batch", path)))
        if batch is None:
            return None
        ours, input_file_id = self._is_ours(batch), file_id(batch.input_file_id)
        if ours is not None or not input_file_id:
            return ours
        return await self._is_made_of_ours(one, input_file_id)

    async def _is_made_of_ours(self, one: ProviderBatchId, input_file_id: str) -> bool | None:
        """Return whether the input file of a batch has the name of our file; None if the name cannot be seen."""
        call = self.ask("look at a file", f"/files/{quote(input_file_id, safe='')}")
        file = await known(call.ask(FileObject), UNSEEN_FILE)
        name = bounds.text(file.filename) if file is not None else ""
        if not name:
            return None
        ours = label_in(name.removesuffix(FILE_ENDING), self.criteria.submission.label)
        if ours is False and len(self.foreign) < MOST_FOREIGN:
            self.foreign.add(self._named(one))
        return ours

    def _is_foreign(self, one: str) -> bool:
        return self._named(one) in self.foreign

    def _named(self, one: str) -> str:
        return f"{self.criteria.submission.label} {one}"

    def _is_ours(self, batch: BatchObject) -> bool | None:
        return batch.named.shows(self.criteria.submission.label, self.criteria.input_file_ids)
