"""A caller that sends its overdue requests at full price has no batch cancelled in which others wait."""

from __future__ import annotations

import asyncio

import pytest

from batchling_client.session.withdrawing import Withdrawal, Withdrawals
from batchling_client.wire.ids import new_mailbox
from batchling_client.wire.keys import BatchId, RequestId
from batchling_client.wire.states import Verdict

from .byhand import ByHand, ids, out, row


@pytest.fixture
def hasty(byhand: ByHand) -> Withdrawals:
    """The withdrawals of the session whose mailbox is the hand's: its callers expect no answer any more."""
    return Withdrawals(byhand.scripts, byhand.mailbox, lambda request_id: False, asyncio.Event())


async def is_cancelled(byhand: ByHand, batch_id: BatchId) -> bool:
    return bool(await byhand.redis.execute_command("HGET", byhand.keys.batch(batch_id), "cancel_requested"))


async def give_up(byhand: ByHand, hasty: Withdrawals, request_id: RequestId) -> None:
    hasty.add([Withdrawal(request_id, lambda withdrawn, running: None, cancel=True)])
    await hasty.send()


async def submit(byhand: ByHand, batch_id: BatchId) -> None:
    assert await byhand.seal(batch_id, await byhand.claimed(batch_id)) is Verdict.OK
    token = await byhand.claimed(batch_id)
    assert await byhand.scripts.intend(batch_id=batch_id, token=token, label="label") == "label"
    assert await byhand.scripts.arm(batch_id=batch_id, token=token) is Verdict.OK
    assert await byhand.submitted(batch_id, token) == (Verdict.OK, "")


async def test_an_overdue_request_that_was_answered_early_does_not_count_against_others(
    byhand: ByHand, hasty: Withdrawals
) -> None:
    first, second, patient = ids(3)
    batch_id = await byhand.opened([first, second])
    await byhand.enqueue([row(patient)], into=batch_id, mailbox=new_mailbox())
    await submit(byhand, batch_id)

    await give_up(byhand, hasty, first)
    token = await byhand.claimed(batch_id)
    await byhand.deliver(batch_id, token, [out(first)])
    await give_up(byhand, hasty, second)

    assert not await is_cancelled(byhand, batch_id)


async def test_an_overdue_request_that_somebody_else_has_joined_does_not_count(
    byhand: ByHand, hasty: Withdrawals
) -> None:
    first, second = ids(2)
    batch_id = await byhand.opened([first, second])
    await submit(byhand, batch_id)

    await give_up(byhand, hasty, first)
    await byhand.enqueue([row(first)], into=batch_id, mailbox=new_mailbox())
    await give_up(byhand, hasty, second)

    assert not await is_cancelled(byhand, batch_id)


async def test_a_batch_in_which_all_that_is_open_is_overdue_is_cancelled(
    byhand: ByHand, hasty: Withdrawals
) -> None:
    first, second, answered = ids(3)
    batch_id = await byhand.opened([first, second, answered])
    await submit(byhand, batch_id)
    await give_up(byhand, hasty, first)
    assert not await is_cancelled(byhand, batch_id)
    token = await byhand.claimed(batch_id)
    await byhand.deliver(batch_id, token, [out(answered)])

    await give_up(byhand, hasty, second)

    assert await is_cancelled(byhand, batch_id)
