"""Makes the call that costs money: recorded before, committed after."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.states import Outcome

from .. import backoff
from ..decisions import patience
from ..errors import (
    CreateBegun,
    CreateRefused,
    FileNotReady,
    Limited,
    MaybeDone,
    NotOnDisk,
    PermanentError,
    QuotaFull,
    TemporaryError,
)
from ..provider import Ended, Running, Seen, Source, Submission
from . import input_file, unsubmitted
from .admission import wait_for_room
from .commit import SEARCH_FIRST_S, commit, say_stumbled
from .step import AccountStep

SURELY_UNMADE: Final = frozenset({0, 401, 402, 403})
"""Statuses of a refused create (0 = none) after which no batch is searched for."""
COMMIT_GRACE_S: Final = 10.0
"""How long a worker that shuts down waits for a create that is on its way."""


async def create(step: AccountStep, submission: Submission, source: Source) -> None:
    """Make the call that costs money: armed before, committed after, and not interrupted when the worker shuts down."""
    step.reach("submit.before_arm")
    try:
        await step.claim.arm(step.account.digest)
    except NotOnDisk as error:
        step.telemetry.warn("intent_not_on_disk", batch=step.batch)
        await _refused(step, error)
        return
    step.reach("submit.armed")
    paid = asyncio.ensure_future(_create_and_commit(step, submission, source))
    paid.add_done_callback(_heard)
    try:
        await asyncio.shield(paid)
    except asyncio.CancelledError:
        now = asyncio.get_running_loop().time
        until = now() + COMMIT_GRACE_S
        while not paid.done() and now() < until:
            # It is cancelled until it has ended.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({paid}, timeout=until - now())
        raise


def _heard(paid: asyncio.Future[None]) -> None:
    """Consume the exception of a create that nobody awaits any more, so that asyncio does not log it."""
    if not paid.cancelled():
        paid.exception()


async def _create_and_commit(step: AccountStep, submission: Submission, source: Source) -> None:
    try:
        await _created(step, submission, source)
    except PermanentError as error:
        unmade = error.status in SURELY_UNMADE
        if unmade or not await _made_all_the_same(step, submission.label, source.file_id, error.recorded):
            step.account.calls.saw(error)
            refused = CreateRefused(str(error), status=error.status, body=error.body)
            refused.recorded = error.recorded
            raise refused from None


async def _created(step: AccountStep, submission: Submission, source: Source) -> None:
    try:
        if source.lines is not None:
            source.lines.seek(0)
        provider_batch_id = await step.provider.create(step.account, submission, source)
    except MaybeDone as error:
        if error.refusal is not None and (step.batch.create_at is not None or step.batch.n_denied):
            # A search after an earlier create found nothing, so this refusal counts.
            raise error.refusal from None
        say_stumbled(step, error, SEARCH_FIRST_S)
        await step.claim.release(SEARCH_FIRST_S, error.recorded)
    except QuotaFull as error:
        own_host, label = step.account.own_host, submission.label
        if own_host or not await _made_all_the_same(step, label, source.file_id, error.recorded):
            await wait_for_room(step, error)
    except FileNotReady as error:
        await _await_file(step, submission.label, error)
    except Limited as error:
        await (_refused if step.account.own_host else _limited_on_the_way)(step, error)
    except TemporaryError as error:
        await _refused(step, error)
    else:
        step.reach("submit.created")
        await commit(step, provider_batch_id)


async def _await_file(step: AccountStep, label: str, error: FileNotReady) -> None:
    """Schedule the next create; upload the file again if the provider has not seen it for long."""
    if step.batch.n_stumbles >= patience.FILE_PATIENCE:
        raise PermanentError(error.recorded) from None
    if patience.file_is_dead(step.batch):
        with contextlib.suppress(TemporaryError):
            await input_file.upload_anew(step, label)
    await _refused(step, error)


async def _limited_on_the_way(step: AccountStep, error: TemporaryError) -> None:
    """Search before the next create: a gateway that sends creates again may have made the batch the first time."""
    patience_s = round(step.settings.reconcile_patience_s)
    reason = (
        f"{error.recorded}. The host is not {step.provider.facts.name}'s own and may have made the batch all the same: "
        f"it is searched for during {patience_s} s before it is created again"
    )
    delay_s = max(error.delay_s or 0.0, SEARCH_FIRST_S)
    step.telemetry.warn("step_stumbled", batch=step.batch, reason=reason, delay_s=round(delay_s, 2))
    await step.claim.release(delay_s, reason)


async def _made_all_the_same(step: AccountStep, label: str, file_id: str, refusal: str) -> bool:
    """Adopt the batch that a refused create has made: a gateway may fail after its provider has created it.

    This costs one search for the label; if it fails, or shows only a failed batch, the refusal counts.
    """
    if not step.provider.facts.searchable:
        return False
    criteria = step.criteria(label)
    if file_id:
        criteria = dataclasses.replace(criteria, input_file_ids=(file_id, *criteria.input_file_ids))
    made: Sequence[ProviderBatchId] = ()
    shown: Mapping[ProviderBatchId, Seen] = {}
    with contextlib.suppress(TemporaryError, PermanentError, CreateBegun):
        made = await step.provider.find(step.account, criteria)
        shown = await step.provider.look(step.account, made[:1]) if made else {}
    look = shown.get(made[0]) if made else None
    if isinstance(look, Running) or (isinstance(look, Ended) and look.outcome is not Outcome.FAILED):
        step.telemetry.log("batch_found_again", batch=step.batch, provider_batch_id=made[0], refusal=refusal)
        await commit(step, made[0])
        return True
    return False


async def _refused(step: AccountStep, error: TemporaryError) -> None:
    """Schedule the next create: the provider surely made no batch. End the batch if this was the last try."""
    if patience.submission_is_over(step.batch, step.now):
        await unsubmitted.end_in_vain(step, error.recorded)
        return
    delay_s = backoff.pause_s(step.batch.n_stumbles, error.delay_s)
    say_stumbled(step, error, delay_s)
    await step.claim.release(delay_s, error.recorded, create_refused=True)
