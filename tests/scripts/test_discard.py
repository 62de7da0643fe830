"""Discard: a stored result that holds no answer is deleted, and a result that has replaced it stays."""

from __future__ import annotations

from batchling_client.wire.states import Verdict

from .byhand import KEEP_MS, ByHand, ids


async def test_only_the_result_that_was_read_is_dropped(byhand: ByHand) -> None:
    [request_id] = ids(1)
    key = byhand.keys.result(request_id)
    await byhand.redis.execute_command("SET", key, b"+old", "PX", KEEP_MS)

    assert await byhand.scripts.discard(request_id=request_id, packed=b"+another") is Verdict.GONE
    assert await byhand.redis.get(key) == b"+old"
    assert await byhand.scripts.discard(request_id=request_id, packed=b"+old") is Verdict.OK
    assert await byhand.redis.get(key) is None
    assert await byhand.scripts.discard(request_id=request_id, packed=b"+old") is Verdict.GONE


async def test_a_foreign_value_in_its_place_is_left_alone(byhand: ByHand) -> None:
    [request_id] = ids(1)
    key = byhand.keys.result(request_id)
    await byhand.redis.execute_command("RPUSH", key, "foreign")
    await byhand.redis.execute_command("PEXPIRE", key, KEEP_MS)
    assert await byhand.scripts.discard(request_id=request_id, packed=b"+old") is Verdict.GONE
    await byhand.redis.execute_command("UNLINK", key)
