"""Looks at many batches: lists give hints, and the batches themselves give every answer that something follows from."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

import msgspec

from batchling_client.wire.keys import ProviderBatchId

from ..errors import PermanentError, TemporaryError
from ..log_lines import emit
from ..provider import Account, Ended, Ending, Look, NotFound, Other, Running, Seen, shown_as
from . import fitted, http_errors
from .bounds import LONGEST_CODE, LONGEST_CURSOR
from .provider_call import ProviderCall, known

logger = logging.getLogger("batchling.worker")

T = TypeVar("T")

LOOKS_TOGETHER: Final = 8
LEAST_IN_LIST: Final = 4
"""Fewer batches than this are looked at one by one, which costs at most as much as a page and the looks after it."""
LOOKS_A_PAGE: Final = 2
"""A list may take one page for so many single looks that it can save."""
MISSING_A_BARREN_PAGE: Final = 4
"""A list is read on behind a page that shows nothing new while it can still save so many looks for each of them."""
MOST_BARREN: Final = 20
MOST_PAGES: Final = 1000
"""A sweep ends after this many pages, those that other steps have read included."""
CONFIRMED_SHARE: Final = 20
"""One in so many running batches of a list is looked at by itself at each sweep."""
LEAST_CONFIRMED: Final = 2
MOST_WORDS: Final = 100

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Hint(msgspec.Struct, frozen=True, array_like=True):
    """What a list shows of one batch."""

    provider_batch_id: ProviderBatchId
    ended: bool
    status: str
    n_done: _Count
    n_total: _Count
    early: bool
    """Whether there are results to be read while it runs."""

    @classmethod
    def of(cls, provider_batch_id: str, look: Look) -> Hint:
        """Keep of a look what a list may say."""
        one = ProviderBatchId(provider_batch_id)
        if not isinstance(look, Running):
            return cls(one, True, "", 0, 0, False)
        n_done, n_total = (min(max(n, 0), 2**53) for n in (look.n_done, look.n_total))
        return cls(one, False, look.status[:LONGEST_CODE], n_done, n_total, look.early is not None)

    def look(self) -> Running:
        """Return the look of a batch that the list shows as running."""
        early = Ending() if self.early else None
        return Running(status=self.status, n_done=self.n_done, n_total=self.n_total, early=early, listed=True)


class ListPage(msgspec.Struct, frozen=True, array_like=True):
    """A page of a list of batches, and the cursor of the page after it, or ''."""

    hints: list[Hint]
    following: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchList:
    """A list that may show some of the batches looked for."""

    name: str
    """Tells it from the other lists of its account, query included."""
    ids: Collection[ProviderBatchId]
    """Those that it may show."""
    page: Callable[[str], Awaitable[ListPage]]
    """Read the page at a cursor, '' being the first."""


_decode_page: Final = msgspec.json.Decoder(ListPage).decode


async def looked_at(
    account: Account,
    provider_batch_ids: Sequence[ProviderBatchId],
    *,
    lists: Iterable[BatchList],
    at_one: Callable[[ProviderBatchId], Awaitable[Look]],
) -> dict[ProviderBatchId, Seen]:
    """Return how the batches stand: as a list shows them while they run, everything else by a look at each.

    A list that fails, goes nowhere or leaves batches out costs single looks and nothing else. The first few batches
    that it shows as running are looked at as well, and more of them as long as one of these has ended.
    """
    hints = await _swept(account, lists) if len(provider_batch_ids) >= LEAST_IN_LIST else {}
    running = [one for one in provider_batch_ids if one in hints and not hints[one].ended]
    shown = set(running)
    looks = _Looks(at_one)
    await looks.at([one for one in provider_batch_ids if one not in shown])
    await _confirm(running, looks)
    if not hints and looks.n_answered == 0:
        looks.raise_first()
    if hints or looks.n_answered:
        # What keeps one batch from being looked at says nothing of its account, which answers.
        account.calls.saw(None)
    seen: dict[ProviderBatchId, Seen] = {}
    for one in provider_batch_ids:
        own = looks.seen.get(one)
        of_list = own is None or _tells_nothing(own, one in shown)
        seen[one] = hints[one].look() if of_list or own is None else fitted.seen(own)
    return seen


def _tells_nothing(own: Seen, shown: bool) -> bool:
    """Return whether a look at a batch came to nothing, so that a list knows more about it."""
    return shown and isinstance(own, TemporaryError)


async def _confirm(running: Sequence[ProviderBatchId], looks: _Looks) -> None:
    """Look at the first of them; twice as many each time that one of them turns out to run no more."""
    start, n = 0, max(LEAST_CONFIRMED, math.ceil(len(running) / CONFIRMED_SHARE))
    while start < len(running):
        some = running[start : start + n]
        await looks.at(some)
        if looks.failing or not any(isinstance(looks.seen.get(one), Ended) for one in some):
            return
        start, n = start + n, 2 * n


class _Looks:
    """Single looks, some side by side; given up once a whole turn of them failed and none before it was answered."""

    def __init__(self, at_one: Callable[[ProviderBatchId], Awaitable[Look]]) -> None:
        self._at_one = at_one
        self.seen: dict[ProviderBatchId, Seen] = {}
        self.n_answered = 0
        self.failing = False

    async def at(self, ids: Sequence[ProviderBatchId]) -> None:
        """Look at each; what goes wrong with one of them is that one's."""
        for some in chunks(ids, LOOKS_TOGETHER):
            if self.failing:
                self.seen |= dict.fromkeys(some, next(reversed(self.seen.values())))
                continue
            told = await asyncio.gather(*(self._at_one(one) for one in some), return_exceptions=True)
            for one, look in zip(some, told, strict=True):
                if isinstance(look, BaseException) and not isinstance(look, Exception):
                    raise look
                self.seen[one] = look
                self.n_answered += not isinstance(look, Exception)
            self.failing = len(some) == LOOKS_TOGETHER and self.n_answered == 0

    def raise_first(self) -> None:
        """Raise the error of the first look, if there was a look."""
        for look in self.seen.values():
            if isinstance(look, Exception):
                raise look


async def _swept(account: Account, lists: Iterable[BatchList]) -> dict[ProviderBatchId, Hint]:
    """Return what the lists show; the first that fails is the last that is read."""
    hints: dict[ProviderBatchId, Hint] = {}
    for one in lists:
        if len(one.ids) < LEAST_IN_LIST:
            continue
        try:
            await _sweep(account, one, hints)
        except (TemporaryError, PermanentError) as error:
            emit(logger, logging.INFO, "list_not_read", {"reason": str(error)[:200]})
            break
        except Exception as error:  # noqa: BLE001 - a list that our code cannot read gives no hints
            emit(logger, logging.WARNING, "list_not_read", {"error": type(error).__name__})
            break
    return hints


async def _sweep(account: Account, batches: BatchList, hints: dict[ProviderBatchId, Hint]) -> None:
    """Read pages while they save more looks than they cost; a cursor that comes again ends it.

    A page that another step has read costs no call, so it may show nothing of these batches.
    """
    missing = set(batches.ids)
    n_to_read = max(1, len(missing) // LOOKS_A_PAGE)
    cursor, cursors, n_barren = "", {""}, 0
    while n_to_read > 0 and len(cursors) <= MOST_PAGES:
        page, is_shared = await _page(account, batches, cursor)
        n_to_read -= not is_shared
        found = {hint.provider_batch_id: hint for hint in page.hints if hint.provider_batch_id in missing}
        hints |= found
        missing -= found.keys()
        n_barren = 0 if found else n_barren + (not is_shared)
        cursor = page.following
        if not cursor or cursor in cursors or len(missing) <= 1:
            return
        if n_barren > min(MOST_BARREN, len(missing) / MISSING_A_BARREN_PAGE):
            return
        cursors.add(cursor)


async def _page(account: Account, batches: BatchList, cursor: str) -> tuple[ListPage, bool]:
    """Return the page, and whether another step has read it."""
    if account.pages is None:
        return await _read_page(batches, cursor), False
    is_shared = True

    async def read() -> bytes:
        nonlocal is_shared
        is_shared = False
        return msgspec.json.encode(await _read_page(batches, cursor))

    packed = await account.pages.page(f"{batches.name}\n{cursor}", read)
    try:
        return _decode_page(packed), is_shared
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return await _read_page(batches, cursor), False


async def _read_page(batches: BatchList, cursor: str) -> ListPage:
    page = await batches.page(cursor)
    if len(page.following) > LONGEST_CURSOR:
        raise TemporaryError("a list of batches names its next page with too long a cursor")
    return page


class StrangeWords:
    """Words for a status that nobody documented, each logged once."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._heard: set[str] = set()

    def hear(self, word: str) -> None:
        """Note a status word."""
        if word not in self._heard and len(self._heard) < MOST_WORDS:
            self._heard.add(word)
            fields = {"provider": self._provider, "status": word[:40]}
            emit(logger, logging.WARNING, "provider_status_unknown", fields)


async def one_look(
    call: ProviderCall,
    asked: Awaitable[T],
    provider_batch_id: ProviderBatchId,
    told: Callable[[T], tuple[Running | Ended, Other] | None],
) -> Look:
    """Return the look at one batch; `told` reads the answer, None for an answer without a batch.

    Raises `TemporaryError` if the answer is not a batch.
    """
    shown = await known(asked)
    if shown is None:
        return NotFound()
    try:
        seen = told(shown)
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError):
        # Whatever a field holds that nobody thought of: the batch is looked at again, and its callers see why.
        seen = None
    if seen is None:
        raise http_errors.of_unreadable(call.call_info)
    look, other = seen
    return shown_as(look, provider_batch_id, other)


def chunks(sequence: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into pieces of that size."""
    for start in range(0, len(sequence), size):
        yield sequence[start : start + size]
