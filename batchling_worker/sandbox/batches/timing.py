"""The state of a batch at a given moment: pure functions that read no clock."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import msgspec

from ..world.faults import StickBatch
from .records import Batch, BatchView, CreateAsk, Status, Timeline

VALIDATING_SHARE = 0.1
FINALIZING_SHARE = 0.05


class End(NamedTuple):
    """When a batch ends, and its final status."""

    at: float
    status: Status


def timeline(created_at: float, seconds: float, stick: StickBatch | None) -> Timeline:
    """Return the times of each state for a batch that takes `seconds` if no fault holds it up."""
    forever = float("inf")
    held = {stick.state: forever if stick.seconds is None else stick.seconds} if stick else {}
    in_progress_at = created_at + seconds * VALIDATING_SHARE + held.get("validating", 0.0)
    work_s = seconds * (1 - VALIDATING_SHARE - FINALIZING_SHARE)
    finalizing_at = in_progress_at + work_s + held.get("in_progress", 0.0)
    ended_at = finalizing_at + seconds * FINALIZING_SHARE + held.get("finalizing", 0.0)
    return Timeline(
        in_progress_at=in_progress_at,
        finalizing_at=finalizing_at,
        ended_at=ended_at,
        worked_until=in_progress_at + work_s,
        most_done=stick.done if stick else 1.0,
    )


def end(batch: Batch, cancel_seconds: float) -> End:
    """Return how and when a batch with valid input will end."""
    ended_at = batch.timeline.ended_at
    if batch.cancelling_at is not None:
        stuck = batch.plan.cancel_stuck
        seconds = (
            cancel_seconds if stuck is None else float("inf") if stuck.seconds is None else stuck.seconds
        )
        return End(batch.cancelling_at + seconds, "cancelled")
    if batch.works_late:
        return End(ended_at, "completed")
    if ended_at > batch.expires_at:
        return End(batch.expires_at, "expired")
    return End(ended_at, "completed" if batch.plan.expire_done is None else "expired")


def done_share(batch: Batch, now: float) -> float:
    """Return the share of rows that are answered at `now`, from 0 to 1."""
    timeline = batch.timeline
    moment = now if batch.cancelling_at is None else min(now, batch.cancelling_at)
    if moment < timeline.in_progress_at:
        return 0.0
    span = timeline.worked_until - timeline.in_progress_at
    worked = 1.0 if span <= 0 else min(1.0, (moment - timeline.in_progress_at) / span)
    most = timeline.most_done if moment < timeline.finalizing_at else 1.0
    expire_done = None if batch.works_late else batch.plan.expire_done
    return min(worked, most, expire_done if expire_done is not None else 1.0)


def status(batch: Batch, now: float) -> Status:
    """Return the status that the provider shows at `now`."""
    if batch.outcome is not None:
        return batch.outcome.status
    if batch.cancelling_at is not None:
        return "cancelling"
    if batch.failures or now < batch.timeline.in_progress_at:
        return "validating"
    return "in_progress" if now < batch.timeline.finalizing_at else "finalizing"


def shown_ask(ask: CreateAsk, *, metadata: bool, input_file: bool) -> CreateAsk:
    """Return the fields of a create call that the provider shows."""
    return msgspec.structs.replace(
        ask,
        metadata=ask.metadata if metadata else None,
        input_file_id=ask.input_file_id if input_file else "",
    )


def shows_files(batch: Batch, now: float) -> bool:
    """Return whether the batch has ended and its result files are visible, which may be later."""
    outcome, late_s = batch.outcome, batch.plan.late_ids_s
    return outcome is not None and (not late_s or now >= outcome.ended_at + late_s)


def view(batch: Batch, now: float, n_total: int, n_failed: int) -> BatchView:
    """Return the batch as shown at `now`; the counts are of rows to run and of rows failed so far."""
    shown, outcome = status(batch, now), batch.outcome
    until = now if outcome is None else outcome.ended_at
    if batch.cancelling_at is not None:
        until = min(until, batch.cancelling_at)
    ran = shown != "failed"

    def passed(moment: float) -> int | None:
        return int(moment) if ran and moment <= until else None

    def ended(as_status: Status) -> int | None:
        return int(outcome.ended_at) if outcome is not None and outcome.status == as_status else None

    counts: dict[str, object] | None = {"total": 0, "completed": 0, "failed": 0}
    if outcome is not None:
        lie = batch.plan.told_counts
        truth = {"total": outcome.n_total, "completed": outcome.n_completed, "failed": outcome.n_failed}
        counts = lie.counts if lie is not None else {**truth}
    elif shown != "validating":
        n_done = int(n_total * done_share(batch, now))
        counts = {"total": n_total, "completed": max(0, n_done - n_failed), "failed": n_failed}
    early_output, early_errors = (ran and outcome is None and batch.early_ids) or (None, None)
    return BatchView(
        id=batch.id,
        ask=shown_ask(
            batch.ask, metadata=not batch.plan.no_metadata, input_file=not batch.plan.no_input_file_id
        ),
        model=batch.model,
        status=shown,
        created_at=int(batch.created_at),
        in_progress_at=passed(batch.timeline.in_progress_at),
        expires_at=int(batch.expires_at),
        finalizing_at=passed(batch.timeline.finalizing_at),
        completed_at=ended("completed"),
        failed_at=ended("failed"),
        expired_at=passed(batch.expires_at) if batch.works_late else ended("expired"),
        cancelling_at=None if batch.cancelling_at is None else int(batch.cancelling_at),
        cancelled_at=ended("cancelled"),
        counts=counts,
        n_undone=outcome.n_undone if outcome else 0,
        errors=outcome.errors if outcome else [],
        output_file_id=outcome.output_file_id if outcome and shows_files(batch, now) else early_output,
        error_file_id=outcome.error_file_id if outcome and shows_files(batch, now) else early_errors,
        input_tokens=outcome.input_tokens if outcome else 0,
        output_tokens=outcome.output_tokens if outcome else 0,
        word=_word(batch),
        bare_errors=batch.plan.bare_errors,
        dated=batch.plan.dated,
    )


def listed(batch: Batch, view: BatchView, now: float) -> BatchView:
    """Return the batch as lists show it."""
    plan = batch.plan
    if plan.bare_in_lists:
        view = replace(view, ask=shown_ask(view.ask, metadata=False, input_file=False))
    if now < plan.stale_until:
        view = _as_created(view)
    if plan.others_in_lists:
        output, errors = (
            f"{one[:-4]}0000" if isinstance(one, str) else one
            for one in (view.output_file_id, view.error_file_id)
        )
        return replace(view, output_file_id=output, error_file_id=errors, files="others")
    if plan.no_files_in_lists:
        return replace(view, output_file_id=None, error_file_id=None, files="none")
    return view


def _word(batch: Batch) -> str | None:
    said = batch.plan.word
    return said.word if said is not None and (said.when == "ended") == (batch.outcome is not None) else None


def _as_created(view: BatchView) -> BatchView:
    return replace(
        view,
        status="validating",
        in_progress_at=None,
        finalizing_at=None,
        completed_at=None,
        failed_at=None,
        expired_at=None,
        cancelling_at=None,
        cancelled_at=None,
        counts={"total": 0, "completed": 0, "failed": 0},
        n_undone=0,
        errors=[],
        output_file_id=None,
        error_file_id=None,
        input_tokens=0,
        output_tokens=0,
        word=None,
    )
