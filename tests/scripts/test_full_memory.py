"""A full Redis takes nothing new, writes nothing by halves, and still lets what it holds come to its end."""

from __future__ import annotations

import pytest
from redis.exceptions import OutOfMemoryError

from batchling_client.wire.ids import new_batch_id, new_mailbox
from batchling_client.wire.keys import BatchId
from batchling_client.wire.states import BatchState, Outcome, Placement, RowKind, Verdict
from batchling_worker.account_store import AccountStore
from batchling_worker.decisions.quota import Refusal
from batchling_worker.errors import PermanentError

from .byhand import ByHand, ids, out, row


async def fill(byhand: ByHand) -> None:
    """From now on Redis is over its limit."""
    await byhand.redis.execute_command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(OutOfMemoryError):
        await byhand.redis.execute_command("SET", "one-more", "x")


async def test_enqueue_refuses_and_nothing_is_half_written(alone: ByHand) -> None:
    await fill(alone)
    with pytest.raises(OutOfMemoryError):
        await alone.enqueue([row(one, b"x" * 2000) for one in ids(128)], into=new_batch_id())
    assert await alone.everything() == {}


async def test_enqueue_into_an_open_batch_refuses_and_leaves_it_as_it_was(alone: ByHand) -> None:
    [failed] = ids(1)
    first = await alone.over([failed])
    await alone.deliver(first, await alone.claimed(first), [out(failed, RowKind.FAILURE)])
    batch_id = await alone.opened(ids(3))
    await fill(alone)
    before = await alone.everything()

    for rows in ([row(one) for one in ids(5)], [row(failed)]):
        with pytest.raises(OutOfMemoryError):
            await alone.enqueue(rows, into=batch_id)

    assert await alone.everything() == before


async def test_an_answered_request_is_found_all_the_same(alone: ByHand) -> None:
    [one] = ids(1)
    await alone.in_state(BatchState.SETTLED, [one])
    await fill(alone)
    assert (await alone.enqueue([row(one)], into=new_batch_id())).placements == (Placement.ANSWERED,)


async def test_a_batch_ends_and_its_callers_get_their_answers(alone: ByHand) -> None:
    """A refused delivery would keep its rows in memory for ever, and its callers waiting: it would stay full."""
    [good, bad] = ids(2)
    batch_id, scripts = await alone.opened([good, bad]), alone.scripts
    await fill(alone)

    [claim] = await alone.claims(batch_id)
    assert await alone.seal(batch_id, claim.token) is Verdict.OK
    [claim] = await alone.claims(batch_id)
    assert await alone.begin(batch_id, claim.token) is not None
    assert await scripts.extend(batch_id=batch_id, token=claim.token, lease_ms=1000) is Verdict.OK
    standing = AccountStore(alone.redis, alone.keys)
    batch = await alone.batch(batch_id)
    assert await scripts.hold(batch_id=batch_id, token=claim.token, delay_s=0, why="full") is Verdict.OK
    [claim] = await alone.claims(batch_id)
    assert (await standing.admit(batch, claim.token, "account", 1.0)).verdict is Verdict.OK
    await standing.trip("account", "503", None, at_once=True)
    await standing.park("account", PermanentError("bad key", status=401))
    await standing.leave(["account"], answered=True)
    assert await scripts.intend(batch_id=batch_id, token=claim.token, label="label") == "label"
    uploaded = await scripts.uploaded(batch_id=batch_id, token=claim.token, input_file_id="f", n_lines=2)
    assert uploaded is Verdict.OK
    assert await scripts.arm(batch_id=batch_id, token=claim.token) is Verdict.OK
    assert await scripts.own(batch_id=batch_id, name="n", keep_ms=60_000) is None
    assert (await alone.submitted(batch_id, claim.token))[0] is Verdict.OK
    [claim] = await alone.claims(batch_id)
    assert await alone.progress(batch_id, claim.token) is Verdict.OK
    [claim] = await alone.claims(batch_id)
    assert await scripts.release(batch_id=batch_id, token=claim.token, delay_s=0, error="503") is Verdict.OK
    await standing.teach(await alone.batch(batch_id), Refusal(why="full", limit=None))
    [claim] = await alone.claims(batch_id)
    assert await alone.ended(batch_id, claim.token, Outcome.EXPIRED, "late") is Verdict.OK
    [claim] = await alone.claims(batch_id)
    assert (await alone.deliver(batch_id, claim.token, [out(good)])).n_answered == 1
    assert await scripts.collected(batch_id=batch_id, token=claim.token) is Verdict.OK
    [claim] = await alone.claims(batch_id)
    again = BatchId("b-again")
    assert (await alone.requeue(batch_id, claim.token, [row(bad, attempt=2)], target=again))[0] is Verdict.OK
    assert await alone.settle(batch_id, claim.token) is Verdict.OK

    assert await alone.mail() == [good]
    assert await alone.rows_of(batch_id) == []


async def test_callers_can_take_their_requests_back(alone: ByHand) -> None:
    [one, shared] = ids(2)
    batch_id = await alone.opened([one, shared])
    await alone.enqueue([row(shared)], into=batch_id, mailbox=new_mailbox())
    await fill(alone)
    assert await alone.withdraw(one, batch_id) is Verdict.OK
    assert await alone.withdraw(shared, batch_id) is Verdict.JOINED
    assert await alone.cancel(batch_id) is Verdict.OK
