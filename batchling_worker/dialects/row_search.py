"""Finds a batch again by its rows, where a provider shows neither a label of ours nor an input file."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from typing import Final

from batchling_client.wire.keys import ProviderBatchId

from ..errors import PermanentError, TemporaryError
from ..provider import Account, Ended, Ending, Provider, SearchCriteria

ROWS_TOGETHER: Final = 128


async def found_by_rows(
    provider: Provider, account: Account, criteria: SearchCriteria, candidates: Sequence[ProviderBatchId]
) -> list[ProviderBatchId]:
    """Return the candidates whose results hold a row of the batch that is searched for, in their order.

    Raises `TemporaryError` while none is found and one of them cannot be told: it may yet prove to be the one,
    and to take it for another could have a second batch paid for.
    """
    unnamed = [one for one in candidates if not await criteria.is_another(one)]
    # Of those that a list shows as running only the first are looked at themselves: each is to have its turn.
    turns = random.sample(unnamed, len(unnamed))
    looks = await provider.look(account, turns) if turns else {}
    found: list[ProviderBatchId] = []
    untold: list[ProviderBatchId] = []
    for one in unnamed:
        look = looks.get(one)
        if not isinstance(look, Ended) or look.other is not None:
            untold.append(one)
            continue
        try:
            if await _holds_ours(provider, account, criteria, look.ending):
                found.append(one)
        except (TemporaryError, PermanentError):
            untold.append(one)
    if untold and not found:
        raise TemporaryError(
            f"{provider.facts.name} shows no label: {untold[0]} may be {criteria.submission.label}, "
            "which its rows will tell when it has ended"
        )
    return found


async def _holds_ours(provider: Provider, account: Account, criteria: SearchCriteria, ending: Ending) -> bool:
    custom_ids: list[str] = []
    async with contextlib.aclosing(provider.results(account, ending)) as answers:
        async for answer in answers:
            custom_ids.append(answer.custom_id)
            if len(custom_ids) >= ROWS_TOGETHER:
                if await criteria.holds(custom_ids):
                    return True
                custom_ids = []
    return await criteria.holds(custom_ids)
