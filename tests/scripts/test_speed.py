"""No script holds Redis, and with it everybody else, for longer than five milliseconds."""

from __future__ import annotations

import os
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from batchling_client.wire.ids import new_batch_id, new_mailbox
from batchling_client.wire.keys import BatchId, Keys
from batchling_client.wire.states import BatchState, RowKind, Verdict

from .byhand import ByHand, ids, out, row

AT_ONCE = 128
"""Rows that a client or worker sends with one call."""
TIMES = 5
LONGEST_MS = 5.0
BODY = os.urandom(1000).hex().encode()
"""Two kilobytes that compress as text does, by half."""

Prepare = Callable[[ByHand], Awaitable[Callable[[], Awaitable[object]]]]


@asynccontextmanager
async def every_command_logged(byhand: ByHand) -> AsyncIterator[list[float]]:
    """The milliseconds of each script run inside, as Redis counts them."""
    took_ms: list[float] = []
    config, redis = "CONFIG", byhand.redis
    await redis.execute_command(config, "SET", "slowlog-max-len", "100", "slowlog-log-slower-than", "0")
    await redis.execute_command("SLOWLOG", "RESET")
    try:
        yield took_ms
        for entry in await redis.execute_command("SLOWLOG", "GET", "100"):
            command = entry["command"] if isinstance(entry, dict) else entry[3]
            micros = entry["duration"] if isinstance(entry, dict) else entry[2]
            if b"EVAL" in (command if isinstance(command, bytes) else command[0]).upper():
                took_ms.append(micros / 1000)
    finally:
        await redis.execute_command(config, "SET", "slowlog-log-slower-than", "-1")


async def _enqueue_fresh(byhand: ByHand) -> Callable[[], Awaitable[object]]:
    rows, batch_id = [row(one, BODY) for one in ids(AT_ONCE)], await byhand.opened(ids(1))
    return lambda: byhand.enqueue(rows, into=batch_id)


async def _enqueue_joined(byhand: ByHand) -> Callable[[], Awaitable[object]]:
    asked = ids(AT_ONCE)
    batch_id, other = await byhand.opened(asked), new_mailbox()
    return lambda: byhand.enqueue([row(one, BODY) for one in asked], into=batch_id, mailbox=other)


async def _deliver(byhand: ByHand) -> Callable[[], Awaitable[object]]:
    asked = ids(AT_ONCE)
    batch_id = await byhand.over(asked)
    token = await byhand.claimed(batch_id)
    return lambda: byhand.deliver(batch_id, token, [out(one, body=BODY) for one in asked])


async def _deliver_to_many(byhand: ByHand) -> Callable[[], Awaitable[object]]:
    """Each row is another client's."""
    mailboxes, asked = [new_mailbox() for _ in range(AT_ONCE)], ids(AT_ONCE)
    batch_id = new_batch_id()
    for one, mailbox in zip(asked, mailboxes, strict=True):
        await byhand.enqueue([row(one)], into=batch_id, mailbox=mailbox)
    await byhand.seal(batch_id, await byhand.claimed(batch_id))
    token = await byhand.claimed(batch_id)
    return lambda: byhand.deliver(
        batch_id, token, [out(one, body=BODY) for one in asked], mailboxes=mailboxes
    )


async def _leave_for_another_attempt(byhand: ByHand) -> Callable[[], Awaitable[object]]:
    asked = ids(AT_ONCE)
    batch_id = await byhand.over(asked)
    token = await byhand.claimed(batch_id)
    return lambda: byhand.deliver(batch_id, token, [out(one, RowKind.RETRY, BODY) for one in asked])


async def _requeue(byhand: ByHand) -> Callable[[], Awaitable[object]]:
    asked = ids(AT_ONCE)
    source = await byhand.over(asked)
    token, target = await byhand.claimed(source), new_batch_id()
    rows = [row(one, BODY, attempt=2) for one in asked]

    async def requeue() -> None:
        assert await byhand.requeue(source, token, rows, target=target) == (Verdict.OK, AT_ONCE, None)
        await byhand.cancel(target)

    return requeue


async def _claim_many(byhand: ByHand) -> Callable[[], Awaitable[object]]:
    batches = [await byhand.sealed(ids(1)) for _ in range(100)]

    async def claim() -> None:
        assert len(await byhand.claims(*batches)) == len(batches)

    return claim


async def _settle_large(byhand: ByHand) -> Callable[[], Awaitable[object]]:
    batch_id = await byhand.over(ids(1))
    await byhand.redis.rpush(byhand.keys.rows(batch_id), *([b"x" * 2000] * 5000))
    token = await byhand.claimed(batch_id)
    return lambda: byhand.settle(batch_id, token, BatchState.SETTLED)


async def _seal_large(byhand: ByHand) -> Callable[[], Awaitable[object]]:
    batch_id = await byhand.opened(ids(1))
    await byhand.redis.rpush(byhand.keys.rows(batch_id), *([b"x" * 2000] * 5000))
    token = await byhand.claimed(batch_id)
    return lambda: byhand.seal(BatchId(batch_id), token)


CALLS: dict[str, Prepare] = {
    "enqueue 128 fresh rows": _enqueue_fresh,
    "enqueue 128 joined rows": _enqueue_joined,
    "deliver 128 rows to one client": _deliver,
    "deliver 128 rows to 128 clients": _deliver_to_many,
    "leave 128 rows for another attempt": _leave_for_another_attempt,
    "requeue 128 rows": _requeue,
    "claim 100 batches": _claim_many,
    "settle 5,000 rows": _settle_large,
    "seal 5,000 rows": _seal_large,
}


@pytest.mark.parametrize("call", CALLS)
async def test_no_script_blocks_redis_longer_than_5_ms(alone: ByHand, call: str) -> None:
    took_ms = []
    for n in range(TIMES):
        once = await CALLS[call](ByHand(alone.redis, Keys(f"speed-{n}")))
        async with every_command_logged(alone) as logged:
            await once()
        took_ms.append(max(logged))

    assert statistics.median(took_ms) < LONGEST_MS, took_ms
