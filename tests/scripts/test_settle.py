"""Settle: the end of a life; what is left is declared and expires."""

from __future__ import annotations

import pytest

from batchling_client.wire.keys import KEYSPACE, BatchId, ProviderBatchId
from batchling_client.wire.records.row_and_result import WorkerPresence
from batchling_client.wire.states import BatchState, RowKind, Verdict
from batchling_worker.errors import PermanentError
from batchling_worker.store import Store

from .byhand import KEEP_MS, TERMS, ByHand, ids, out, row
from .keyspace import overlong, strays, words_in_use

WRITTEN_ELSEWHERE = {"credential", "key_hint", "list_page", "paused", "reader", "salt"}
"""Beside the scripts: by the client and by commands, and by workers that look at a list together."""


@pytest.mark.parametrize("state", [state for state in BatchState if state.terminal])
async def test_a_settled_batch_keeps_its_record_and_loses_its_rows(byhand: ByHand, state: BatchState) -> None:
    batch_id = await byhand.in_state(state, ids(3))

    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.n_succeeded) == (state, 3)
    assert batch.settled_at is not None
    assert await byhand.rows_of(batch_id) == []
    assert await byhand.next_look(batch_id) is None
    assert 0 < await byhand.redis.execute_command("PTTL", byhand.keys.batch(batch_id)) <= KEEP_MS


async def test_every_key_of_a_full_life_is_declared_and_every_declared_key_was_seen(byhand: ByHand) -> None:
    """One batch from the first enqueue to the end, with a second attempt, a joiner and a withdrawal."""
    seen: set[str] = set()

    async def look() -> None:
        assert await strays(byhand.redis, byhand.keys) == []
        assert await overlong(byhand.redis, byhand.keys) == []
        seen.update(await words_in_use(byhand.redis, byhand.keys))

    store = Store(redis=byhand.redis, keys=byhand.keys, terms=TERMS)
    presence = WorkerPresence(name="w@h", pid=1, version="0", pool="threads", seal_public_key="00")
    await store.announce(presence)
    await look()
    [good, bad, dropped] = ids(3)
    batch_id = await byhand.opened([good, bad, dropped])
    await byhand.withdraw(dropped, batch_id)
    await byhand.scripts.remember(run_id=byhand.run_id, number=0, packed=b"", n_requests=3, keep_ms=KEEP_MS)
    await look()
    await byhand.seal(batch_id, await byhand.claimed(batch_id))
    claim = store.claim(batch_id, await byhand.claimed(batch_id))
    await claim.begin([BatchState.SEALED])
    batch = await byhand.batch(batch_id)
    assert (await store.accounts.admit(batch, claim.token, "account", 1.0)).verdict is Verdict.OK
    await store.accounts.trip("account", "it answered 503", None)
    await store.accounts.park("account", PermanentError("bad key", status=401))
    await claim.intend("label")
    await claim.uploaded("file", 2)
    await claim.arm("account")
    assert await claim.own(ProviderBatchId("batch_1"), "account") is None
    await look()
    await byhand.submitted(batch_id, claim.token)
    await byhand.progress(batch_id, await byhand.claimed(batch_id))
    await byhand.ended(batch_id, await byhand.claimed(batch_id))
    token = await byhand.claimed(batch_id)
    await byhand.deliver(batch_id, token, [out(good)])
    await store.claim(batch_id, token).spend()
    await byhand.scripts.collected(batch_id=batch_id, token=token)
    await look()
    token = await byhand.claimed(batch_id)
    await byhand.scripts.keep(batch_id=batch_id, token=token, keep_ms=KEEP_MS, request_ids=[bad])
    await byhand.requeue(batch_id, token, [row(bad, attempt=2)], target=BatchId("b-second"))
    assert await byhand.settle(batch_id, token) is Verdict.OK
    await look()
    await byhand.cancel(BatchId("b-second"))
    token = await byhand.claimed(BatchId("b-second"))
    await byhand.deliver(BatchId("b-second"), token, [out(bad, RowKind.FAILURE, about="400 bad_request no")])
    await byhand.settle(BatchId("b-second"), token, BatchState.CANCELLED)
    await look()
    await store.depart(presence)
    await look()

    assert seen == {kind.word for kind in KEYSPACE} - WRITTEN_ELSEWHERE
