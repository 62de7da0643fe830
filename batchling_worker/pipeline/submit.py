"""Submit: a sealed batch is uploaded and created at the provider, once, whatever dies in between."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import BinaryIO, Final

import msgspec

from batchling_client.wire.keys import CustomId, ProviderBatchId
from batchling_client.wire.records.row_and_result import CorruptRecord, Result, Row
from batchling_client.wire.scripts import RowOut
from batchling_client.wire.states import BatchState, Outcome, RowKind, Verdict

from .. import account_store, backoff
from ..decisions import lifecycle, quota
from ..errors import (
    CreateBegun,
    CreateRefused,
    FileNotReady,
    MaybeDone,
    NotOnDisk,
    NotYet,
    PermanentError,
    QuotaFull,
    StaleClaim,
    TemporaryError,
    Waiting,
)
from ..provider import Ended, Ending, ProviderFacts, Running, Seen, Source, Submission, error_body
from . import owners
from .step import Step

SEARCH_FIRST_S: Final = 1.0
MOST_SHOWN: Final = 100
SURELY_UNMADE: Final = frozenset({0, 401, 402, 403})
"""Statuses of a refused create (0 = none) after which no batch is searched for."""
COMMIT_GRACE_S: Final = 10.0
"""How long a worker that shuts down waits for a create that is on its way."""


class _Model(msgspec.Struct):
    model: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Readied:
    """The input of a batch, and how many lines it has."""

    source: Source
    n_lines: int


_model_of = msgspec.json.Decoder(_Model)


async def submit(step: Step) -> None:
    """Move a batch from `sealed` or `submitting` to `submitted`, or to `ended` if there is nothing to send.

    Each call that may cost money is recorded before it is sent, so that a later worker searches before it pays.
    """
    batch = step.batch
    forgotten = batch.create_at is None and lifecycle.may_be_forgotten(batch)
    if batch.cancel_requested and not forgotten and batch.create_at is None and batch.doubted_at is None:
        await _end(step, Outcome.CANCELLED, Ending(certain=True))
        return
    if batch.state is BatchState.SEALED and not forgotten and not await _admitted(step):
        return
    label = await step.claim.intend(lifecycle.label_of(step.settings.namespace, batch.batch_id))
    step.reach("submit.intended")
    # A Redis that was killed may have forgotten that a create was armed: an earlier worker may have sent it.
    sent_before = forgotten or batch.create_at is not None or batch.state is BatchState.SUBMITTING
    if sent_before and await _found(step, label):
        return
    if forgotten:
        await _wait_for_the_forgotten(step)
        return
    if batch.cancel_requested:
        await _end(step, Outcome.CANCELLED, Ending())
        return
    if sent_before and lifecycle.submission_is_over(batch, step.now):
        await _end_unsubmitted(step, batch.error)
        return
    if sent_before and not await _admitted(step):
        return
    async with _source(step, label) as readied:
        if readied.n_lines == 0:
            await _end(step, Outcome.COMPLETED, Ending())
            return
        facts = step.provider.facts
        if readied.n_lines < facts.min_rows:
            ending = lifecycle.too_few_rows(facts.name, readied.n_lines, facts.min_rows)
            await _end(step, Outcome.FAILED, ending)
            return
        await _create(step, step.submission(label, readied.n_lines), readied.source)


async def _admitted(step: Step) -> bool:
    """Return whether the batch was admitted to the quota of enqueued tokens; raises `Waiting` while there is no room.

    A batch that is larger than the limit ends here, before it is sent: its requests continue in smaller batches.
    """
    batch, account = step.batch, step.way()
    look_s = lifecycle.held_look_s(batch, step.settings.poll_interval_s, step.now)
    admission = await step.store.accounts.admit(batch, step.claim.token, account.digest, look_s)
    match admission.verdict:
        case Verdict.OK:
            return True
        case Verdict.LARGE:
            tokens = quota.tokens_of(batch)
            why = f"split: about {tokens:,} tokens are over the limit of {admission.limit:,} enqueued tokens"
            step.telemetry.log("batch_split", batch_id=batch.batch_id, tokens=tokens, limit=admission.limit)
            await step.claim.ended(Outcome.SPLIT, Ending(certain=step.surely_unmade), why)
            return False
        case Verdict.HELD:
            held_s = max(0.0, admission.held_until_ms / 1000 - step.now.timestamp())
            raise Waiting(account_store.words_of_wait(admission, held_s), delay_s=max(held_s, look_s))
        case _:
            raise StaleClaim(batch.batch_id)


async def _over_quota(step: Step, error: QuotaFull) -> None:
    """Learn the limit from a create that was refused for the quota, and let the sealed batch wait."""
    refusal = quota.refusal_in(str(error)) or quota.Refusal(why=str(error), limit=None)
    batch = step.batch
    if not batch.quota_id:
        batch = dataclasses.replace(batch, quota_id=quota.quota_id(step.way().digest, batch.spec.model))
    quota_verdict = await step.store.accounts.teach(batch, refusal)
    step.telemetry.log(
        "quota_refused", batch_id=batch.batch_id, alone=quota_verdict.alone, reason=refusal.why
    )
    if quota_verdict.hopeless:
        body = error_body("token_limit_exceeded", refusal.why)
        raise PermanentError(refusal.why, status=429, body=body)
    if lifecycle.submission_is_over(batch, step.now):
        await _end_unsubmitted(step, refusal.why)
        return
    look_s = lifecycle.held_look_s(batch, step.settings.poll_interval_s, step.now)
    await step.claim.hold(look_s, f"held: {refusal.why}", unmade=True)


async def _found(step: Step, label: str) -> bool:
    """Adopt the batch of an earlier create whose answer was lost; wait while it may still appear."""
    batch = step.batch
    try:
        made = await step.provider.find(step.way(), step.criteria(label))
    except CreateBegun as begun:
        await _go_on_in(step, begun.file_id)
        raise NotYet(str(begun), delay_s=SEARCH_FIRST_S) from None
    step.reach("submit.searched")
    if made:
        step.telemetry.log("batch_found_again", batch_id=batch.batch_id, provider_batch_id=made[0])
        for surplus in made[1:]:
            await _cancel_surplus(step, surplus)
        await _commit(step, made[0])
        return True
    if step.estranged:
        if batch.cancel_requested:
            return False
        raise step.estrangement()
    if step.provider.facts.repeatable and batch.input_file_id:
        return False
    if not lifecycle.may_create_again(batch, step.settings.reconcile_patience_s, step.now):
        raise NotYet("a create's answer was lost; searching for its batch", delay_s=SEARCH_FIRST_S)
    return False


async def _go_on_in(step: Step, file_id: str) -> None:
    """Store where a create was begun that a killed Redis had forgotten."""
    account = step.way().digest
    await step.claim.uploaded(file_id, step.batch.n_lines, account)
    await step.claim.arm(account)


async def _wait_for_the_forgotten(step: Step) -> None:
    """Wait for a create of an earlier run of Redis, which may still be on its way or not be listed yet."""
    delay_s = lifecycle.forgotten_patience_s(step.settings.reconcile_patience_s)
    step.telemetry.warn("redis_forgetful", batch_id=step.batch.batch_id, delay_s=delay_s)
    await step.claim.doubt()
    await step.claim.release(delay_s)


@contextlib.asynccontextmanager
async def _source(step: Step, label: str) -> AsyncIterator[_Readied]:
    """Open the input of the batch: the file that is stored at its provider, or its lines, written and uploaded."""
    batch = step.batch
    stored = bool(batch.input_file_id) and batch.account in ("", step.way().digest)
    if stored and not step.provider.facts.inline:
        yield _Readied(source=Source(file_id=batch.input_file_id), n_lines=batch.n_lines)
        return
    with _spool() as file:
        n_lines = await _write_lines(step, file)
        if n_lines < step.provider.facts.min_rows:
            yield _Readied(source=Source(file_id=""), n_lines=n_lines)
            return
        step.reach("submit.written")
        file_id = batch.input_file_id if stored else await _upload(step, label, file, n_lines)
        lines = file if step.provider.facts.inline else None
        yield _Readied(source=Source(file_id=file_id, lines=lines), n_lines=n_lines)


async def _upload(step: Step, label: str, file: BinaryIO, n_lines: int) -> str:
    file.seek(0)
    input_file_id = await step.provider.upload(step.way(), step.submission(label, n_lines), file)
    step.reach("submit.uploaded")
    await step.claim.uploaded(input_file_id, n_lines, step.way().digest)
    step.reach("submit.file_stored")
    return input_file_id


async def _upload_anew(step: Step, label: str) -> None:
    with _spool() as file:
        n_lines = await _write_lines(step, file)
        if n_lines:
            await _upload(step, label, file, n_lines)


async def _write_lines(step: Step, file: BinaryIO) -> int:
    """Write the batch's live requests as the provider's lines, a chunk at a time; return how many."""
    n_lines = 0
    async for rows in step.store.unanswered(step.batch.batch_id):
        unfit: list[RowOut] = []
        fit: list[bytes] = []
        for row in rows:
            line = _line_or_refusal(step, row)
            if isinstance(line, RowOut):
                unfit.append(line)
            else:
                fit.append(line)
        with _disk():
            file.writelines(fit)
            file.flush()
        n_lines += len(fit)
        if unfit:
            await step.claim.deliver(unfit)
    return n_lines


@contextlib.contextmanager
def _spool() -> Iterator[BinaryIO]:
    with _disk():
        file = tempfile.TemporaryFile(prefix="batchling-")  # noqa: SIM115 - closed below, whatever the disk says
    try:
        yield file
    finally:
        # Closing flushes once more, which fails on a full disk; nobody needs what was not flushed.
        with contextlib.suppress(OSError):
            file.close()


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Raise `TemporaryError` for a full disk of the worker: an `OSError` would be taken for an unreachable Redis."""
    try:
        yield
    except OSError as error:
        raise TemporaryError(f"the worker cannot write the input file: {error.strerror}") from None


def _one_line(body: bytes) -> bytes:
    """Return the body; raises `CorruptRecord` if it has line breaks, which would add lines to the provider's file."""
    if b"\n" in body or b"\r" in body:
        raise CorruptRecord("a stored body has line breaks")
    return body


def _line_or_refusal(step: Step, row: Row) -> bytes | RowOut:
    spec = step.batch.spec
    try:
        body = _one_line(row.body)
        if not _belongs(body, spec.model, step.provider.facts):
            reason = f"This request's body names another model than its lane, {spec.model}"
            return _unfit(row, "batch_model_mismatch", reason, "model")
        return step.provider.line(custom_id=CustomId(row.request_id), endpoint=spec.endpoint, body=body)
    except CorruptRecord:
        return _unfit(row, "batch_row_corrupt", "The stored body of this request is damaged", None)
    except Exception as error:  # noqa: BLE001 - a defect of ours with one row must not hold up the others for ever
        name = type(error).__name__
        step.telemetry.warn("row_failed", batch_id=step.batch.batch_id, step="submit", error=name)
        return _unfit(row, "batch_row_failed", f"batchling itself failed on this request ({name})", None)


def _belongs(body: bytes, model: str, facts: ProviderFacts) -> bool:
    try:
        named = _model_of.decode(body).model
    except (msgspec.DecodeError, msgspec.ValidationError):
        return False
    return named == model or (named is None and facts.model_in_path)


def _unfit(row: Row, code: str, reason: str, param: str | None) -> RowOut:
    body = error_body(code, f"{reason}: it was not sent.", param)
    packed = Result.pack(kind=RowKind.FAILURE, status=400, headers={}, body=body, origin=code)
    return RowOut(request_id=row.request_id, kind=RowKind.FAILURE, packed=packed)


async def _create(step: Step, submission: Submission, source: Source) -> None:
    """Make the call that costs money: armed before, committed after, and not interrupted when the worker shuts down."""
    step.reach("submit.before_arm")
    try:
        await step.claim.arm(step.way().digest)
    except NotOnDisk as error:
        step.telemetry.warn("intent_not_on_disk", batch_id=step.batch.batch_id)
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


async def _create_and_commit(step: Step, submission: Submission, source: Source) -> None:
    try:
        await _created(step, submission, source)
    except PermanentError as error:
        if not await _made_all_the_same(step, submission.label, source.file_id, error):
            raise CreateRefused(str(error), status=error.status, body=error.body) from None


async def _made_all_the_same(step: Step, label: str, file_id: str, error: PermanentError) -> bool:
    """Adopt the batch that a refused create has made: a gateway may fail after its provider has created it.

    This costs one search for the label; if it fails, or shows only a failed batch, the refusal counts.
    """
    if error.status in SURELY_UNMADE or not step.provider.facts.searchable:
        return False
    criteria = step.criteria(label)
    if file_id:
        criteria = dataclasses.replace(criteria, input_file_ids=(file_id, *criteria.input_file_ids))
    made: Sequence[ProviderBatchId] = ()
    looks: Mapping[ProviderBatchId, Seen] = {}
    with contextlib.suppress(TemporaryError, PermanentError, CreateBegun):
        made = await step.provider.find(step.way(), criteria)
        looks = await step.provider.look(step.way(), made[:1]) if made else {}
    look = looks.get(made[0]) if made else None
    if isinstance(look, Running) or (isinstance(look, Ended) and look.outcome is not Outcome.FAILED):
        step.telemetry.log(
            "batch_found_again", batch_id=step.batch.batch_id, provider_batch_id=made[0], refusal=str(error)
        )
        await _commit(step, made[0])
        return True
    step.way().calls.saw(error)
    return False


async def _created(step: Step, submission: Submission, source: Source) -> None:
    try:
        if source.lines is not None:
            source.lines.seek(0)
        provider_batch_id = await step.provider.create(step.way(), submission, source)
    except MaybeDone as error:
        if error.refusal is not None and (step.batch.create_at is not None or step.batch.n_denied):
            # A search after an earlier create found nothing, so this refusal counts.
            raise error.refusal from None
        _say_stumbled(step, error, SEARCH_FIRST_S)
        await step.claim.release(SEARCH_FIRST_S, str(error))
    except QuotaFull as error:
        await _over_quota(step, error)
    except FileNotReady as error:
        if step.batch.n_stumbles >= lifecycle.FILE_PATIENCE:
            raise PermanentError(str(error)) from None
        if lifecycle.file_is_dead(step.batch):
            with contextlib.suppress(TemporaryError):
                await _upload_anew(step, submission.label)
        await _refused(step, error)
    except TemporaryError as error:
        await _refused(step, error)
    else:
        step.reach("submit.created")
        await _commit(step, provider_batch_id)


async def _refused(step: Step, error: TemporaryError) -> None:
    """Schedule the next create: the provider surely made no batch. End the batch if this was the last try."""
    if lifecycle.submission_is_over(step.batch, step.now):
        await _end_unsubmitted(step, str(error))
        return
    delay_s = backoff.pause_s(step.batch.n_stumbles, error.delay_s)
    _say_stumbled(step, error, delay_s)
    await step.claim.release(delay_s, str(error), create_refused=True)


def _say_stumbled(step: Step, error: TemporaryError, delay_s: float) -> None:
    step.telemetry.warn(
        "step_stumbled", batch_id=step.batch.batch_id, reason=str(error), delay_s=round(delay_s, 2)
    )


async def _commit(step: Step, provider_batch_id: ProviderBatchId) -> None:
    owner = await owners.other_owner(step.store, step.batch.batch_id, provider_batch_id, step.way().digest)
    if owner:
        await _bound_elsewhere(step, provider_batch_id, owner)
        return
    first_look_s = lifecycle.first_look_s(step.batch, step.settings.poll_interval_s)
    other = await step.claim.submitted(provider_batch_id, first_look_s, step.way().digest)
    if other:
        await _cancel_surplus(step, provider_batch_id)
        return
    step.reach("submit.committed")
    step.telemetry.submitted(step.batch, provider_batch_id)


async def _bound_elsewhere(step: Step, provider_batch_id: ProviderBatchId, owner: str) -> None:
    """Conclude nothing from an answer that shows another batch: this batch may have been created, so search for it."""
    reason = (
        f"{step.provider.facts.name} answered with {provider_batch_id[:MOST_SHOWN]}, which is batch {owner} of this "
        "deployment: a cache on the way may have sent that answer, so this batch is searched for"
    )
    step.telemetry.warn("step_stumbled", batch_id=step.batch.batch_id, reason=reason, delay_s=SEARCH_FIRST_S)
    await step.claim.release(SEARCH_FIRST_S, reason)


async def _cancel_surplus(step: Step, provider_batch_id: ProviderBatchId) -> None:
    """Cancel a second batch of the same rows, which a create made that arrived twice: it would be paid for as well."""
    step.telemetry.warn(
        "surplus_batch_cancelled", batch_id=step.batch.batch_id, provider_batch_id=provider_batch_id
    )
    with contextlib.suppress(PermanentError):
        await step.provider.cancel(step.way(), provider_batch_id)


async def _end_unsubmitted(step: Step, reason: str) -> None:
    """Answer the callers of a batch that the provider surely does not have and that was tried for long enough."""
    complaint = lifecycle.unsubmitted(step.batch, reason)
    step.telemetry.warn("batch_unsubmitted", batch_id=step.batch.batch_id, reason=reason)
    await _end(step, Outcome.FAILED, Ending(complaints=(complaint,)))


async def _end(step: Step, outcome: Outcome, ending: Ending) -> None:
    error = lifecycle.error_sentence(ending, outcome) if outcome is Outcome.FAILED else ""
    await step.claim.ended(outcome, ending, error)
