"""Pauses providers, models, keys and lanes, and resumes them: what is submitted already runs on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

from redis.asyncio import Redis

from ..errors import BatchlingError
from ..views.batch_list import BatchLists, Filter
from ..wire.keys import Keys, LaneId
from ..wire.records.pause import Kind, Pause, pauses
from ..wire.records.row_and_result import LaneSpec
from ..wire.scripts import Scripts
from ..wire.states import BatchState

SHORTEST_PREFIX: Final = 4
MOST_WOKEN: Final = 1000
"""How many of the batches that waited are looked at at once after a resume; the others follow at their next look."""
_WAITING: Final = (BatchState.SEALED.value, BatchState.SUBMITTING.value)


class UnknownPlace(BatchlingError):
    """No lane has this provider, model, key or id."""

    code = "unknown_place"
    sentence = "No lane has this provider, model, key or id."


async def pauses_of(redis: Redis, keys: Keys) -> list[Pause]:
    """Return what is paused, the oldest first."""
    return pauses(await redis.execute_command("HGETALL", keys.paused))


async def pause(
    lists: BatchLists, redis: Redis, keys: Keys, name: str, *, by: str, reason: str = ""
) -> Pause:
    """Pause what a person names; return the pause that is in force. Raises `UnknownPlace`."""
    lanes = await lists.lanes()
    kind, full = _meant(name, {one: spec for one, spec in lanes.specs.items() if spec is not None})
    wanted = Pause(kind=kind, name=full, by=by, at=dt.datetime.now(dt.UTC), reason=reason)
    await redis.execute_command("HSETNX", keys.paused, wanted.field, wanted.encode())
    return next((one for one in await pauses_of(redis, keys) if one.field == wanted.field), wanted)


async def resume(lists: BatchLists, scripts: Scripts, name: str, *, by: str) -> list[Pause]:
    """End the pauses that a person names, '' for all, and look at once at the batches that waited for them.

    Raises `UnknownPlace` if nothing of that name is paused.
    """
    redis, keys = scripts.redis, scripts.keys
    paused = await pauses_of(redis, keys)
    found = [one for one in paused if one.name == name or not name]
    if name and not found:
        found = [one for one in paused if _begins(one, name)]
    if name and len(found) != 1:
        known = ", ".join(one.name for one in paused) or "nothing"
        raise UnknownPlace(f"{name!r} names no pause, or several. Paused: {known}.")
    for one in found:
        await redis.execute_command("HDEL", keys.paused, one.field)
    page = await lists.page(Filter(lists=_WAITING), limit=MOST_WOKEN)
    for batch in page.batches:
        if batch.error and batch.error.startswith("paused by "):
            await scripts.retry(batch_id=batch.batch_id, by=by)
    return found


def _begins(one: Pause, name: str) -> bool:
    return len(name) >= SHORTEST_PREFIX and one.name.startswith(name)


def _meant(name: str, lanes: Mapping[LaneId, LaneSpec]) -> tuple[Kind, str]:
    """Return what a name stands for among the lanes: a provider, a model, a key or a lane."""
    if any(spec.provider == name for spec in lanes.values()):
        return Kind.PROVIDER, name
    if any(f"{spec.provider}/{spec.model}" == name for spec in lanes.values()):
        return Kind.MODEL, name
    titles = {f"{spec.provider}/{spec.model}" for spec in lanes.values() if spec.model == name}
    if len(titles) == 1:
        return Kind.MODEL, titles.pop()
    if len(name) >= SHORTEST_PREFIX:
        fingerprints = {spec.fingerprint for spec in lanes.values() if spec.fingerprint.startswith(name)}
        lane_ids = {lane_id for lane_id in lanes if lane_id.startswith(name)}
        if len(fingerprints) + len(lane_ids) == 1:
            return (Kind.KEY, fingerprints.pop()) if fingerprints else (Kind.LANE, lane_ids.pop())
    raise UnknownPlace(
        f"{name!r} names no provider, model, key or lane of this deployment, or several: `batchling lanes` lists them."
    )
