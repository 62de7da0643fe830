"""The table of state changes: scripts make these and no others, and the header of each names them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from batchling_client.wire import stubs
from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.keys import BatchId, RequestId
from batchling_client.wire.states import CHANGES, BatchState

from .byhand import KEEP_MS, WIDE, ByHand, ids, row
from .test_fence import MOVES
from .test_quarantine import LIVE
from .test_reopen import adopt, over_without_answers, reopen, withdrawn_after_asking_again

Seen = set[tuple[BatchState | None, BatchState]]
Play = Callable[[ByHand, BatchState, RequestId], Awaitable[Seen]]
SCRIPTS = sorted({change.script for change in CHANGES})
EVERY_SCRIPT = sorted(path.stem for path in (Path(stubs.__file__).parent / "lua").glob("[a-z]*.lua"))
FULL = dataclasses.replace(WIDE, rows=2)
TERMINAL = [state for state in BatchState if state.terminal]


def declared(script: str) -> Seen:
    return {
        (source, change.target)
        for change in CHANGES
        if change.script == script
        for source in change.sources or (None,)
    }


def spelt(script: str) -> str:
    """The line of a script's header."""
    parts: dict[str, list[str]] = {}
    for change in CHANGES:
        if change.script == script:
            parts.setdefault(change.target, []).extend(change.sources or ("none",))
    return "-- States  " + "  ".join(f"{', '.join(sources)} -> {target}" for target, sources in parts.items())


def in_lane(byhand: ByHand, model: str) -> None:
    """From here on use a lane that has no batch."""
    byhand.spec = msgspec.structs.replace(byhand.spec, model=model)


async def states(byhand: ByHand) -> dict[Any, BatchState]:
    """The state of every batch."""
    named = await byhand.redis.execute_command("ZRANGE", byhand.keys.batches, 0, -1)
    return {one: (await byhand.batch(BatchId(one.decode()))).state for one in named}


def with_token(script: str) -> Play:
    """Call the script on a batch in a state, under a fresh claim."""

    async def play(byhand: ByHand, state: BatchState, one: RequestId) -> Seen:
        batch_id = await byhand.in_state(state, [one])
        token = 0 if state.terminal else await byhand.claimed(batch_id)
        return await changed(byhand, MOVES[script][0](byhand, batch_id, token, one))

    return play


async def changed(byhand: ByHand, call: Awaitable[object]) -> Seen:
    before = await states(byhand)
    await call
    after = await states(byhand)
    return {(before.get(one), state) for one, state in after.items() if before.get(one) is not state}


async def settled(byhand: ByHand, state: BatchState, one: RequestId) -> Seen:
    seen: Seen = set()
    for end in TERMINAL:
        in_lane(byhand, f"settle to {end} in {state}")
        batch_id = await byhand.in_state(state, ids(1))
        token = 0 if state.terminal else await byhand.claimed(batch_id)
        seen |= await changed(byhand, byhand.settle(batch_id, token, end))
    return seen


async def enqueued(byhand: ByHand, state: BatchState, one: RequestId) -> Seen:
    batch_id = await byhand.in_state(state, [one])
    seen = await changed(byhand, byhand.enqueue([row(ids(1)[0])], into=batch_id, cap=FULL))
    if state is not BatchState.OPEN:
        seen |= await changed(byhand, byhand.enqueue([row(ids(1)[0])], into=new_batch_id()))
    return seen


async def requeued(byhand: ByHand, state: BatchState, one: RequestId) -> Seen:
    batch_id = await byhand.in_state(state, [one])
    token = 0 if state.terminal else await byhand.claimed(batch_id)
    target = new_batch_id()
    again = row(one, attempt=2)
    if state is BatchState.ENDED:
        waiting = await byhand.opened(ids(1))
        seen = await changed(byhand, byhand.requeue(batch_id, token, [again], target=waiting, cap=FULL))
        other = await byhand.in_state(state, [two := ids(1)[0]])
        token = await byhand.claimed(other)
        return seen | await changed(
            byhand, byhand.requeue(other, token, [row(two, attempt=2)], target=target)
        )
    return await changed(byhand, byhand.requeue(batch_id, token, [again], target=target))


async def adopted(byhand: ByHand, state: BatchState, one: RequestId) -> Seen:
    batch_id, _ = await withdrawn_after_asking_again(byhand, one)
    await reopen(byhand, batch_id)
    return await changed(byhand, adopt(byhand, batch_id, await byhand.claimed(batch_id), [one]))


async def given_up(byhand: ByHand, state: BatchState, one: RequestId) -> Seen:
    batch_id = await byhand.in_state(state, [one])
    token = 0 if state.terminal else await byhand.claimed(batch_id)
    # Kept for longer than a busy machine takes to look.
    call = byhand.scripts.give_up(batch_id=batch_id, token=token, error="no", keep_ms=KEEP_MS)
    return await changed(byhand, call)


async def reopened(byhand: ByHand, state: BatchState, one: RequestId) -> Seen:
    if state.terminal:
        return await changed(byhand, reopen(byhand, await over_without_answers(byhand, [one], state)))
    return await changed(byhand, reopen(byhand, await byhand.in_state(state, [one])))


async def dropped(byhand: ByHand, state: BatchState, one: RequestId) -> Seen:
    return await changed(byhand, byhand.drop([one], await byhand.in_state(state, [one])))


async def cancelled(byhand: ByHand, state: BatchState, one: RequestId) -> Seen:
    seen = await changed(byhand, byhand.cancel(await byhand.in_state(state, [one])))
    elsewhere = await byhand.in_state(state, ids(1))
    await byhand.opened_elsewhere(elsewhere)
    seen |= await changed(byhand, byhand.cancel(elsewhere))
    if state in LIVE:
        poison = await byhand.in_state(state, ids(1))
        await byhand.cancel(poison)
        if (await byhand.batch(poison)).state is state:
            await quarantine(byhand, poison)
            seen |= await changed(byhand, byhand.cancel(poison))
    return seen


async def quarantine(byhand: ByHand, batch_id: BatchId) -> None:
    now = await byhand.now_ms()
    await byhand.redis.execute_command("HSET", byhand.keys.batch(batch_id), "quarantined_at", now)


PLAYS: dict[str, Play] = {
    **{name: with_token(name) for name in MOVES if name in SCRIPTS},
    "adopt": adopted,
    "cancel": cancelled,
    "drop": dropped,
    "enqueue": enqueued,
    "give_up": given_up,
    "reopen": reopened,
    "requeue": requeued,
    "settle": settled,
}


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_script_makes_the_changes_of_the_table_and_no_others(byhand: ByHand, script: str) -> None:
    seen: Seen = set()
    for state in BatchState:
        in_lane(byhand, f"{script} in {state}")
        seen |= await PLAYS[script](byhand, state, ids(1)[0])

    assert seen == declared(script)


@pytest.mark.parametrize("script", EVERY_SCRIPT)
def test_a_header_names_the_changes_of_its_script(script: str) -> None:
    named = re.findall(r"^-- States .*$", stubs.source(script), re.MULTILINE)
    assert named == ([spelt(script)] if script in SCRIPTS else [])
