"""Damaged keys: every script, listing and tick works beside a foreign value, and writes all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest
from redis.exceptions import ResponseError

from batchling_client.views.inspection import Inspection
from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.keys import BatchId, RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import CorruptRecord
from batchling_client.wire.scripts import Enqueued
from batchling_client.wire.states import BatchState, Placement, Verdict
from batchling_worker.account_store import AccountStore
from batchling_worker.decisions.quota import Refusal, quota_id
from batchling_worker.errors import PermanentError
from batchling_worker.store import Store
from tests.wire import golden

from .byhand import KEEP_MS, TERMS, WIDE, ByHand, ids, row

DEPLOYMENT: Final = golden.load()["deployment"]
GARBAGE: Final = b"\xff\x00 |,{}\n" * 3
OPEN: Final = golden.batch_of(BatchState.OPEN)
FIRST_OF_EACH: Final = {name.partition(":")[0]: name for name in reversed(DEPLOYMENT)}
DAMAGED: Final = sorted(
    {*FIRST_OF_EACH.values(), f"batch:{OPEN}", f"rows:{OPEN}", f"batch:{golden.batch_of(BatchState.ENDED)}"}
)


async def damage(byhand: ByHand, name: str, how: str) -> None:
    """What stood there is gone, and something else stands there."""
    key = byhand.keys.prefix + name
    do: Any = byhand.redis.execute_command
    held = DEPLOYMENT[name]
    if how == "of another type":
        await do("UNLINK", key)
        await do(*(("SADD", key, "foreign") if held["type"] == "string" else ("SET", key, "foreign")))
    elif how == "gone":
        await do("UNLINK", key)
        return
    else:
        match held["type"]:
            case "hash":
                await do("HSET", key, *(part for field in held["value"] for part in (field, GARBAGE)))
            case "list":
                await do("LSET", key, 0, GARBAGE)
            case "set":
                await do("SADD", key, GARBAGE)
            case "zset":
                await do("ZADD", key, 0, GARBAGE)
            case "stream":
                await do("XADD", key, "*", "ids", GARBAGE)
            case _:
                await do("SET", key, GARBAGE)
    if name != "schedule":
        await do("PEXPIRE", key, KEEP_MS)


async def enqueue(byhand: ByHand, request_ids: Sequence[RequestId]) -> tuple[BatchId, Enqueued]:
    """As a client asks: with the id that is open instead, or a fresh one, until its requests are taken."""
    guess = new_batch_id()
    for _ in range(4):
        reply = await byhand.scripts.enqueue(
            batch_id=guess,
            lane_id=golden.SPEC.lane_id,
            spec=golden.SPEC.encode(),
            mailbox=byhand.mailbox,
            run_id=golden.RUN,
            run_name="golden",
            cap=WIDE,
            poll_ms=0,
            keep_ms=KEEP_MS,
            ask_failed_anew=True,
            rows=[row(one) for one in request_ids],
        )
        if reply.verdict is Verdict.OK:
            return guess, reply
        guess = reply.open_batch or new_batch_id()
    raise AssertionError("a client would go round for ever")


@pytest.mark.parametrize("how", ["of another type", "garbage", "gone"])
@pytest.mark.parametrize("name", DAMAGED)
async def test_a_damaged_key_stops_nothing_else(byhand: ByHand, name: str, how: str) -> None:
    await golden.restore(byhand.redis, byhand.keys.prefix, DEPLOYMENT)
    await damage(byhand, name, how)

    await _listings_go_on(Inspection(byhand.redis, byhand.keys))
    if (name, how) == ("schedule", "of another type"):
        await _nothing_is_taken(byhand)
    else:
        await _requests_are_taken(byhand)
        await _the_others_are_claimed(byhand, name, how)
    await byhand.redis.execute_command("UNLINK", byhand.keys.prefix + name)


async def _listings_go_on(inspection: Inspection) -> None:
    await inspection.batches(100)
    await inspection.lanes(100)
    await inspection.runs(100)
    await inspection.batches_of(golden.RUN)
    await inspection.n_unfinished()
    try:
        await inspection.workers()
    except CorruptRecord:
        return


async def _nothing_is_taken(byhand: ByHand) -> None:
    before = await byhand.everything()
    with pytest.raises(ResponseError, match="schedule"):
        await enqueue(byhand, ids(2))
    assert await byhand.everything() == before


async def _requests_are_taken(byhand: ByHand) -> None:
    """Check that new requests and one in flight, answered or damaged are each taken once, in one scheduled batch."""
    asked = [*ids(2), golden.requests_of(BatchState.SEALED)[0], golden.requests_of(BatchState.SETTLED)[0]]
    batch_id, reply = await enqueue(byhand, asked)
    queued = [one for one, mark in zip(asked, reply.placements, strict=True) if mark is Placement.QUEUED]
    assert queued[:2] == asked[:2]
    held = [one.request_id for one in await _rows(byhand, batch_id)]
    for one in queued:
        assert held.count(one) == 1
        assert (await byhand.place(one) or "").startswith(f"{batch_id}|1|")
    assert await byhand.next_look(batch_id) is not None
    assert (await byhand.batch(batch_id)).state is BatchState.OPEN


async def _rows(byhand: ByHand, batch_id: BatchId) -> list[Any]:
    store = _store(byhand)
    return [one async for some in store.unanswered(batch_id) for one in some]


async def _the_others_are_claimed(byhand: ByHand, name: str, how: str) -> None:
    living = {golden.batch_of(state) for state in BatchState if not state.terminal}
    for batch_id in living:
        await byhand.due(batch_id)
    claims = {claim.batch_id: claim for claim in await _store(byhand).claim_due(100)}
    harmed = {BatchId(name.removeprefix("batch:"))} if name.startswith("batch:") else set()
    if (name, how) != ("schedule", "gone"):
        assert claims.keys() >= living - harmed
    assert all(claims[one].state is not None for one in claims.keys() - harmed)


def _store(byhand: ByHand) -> Store:
    return Store(redis=byhand.redis, keys=byhand.keys, terms=TERMS)


@pytest.mark.parametrize("state", list(BatchState))
def test_a_batch_with_any_field_damaged_is_read_or_refused(state: BatchState) -> None:
    whole = {
        golden.raw(field): golden.raw(value)
        for field, value in DEPLOYMENT[f"batch:{golden.batch_of(state)}"]["value"].items()
    }
    for field in whole:
        for value in (GARBAGE, b"", b"-1", b"9" * 40, b"nan", b"x" * 100_000, b"[]", b"{}"):
            try:
                batch = Batch.decode({**whole, field: value})
            except CorruptRecord:
                continue
            assert batch.lane_id == batch.spec.lane_id == golden.SPEC.lane_id
            assert isinstance(batch.state, BatchState)


@pytest.mark.parametrize("how", ["of another type", "garbage"])
async def test_what_was_learned_of_an_account_is_learned_again_where_it_is_damaged(
    byhand: ByHand, how: str
) -> None:
    standing = AccountStore(redis=byhand.redis, keys=byhand.keys)
    batch_id = await byhand.sealed(ids(2))
    token = await byhand.claimed(batch_id)
    batch = await byhand.batch(batch_id)
    quota_key = byhand.keys.quota(quota_id("account", batch.spec.model))
    circuit_key = byhand.keys.circuit("account")
    fields = (
        "limit",
        "limit_at",
        "held_until",
        "turn_until",
        "in:b0x",
        "until",
        "trial_until",
        "status",
        "pause",
    )

    async def harm() -> None:
        for key in (quota_key, circuit_key):
            await byhand.redis.execute_command("UNLINK", key)
            if how == "garbage":
                await byhand.redis.execute_command("HSET", key, *(w for f in fields for w in (f, GARBAGE)))
            else:
                await byhand.redis.execute_command("SET", key, GARBAGE)
            await byhand.redis.execute_command("PEXPIRE", key, KEEP_MS)

    await harm()
    assert (await standing.admit(batch, token, "account", 1.0)).verdict is Verdict.OK
    assert (await standing.enter(["account", "lane"])).verdict is Verdict.OK
    await harm()
    assert await standing.trip("account", "503", None, at_once=True) > 0
    await harm()
    await standing.park("account", PermanentError("no", status=401))
    assert (await standing.enter(["account"])).verdict is Verdict.PARKED
    await harm()
    await standing.teach(await byhand.batch(batch_id), Refusal(limit=None, why="too many"))
    await standing.leave(["account"], answered=False)
    await standing.leave(["account"], answered=True)
