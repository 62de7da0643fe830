"""Decides when a batch is looked at: values in, values out, `now` passed in."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from typing import Final

from batchling_client.wire.records.batch import Batch

from ..provider import Running

FIRST_LOOK_S: Final = 2.0
LOOK_SHARE_OF_AGE: Final = 0.05
LOOK_LONGEST_FACTOR: Final = 6.0
YOUNG_SHARE_OF_AGE: Final = 0.25
YOUNG_SHORTEST_SHARE: Final = 0.25
"""Where nobody named an interval, a young batch is looked at sooner: after this share of it at the soonest."""
GRID_LEAST_S: Final = 1.0
"""Shorter intervals are left as they are: waiting for other looks would cost more than it saves."""
SOONER: Final = 0.25
"""By this share of its interval a look may come sooner, to fall together with those of its account's other batches."""
SOONER_YOUNG: Final = 0.5
"""The same of the pause of a batch that is looked at sooner for being young."""


def interval_s(batch: Batch, shortest_s: float, least_s: float = 0.0) -> float:
    """Return the shortest time between two looks at a batch; `least_s` is what its provider asks for."""
    return max(batch.poll_s or shortest_s, least_s)


def next_look_s(
    batch: Batch,
    shortest_s: float,
    now: dt.datetime,
    least_s: float = 0.0,
    *,
    account: str = "",
    elapsed_s: float = 0.0,
    unnamed: bool = False,
) -> float:
    """Return in how many seconds to look again at a running batch that was looked at `elapsed_s` after `now`.

    The pause is the batch's interval at least, longer as the batch ages, and six intervals at most. The looks of one
    account fall on a common grid, so that one sweep of the provider's list serves them all: up to a quarter of an
    interval sooner than the pause says, or up to an interval later. The look after the first may come sooner than that:
    nothing but the first was sooner than asked. `unnamed` = the interval is a default of ours: a young batch is then
    looked at sooner, on slots that are closer.
    """
    floor, age = interval_s(batch, shortest_s, least_s), now - (batch.submitted_at or now)
    pause = pace_s(batch, shortest_s, now, least_s, unnamed=unnamed)
    if not account or floor < GRID_LEAST_S:
        return pause
    young = age.total_seconds() < floor and pause >= floor
    share = 1 - SOONER if pause >= floor else SOONER_YOUNG
    soonest = max(min(pause, floor) * (SOONER if young else share), least_s * (1 - SOONER))
    return _on_grid(now.timestamp(), pause, floor, max(soonest, elapsed_s), account) - elapsed_s


def pace_s(
    batch: Batch, shortest_s: float, now: dt.datetime, least_s: float = 0.0, *, unnamed: bool = False
) -> float:
    """Return how long to wait between two looks at a batch of this age, wherever the slots of its account are."""
    floor, age = interval_s(batch, shortest_s, least_s), now - (batch.submitted_at or now)
    pause = _look_s(floor, age)
    if not unnamed or batch.poll_s:
        return pause
    return min(pause, max(floor * YOUNG_SHORTEST_SHARE, age.total_seconds() * YOUNG_SHARE_OF_AGE, least_s))


def _on_grid(now: float, pause: float, floor: float, soonest: float, account: str) -> float:
    """Return the pause that ends at the account's last slot within it, or at the first that is not too soon.

    Slots are one interval apart, two or four for pauses of so many, and a half or a quarter for shorter ones: slots of
    the wider grids are slots of the narrower ones, so that old batches and young ones meet.
    """
    width = floor * 2.0 ** math.floor(math.log2(pause / floor))
    digest = hashlib.blake2b(account.encode(), digest_size=4).digest()
    phase = int.from_bytes(digest) % 2**24
    to_slot = pause - (now + pause - phase) % width
    return to_slot + width * max(0, math.ceil((soonest - to_slot) / width))


def turn(batch: Batch) -> tuple[bool, dt.datetime]:
    """Return what sorts batches by when each is to be looked at by itself, and not through a list.

    Those that are to be cancelled come first, as a cancel waits for its end. Then those whose last such look is longest
    ago; a new batch has its turn after the old ones, which a stream of new ones must not keep from theirs.
    """
    return not batch.cancel_requested, batch.confirmed_at or batch.submitted_at or batch.created_at


def held_look_s(batch: Batch, shortest_s: float, now: dt.datetime) -> float:
    """Return in how many seconds a batch that waits for room asks again: as often as the others are looked at."""
    return _look_s(batch.poll_s or shortest_s, now - batch.created_at)


def _look_s(floor: float, age: dt.timedelta) -> float:
    return min(max(floor, age.total_seconds() * LOOK_SHARE_OF_AGE), max(floor * LOOK_LONGEST_FACTOR, floor))


def first_look_s(batch: Batch, shortest_s: float) -> float:
    """Return in how many seconds to look at a created batch first: soon, because validation fails within seconds."""
    return min(batch.poll_s or shortest_s, FIRST_LOOK_S)


def early_is_due(batch: Batch, seen: Running) -> bool:
    """Return whether there may be more early results than at the last reading."""
    return seen.n_done == 0 or seen.n_done != batch.early.n_done
