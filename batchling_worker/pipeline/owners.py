"""Records which batch has a provider_batch_id: an answer with another batch's id must not bind a second batch to it."""

from __future__ import annotations

import hashlib
from typing import Final

from redis.exceptions import OutOfMemoryError

from batchling_client.wire.keys import BatchId, ProviderBatchId
from batchling_client.wire.states import BatchState

from ..store import Store

KEPT_MS: Final = 35 * 24 * 3600 * 1000
"""As long as requests in flight are kept."""


async def other_owner(
    store: Store, batch_id: BatchId, provider_batch_id: ProviderBatchId, account: str
) -> str:
    """Return the running batch of this account that has the provider_batch_id; '' = this batch owns it from now on.

    A terminal batch owns no id: a restarted server may count its ids from one again. If Redis is full, nothing is
    recorded, because an answered create must be stored in any case.
    """
    named = hashlib.blake2b(f"{account}\n{provider_batch_id}".encode(), digest_size=16).hexdigest()
    key = store.keys.owner(named)
    try:
        if await store.redis.execute_command("SET", key, batch_id, "NX", "PX", KEPT_MS):
            return ""
        known: bytes | None = await store.redis.execute_command("GET", key)
        other = BatchId(known.decode(errors="replace")) if known else batch_id
        if other == batch_id:
            return ""
        if await _runs(store, other):
            return other
        await store.redis.execute_command("SET", key, batch_id, "PX", KEPT_MS)
    except OutOfMemoryError:
        pass
    return ""


async def _runs(store: Store, batch_id: BatchId) -> bool:
    state = await store.redis.execute_command("HGET", store.keys.batch(batch_id), "state")
    return state is not None and any(state.decode() == one and not one.terminal for one in BatchState)
