"""A list is a hint: what it shows, leaves out or makes up costs a look, never an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

import httpx
import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.states import Outcome
from batchling_worker.dialects import poll_many
from batchling_worker.dialects.poll_many import BatchList, Hint, ListPage, looked_at
from batchling_worker.errors import PermanentError, TemporaryError
from batchling_worker.provider import Account, Ended, Ending, Look, NotFound, Running, Seen, SharedPages

PAGE = 10
RUNNING = Running(status="in_progress", n_done=1, n_total=2)
ENDED = Ended(status="completed", outcome=Outcome.COMPLETED, ending=Ending(results=("file-1",)))
LISTED = Hint.of("any", RUNNING).look()


def ids(n: int) -> list[ProviderBatchId]:
    return [ProviderBatchId(f"b{number:04}") for number in range(n)]


class Kept:
    """Pages that stay for as long as a test takes."""

    def __init__(self) -> None:
        self._pages: dict[str, bytes] = {}

    async def page(self, name: str, read: Callable[[], Awaitable[bytes]]) -> bytes:
        if name not in self._pages:
            self._pages[name] = await read()
        return self._pages[name]


@dataclass(kw_only=True)
class World:
    """A provider: what its batches are, and what its list says of them."""

    http: httpx.AsyncClient
    batches: dict[ProviderBatchId, Look | Exception]
    list_page: Callable[[str], ListPage]
    looked: list[ProviderBatchId] = field(default_factory=list)
    cursors: list[str] = field(default_factory=list)
    pages: SharedPages | None = None

    async def look(self, wanted: Sequence[ProviderBatchId]) -> dict[ProviderBatchId, Seen]:
        self.looked, self.cursors = [], []
        account = Account(
            base_url="http://nowhere", headers={}, http=self.http, digest="a" * 20, pages=self.pages
        )
        batches = BatchList(name="batches", ids=wanted, page=self._page)
        return await looked_at(account, wanted, lists=[batches], at_one=self._at_one)

    async def _page(self, cursor: str) -> ListPage:
        self.cursors.append(cursor)
        return self.list_page(cursor)

    async def _at_one(self, one: ProviderBatchId) -> Look:
        self.looked.append(one)
        look = self.batches.get(one, NotFound())
        if isinstance(look, Exception):
            raise look
        return look


def pages_of(shown: Sequence[ProviderBatchId], look: Look = RUNNING) -> Callable[[str], ListPage]:
    """A list of pages of ten, all batches being shown as the one look."""

    def page(cursor: str) -> ListPage:
        start = int(cursor or 0)
        following = str(start + PAGE) if start + PAGE < len(shown) else ""
        return ListPage(
            hints=[Hint.of(one, look) for one in shown[start : start + PAGE]], following=following
        )

    return page


@pytest.fixture
def world(http: httpx.AsyncClient) -> World:
    every = ids(100)
    return World(http=http, batches=dict.fromkeys(every, RUNNING), list_page=pages_of(every))


def listed(seen: dict[ProviderBatchId, Seen]) -> list[ProviderBatchId]:
    return [one for one, look in seen.items() if isinstance(look, Running) and look.listed]


async def test_one_sweep_and_a_few_looks_serve_many_batches(world: World) -> None:
    seen = await world.look(ids(100))
    assert len(world.cursors) == 10
    assert world.looked == ids(5)
    assert listed(seen) == ids(100)[5:]
    assert seen[ids(100)[99]] == LISTED


async def test_few_batches_are_looked_at_themselves(world: World) -> None:
    assert await world.look(ids(3)) == dict.fromkeys(ids(3), RUNNING)
    assert world.cursors == []


async def test_an_end_in_a_list_is_asked_of_the_batch(world: World) -> None:
    world.list_page = pages_of(ids(100), ENDED)
    world.batches[ids(4)[3]] = ENDED
    assert await world.look(ids(8)) == {**dict.fromkeys(ids(8), RUNNING), ids(4)[3]: ENDED}


async def test_a_list_that_stands_still_hides_no_end_for_long(world: World) -> None:
    """The batches that were looked at the longest ago come first, so that each has its turn."""
    world.batches = dict.fromkeys(ids(100), RUNNING)
    world.batches[ids(100)[97]] = ENDED
    turns, ended = ids(100), False
    for _ in range(20):
        seen = await world.look(turns)
        ended = ended or any(isinstance(look, Ended) for look in seen.values())
        turns = [*(one for one in turns if one not in world.looked), *world.looked]
    assert ended


async def test_a_list_that_is_caught_with_one_lie_is_asked_about_the_others(world: World) -> None:
    world.batches = dict.fromkeys(ids(100), ENDED)
    assert await world.look(ids(100)) == world.batches
    assert len(world.looked) == 100


@pytest.mark.parametrize(
    "page",
    [
        lambda cursor: ListPage(hints=[], following=""),
        lambda cursor: ListPage(hints=[], following="the same"),
        lambda cursor: ListPage(hints=[], following=cursor + "x"),
        lambda cursor: ListPage(hints=[Hint.of(f"raw-{cursor}", ENDED)], following=cursor + "x"),
        lambda cursor: ListPage(hints=[Hint.of("b0001", RUNNING)] * 5, following=cursor + "x"),
    ],
    ids=["empty", "same-cursor", "empty-for-ever", "other-ids", "one-for-ever"],
)
async def test_a_list_that_goes_nowhere_costs_fewer_calls_than_the_looks(
    world: World, page: Callable[[str], ListPage]
) -> None:
    world.list_page = page
    world.batches[ids(3)[2]] = ENDED
    seen = await world.look(ids(40))
    assert seen == {**dict.fromkeys(ids(40), RUNNING), ids(3)[2]: ENDED}
    assert len(world.cursors) <= 12


@pytest.mark.parametrize(
    "error", [TemporaryError("503"), PermanentError("403", status=403), OverflowError("400 digits")]
)
async def test_a_list_that_fails_costs_a_call(world: World, error: Exception) -> None:
    def failing(cursor: str) -> ListPage:
        raise error

    world.list_page = failing
    assert await world.look(ids(40)) == dict.fromkeys(ids(40), RUNNING)
    assert len(world.cursors) == 1


async def test_an_empty_page_is_not_the_end_of_a_list(world: World) -> None:
    pages = pages_of(ids(40))
    world.list_page = lambda cursor: (
        pages(cursor.removeprefix("on")) if cursor else ListPage(hints=[], following="on0")
    )
    seen = await world.look(ids(40))
    assert len(listed(seen)) == 38


async def test_batches_deep_in_a_long_list_are_looked_at_themselves(world: World) -> None:
    world.list_page = pages_of([ProviderBatchId(f"old-{n}") for n in range(10_000)])
    assert await world.look(ids(12)) == dict.fromkeys(ids(12), RUNNING)
    assert len(world.cursors) <= 4


async def test_pages_that_another_step_has_read_lead_on_to_batches_deep_in_the_list(world: World) -> None:
    every = ids(1_000)
    world.batches = dict.fromkeys(every, RUNNING)
    world.list_page, world.pages = pages_of(every), Kept()
    for first in range(0, len(every), 50):
        some = every[first : first + 50]
        seen = await world.look(some)
        assert len(world.cursors) <= 5, "one sweep of the list serves all steps"
        assert world.looked == some[:3]
        assert listed(seen) == some[3:]


def failing_at(
    some: Collection[ProviderBatchId], error: Exception
) -> dict[ProviderBatchId, Look | Exception]:
    return {**dict.fromkeys(ids(100), RUNNING), **dict.fromkeys(some, error)}


async def test_what_befalls_one_look_befalls_that_batch_alone(world: World) -> None:
    world.list_page = pages_of([])
    error, defect = TemporaryError("500"), OverflowError("400 digits")
    world.batches = {**failing_at(ids(1), error), ids(2)[1]: defect}
    seen = await world.look(ids(30))
    assert seen == {**dict.fromkeys(ids(30), RUNNING), ids(1)[0]: error, ids(2)[1]: defect}


async def test_a_provider_that_answers_nothing_is_not_asked_for_each(world: World) -> None:
    def failing(cursor: str) -> ListPage:
        raise TemporaryError("503")

    world.list_page = failing
    world.batches = failing_at(ids(100), TemporaryError("503"))
    with pytest.raises(TemporaryError):
        await world.look(ids(100))
    assert len(world.looked) == poll_many.LOOKS_TOGETHER


async def test_a_batch_that_cannot_be_looked_at_runs_on_as_long_as_the_list_says_so(world: World) -> None:
    error = TemporaryError("500")
    world.batches = failing_at(ids(2), error)
    seen = await world.look(ids(20))
    assert [seen[one] for one in ids(2)] == [LISTED, LISTED]
    world.batches = failing_at(ids(2), refused := PermanentError("404", status=403))
    assert [(await world.look(ids(20)))[one] for one in ids(2)] == [refused, refused]
