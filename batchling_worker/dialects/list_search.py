"""Searches the list of an account's batches: page by page, back to the time of the batch that is searched for."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from ..errors import TemporaryError
from .bounds import LONGEST_CURSOR

T = TypeVar("T")

MOST_PAGES: Final = 200
CLOCKS_APART: Final = dt.timedelta(minutes=15)
"""How far the provider's clock may be behind ours, unseen, for a batch to be found all the same."""


class SearchPage(NamedTuple, Generic[T]):
    """A page of a list of batches."""

    batches: Sequence[T]
    following: str
    """The cursor of the page after this one, or ''."""
    behind: dt.timedelta = dt.timedelta()
    """How far the provider's clock is behind ours, as far as the answer shows that."""
    is_whole_list: bool = False
    """Whether the same cursor again means that the server knows no pages and shows its whole list each time."""


async def pages(
    read: Callable[[str], Awaitable[SearchPage[T]]], *, provider: str, label: str
) -> AsyncGenerator[SearchPage[T], None]:
    """Yield each page of the list, the first at the cursor ''.

    Raises `TemporaryError` if the list cannot be read to its end: to conclude "there is none" from the pages that were
    read could pay for a second batch.
    """
    cursor, cursors = "", {""}
    for _ in range(MOST_PAGES):
        page = await read(cursor)
        yield page
        cursor = page.following
        if len(cursor) > LONGEST_CURSOR:
            break
        if not cursor or (cursor in cursors and page.is_whole_list):
            return
        if cursor in cursors:
            break
        cursors.add(cursor)
    raise TemporaryError(f"{provider} lists too many batches, or the same again, to search them for {label}")


async def made_since(
    read: Callable[[str, dt.datetime], Awaitable[SearchPage[T]]],
    *,
    made_at: Callable[[T], dt.datetime | None],
    since: dt.datetime,
    provider: str,
    label: str,
    ordered: bool = True,
) -> AsyncGenerator[tuple[T, bool], None]:
    """Yield the batches of the list, each with whether it is surely older than `since`.

    A list whose pages turn out to show the newest first is read back to that time, any other to its end, and so is each
    list that is not `ordered`. `read` gets the cursor and that time, by the provider's clock.
    """
    oldest = since - CLOCKS_APART

    def older(batch: T) -> bool:
        at = made_at(batch)
        return at is not None and at < oldest

    listed = pages(lambda cursor: read(cursor, oldest), provider=provider, label=label)
    async with contextlib.aclosing(listed):
        async for page in listed:
            oldest = min(oldest, since - CLOCKS_APART - page.behind)
            for batch in page.batches:
                yield batch, older(batch)
            if ordered and page.batches and older(page.batches[-1]):
                first, last = made_at(page.batches[0]), made_at(page.batches[-1])
                if first is not None and last is not None and first >= last:
                    return
