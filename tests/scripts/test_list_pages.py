"""Pages of a provider's list: read once by one step, and served to every other step for a while."""

from __future__ import annotations

import asyncio

import pytest

from batchling_worker.engine.list_pages import ListPages
from batchling_worker.errors import TemporaryError
from tests.waiting import wait_until

from .byhand import ByHand


class Reader:
    """Reads a page from a provider that answers once the test allows it."""

    def __init__(self) -> None:
        self.n_read = 0
        self.answers = asyncio.Event()

    async def __call__(self) -> bytes:
        self.n_read += 1
        await self.answers.wait()
        return b"page %d" % self.n_read


def pages(byhand: ByHand, place: str = "account", fresh_s: float = 15.0) -> ListPages:
    return ListPages(byhand.redis, byhand.keys, place, fresh_s=fresh_s)


async def test_steps_that_look_together_read_a_page_once(byhand: ByHand) -> None:
    read = Reader()
    steps = [asyncio.create_task(pages(byhand).page("batches", read)) for _ in range(10)]
    await wait_until(lambda: read.n_read == 1, description="one of them reads")
    read.answers.set()
    assert await asyncio.gather(*steps) == [b"page 1"] * 10
    assert await pages(byhand).page("batches", read) == b"page 1"


async def test_other_pages_and_other_accounts_are_read_by_themselves(byhand: ByHand) -> None:
    read = Reader()
    read.answers.set()
    assert await pages(byhand).page("batches", read) == b"page 1"
    assert await pages(byhand).page("batches after b1", read) == b"page 2"
    assert await pages(byhand, "another account").page("batches", read) == b"page 3"


async def test_a_page_is_not_shared_with_the_next_sweep(byhand: ByHand) -> None:
    read = Reader()
    read.answers.set()
    await pages(byhand, fresh_s=0.01).page("batches", read)

    async def read_again() -> bool:
        return await pages(byhand, fresh_s=0.01).page("batches", read) != b"page 1"

    await wait_until(read_again, description="the page has gone")


async def test_a_list_that_one_step_could_not_read_holds_up_no_other(byhand: ByHand) -> None:
    async def fail() -> bytes:
        raise TemporaryError("503")

    with pytest.raises(TemporaryError, match="503"):
        await pages(byhand).page("batches", fail)
    read = Reader()
    with pytest.raises(TemporaryError, match="just now"):
        await pages(byhand).page("batches", read)
    assert read.n_read == 0


async def test_a_damaged_key_costs_a_call(byhand: ByHand) -> None:
    read = Reader()
    read.answers.set()
    await pages(byhand).page("batches", read)
    [key] = [one async for one in byhand.redis.scan_iter(match=f"{byhand.keys.prefix}list_page:*")]
    await byhand.redis.delete(key)
    await byhand.redis.rpush(key, "no string")
    await byhand.redis.expire(key, 60)
    assert await pages(byhand).page("batches", read) == b"page 2"
