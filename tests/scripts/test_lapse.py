"""Lapse: a credential goes soon after the last batch that needs it, and never before."""

from __future__ import annotations

from typing import Final

from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.keys import IN_FLIGHT, UNNEEDED, credential_name
from batchling_client.wire.states import BatchState, Verdict
from batchling_worker.store import Store

from .byhand import KEEP_MS, SPEC, TERMS, WIDE, ByHand, ids, row

MINUTE_MS: Final = 60_000
NAME: Final = credential_name(SPEC.fingerprint, SPEC.provider, SPEC.host)


def store_of(byhand: ByHand) -> Store:
    return Store(redis=byhand.redis, keys=byhand.keys, terms=TERMS)


async def stored(byhand: ByHand, name: str = NAME, *, ago_ms: int = 20 * MINUTE_MS) -> None:
    """Store a credential as a caller did some time ago."""
    await byhand.redis.set(byhand.keys.credential(name), b"sealed", px=IN_FLIGHT.ms - ago_ms)


async def left_ms(byhand: ByHand, name: str = NAME) -> int:
    return int(await byhand.redis.pttl(byhand.keys.credential(name)))


async def test_a_credential_goes_hours_after_its_last_batch_and_is_kept_until_then(
    byhand: ByHand,
) -> None:
    batch_id = await byhand.opened(ids(1))
    await stored(byhand)

    assert await store_of(byhand).lapse_credentials() == 0
    await byhand.redis.zrem(byhand.keys.schedule, batch_id)
    await store_of(byhand).lapse_credentials()

    assert UNNEEDED.ms - MINUTE_MS < await left_ms(byhand) <= UNNEEDED.ms


async def test_a_batch_whose_files_have_to_be_deleted_needs_its_credential(byhand: ByHand) -> None:
    batch_id = await byhand.opened(ids(1))
    await byhand.redis.zrem(byhand.keys.schedule, batch_id)
    await byhand.redis.execute_command("ZADD", byhand.keys.spent_files, 1, f"results:{batch_id}")
    await stored(byhand)

    assert await store_of(byhand).lapse_credentials() == 0
    await byhand.redis.unlink(byhand.keys.spent_files)


async def test_what_was_stored_a_moment_ago_is_left_alone_as_its_requests_may_be_on_their_way(
    byhand: ByHand,
) -> None:
    await byhand.redis.zrem(byhand.keys.schedule, await byhand.opened(ids(1)))
    await stored(byhand, ago_ms=0)

    assert await store_of(byhand).lapse_credentials() == 0


async def test_an_enqueue_gives_a_credential_that_lapses_its_whole_lifetime_back(byhand: ByHand) -> None:
    await byhand.redis.set(byhand.keys.credential(NAME), b"sealed", px=5_000)

    reply = await byhand.enqueue([row(one) for one in ids(1)], into=new_batch_id(), whose=NAME)

    assert reply.verdict is Verdict.OK
    assert KEEP_MS - MINUTE_MS < await left_ms(byhand) <= KEEP_MS


async def test_nothing_is_queued_whose_credential_has_gone(byhand: ByHand) -> None:
    batch_id = new_batch_id()

    reply = await byhand.enqueue([row(one) for one in ids(1)], into=batch_id, whose=NAME)

    assert reply.verdict is Verdict.UNSEALED
    assert await byhand.redis.keys(f"{byhand.keys.prefix}*") == []


async def test_a_request_that_is_queued_between_the_look_and_the_move_keeps_its_credential(
    byhand: ByHand,
) -> None:
    await stored(byhand)
    seconds, _ = await byhand.redis.execute_command("TIME")
    await byhand.scripts.enqueue(
        batch_id=new_batch_id(),
        lane_id=byhand.lane_id,
        spec=SPEC.encode(),
        mailbox=byhand.mailbox,
        run_id=byhand.run_id,
        run_name="",
        cap=WIDE,
        poll_ms=0,
        ask_failed_anew=True,
        whose=NAME,
        rows=[row(one) for one in ids(1)],
    )

    n_changed = await byhand.scripts.lapse(names=[NAME], needed=False, read_at=int(seconds) * 1000)

    assert n_changed == 0
    assert await left_ms(byhand) > IN_FLIGHT.ms - MINUTE_MS


async def test_a_worker_that_stood_still_after_its_look_changes_nothing(byhand: ByHand) -> None:
    await stored(byhand)
    seconds, _ = await byhand.redis.execute_command("TIME")

    read_at = int(seconds) * 1000 - 2 * MINUTE_MS
    assert await byhand.scripts.lapse(names=[NAME], needed=False, read_at=read_at) == 0


async def test_a_needed_credential_that_is_about_to_go_is_kept(byhand: ByHand) -> None:
    """As after a client of an earlier release, which renews nothing when it enqueues."""
    await byhand.opened(ids(1))
    await byhand.redis.set(byhand.keys.credential(NAME), b"sealed", px=UNNEEDED.ms)

    assert await store_of(byhand).lapse_credentials() == 1
    assert await left_ms(byhand, NAME) > IN_FLIGHT.ms - MINUTE_MS


async def test_records_that_cannot_be_read_stop_nobody(byhand: ByHand) -> None:
    batch_id = await byhand.opened(ids(1))
    assert (await byhand.batch(batch_id)).state is BatchState.OPEN
    await byhand.redis.hset(byhand.keys.batch(batch_id), "spec", "\x00")
    await byhand.redis.zadd(byhand.keys.schedule, {"\xff": 1, "no batch": 1})
    await stored(byhand)

    assert await store_of(byhand).lapse_credentials() == 1
    await byhand.redis.zrem(byhand.keys.schedule, "\xff", "no batch")
