"""Looks at many batches: in lists where there are several, one by one what a list leaves out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from batchling_client.wire.keys import ProviderBatchId

from .provider import Look

logger = logging.getLogger("batchling.worker")

T = TypeVar("T")

LOOKS_TOGETHER: Final = 8
MOST_WORDS: Final = 100


async def looked_at(
    provider_batch_ids: Sequence[ProviderBatchId],
    at_once: int,
    *,
    in_lists: Callable[[set[ProviderBatchId]], Awaitable[Mapping[ProviderBatchId, Look]]],
    at_one: Callable[[ProviderBatchId], Awaitable[Look]],
) -> dict[ProviderBatchId, Look]:
    """How the batches stand: lists are asked for `at_once` of them, `at_one` for each that they leave out."""
    looks: dict[ProviderBatchId, Look] = {}
    for ids in _chunks(provider_batch_ids, at_once):
        if len(ids) > 1:
            looks |= await in_lists(set(ids))
        missing = [one for one in ids if one not in looks]
        for some in _chunks(missing, LOOKS_TOGETHER):
            looks |= await _at_each(some, at_one)
    return looks


async def _at_each(
    ids: Sequence[ProviderBatchId], at_one: Callable[[ProviderBatchId], Awaitable[Look]]
) -> dict[ProviderBatchId, Look]:
    seen = await asyncio.gather(*(at_one(one) for one in ids), return_exceptions=True)
    looks: dict[ProviderBatchId, Look] = {}
    for one, look in zip(ids, seen, strict=True):
        if isinstance(look, BaseException):
            raise look
        looks[one] = look
    return looks


class StrangeWords:
    """Words for a status that nobody documented, each logged once."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._heard: set[str] = set()

    def hear(self, word: str) -> None:
        """Takes note of a word."""
        if word not in self._heard and len(self._heard) < MOST_WORDS:
            self._heard.add(word)
            logger.warning("provider_status_unknown provider=%s status=%.40r", self._provider, word)


def _chunks(sequence: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(sequence), size):
        yield sequence[start : start + size]
