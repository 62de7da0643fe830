"""Looks at submitted batches, with shared calls for batches of one account."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Sequence
from typing import Final

from ..call_outcome import CallOutcomes
from ..decisions import looks
from ..dialects.poll_many import chunks
from ..errors import PermanentError, TemporaryError
from ..pipeline.poll import look, poll, unseen
from ..pipeline.step import AccountStep, Step
from ..provider import Account, Look, Running, Seen
from .access import Access
from .accounts import AccountKey, account_key
from .guard import Guard
from .list_pages import ListPages

MOVES_TOGETHER: Final = 16
"""How many of the batches that are polled together call Redis at once: on a busy machine its answers take time."""
EARLY_TOGETHER: Final = 4
"""Of how many running batches of an account results are read at once."""


class Polls:
    """Runs polls that have begun."""

    def __init__(self, access: Access, guard: Guard) -> None:
        self._access = access
        self._guard = guard

    async def run(self, steps: Sequence[Step]) -> None:
        """Look at the batches, those of one account together and under one lease."""
        groups: dict[AccountKey, list[Step]] = {}
        for step in steps:
            groups.setdefault(account_key(step.batch.spec), []).append(step)
        await asyncio.gather(
            *(self._guard.under_lease(some, self._of_one_account(some)) for some in groups.values())
        )

    async def _of_one_account(self, steps: Sequence[Step]) -> None:
        try:
            account = await self._access.account(steps[0].batch)
            account = dataclasses.replace(account, pages=_pages(account, steps))
            steps = bound = [step.at(account) for step in steps]
            async with self._access.through(account, steps):
                seen = await look(bound)
        except (TemporaryError, PermanentError) as error:
            for step in steps:
                await self._guard.guarded(step, unseen(step, error))
        except Exception as error:  # noqa: BLE001 - an error of the shared call is the error of each step
            for step in steps:
                await self._guard.guarded(step, _failing(error))
        else:
            await self._polled(list(zip(bound, seen, strict=True)))

    async def _polled(self, seen: Sequence[tuple[AccountStep, Seen]]) -> None:
        """Poll the batches; those with early results come last, because reading may take long."""
        running: list[tuple[AccountStep, Seen]] = []
        early: list[tuple[AccountStep, Look]] = []
        for step, one in seen:
            if not isinstance(one, Running):
                await self._guard.guarded(step, poll(step, one))
            elif one.early is None:
                running.append((step, one))
            else:
                early.append((step, one))
        for some in chunks(running, MOVES_TOGETHER):
            await asyncio.gather(*(self._guard.guarded(step, poll(step, one)) for step, one in some))
        room = asyncio.Semaphore(EARLY_TOGETHER)
        await asyncio.gather(*(self._poll_early(step, one, room) for step, one in early))

    async def _poll_early(self, step: AccountStep, seen: Look, room: asyncio.Semaphore) -> None:
        # The outcome of one download must not count for another.
        account = dataclasses.replace(step.account, calls=CallOutcomes())
        through = functools.partial(self._access.through, account, [step])
        async with room:
            await self._guard.guarded(step, poll(step.at(account), seen, through))


def _pages(account: Account, steps: Sequence[Step]) -> ListPages:
    """Return the pages of an account's list that the steps of this look share; pages of the last look are stale."""
    store, settings = steps[0].store, steps[0].settings

    def pause_s(step: Step) -> float:
        wanted = (step.batch, settings.poll_interval_s, step.now, step.least_look_s)
        interval_s = looks.interval_s(step.batch, settings.poll_interval_s, step.least_look_s)
        return min(interval_s, looks.pace_s(*wanted, unnamed=settings.poll_unnamed))

    # A header may choose whose batches a list shows, such as those of a project.
    place = f"{account.digest} {steps[0].batch.spec.stored_headers}"
    return ListPages(store.redis, store.keys, place, fresh_s=min(map(pause_s, steps)) / 2)


async def _failing(error: Exception) -> None:
    raise error
