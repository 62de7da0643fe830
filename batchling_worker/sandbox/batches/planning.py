"""Assigns the armed faults that match a new batch."""

from __future__ import annotations

from ..world import faults
from ..world.world import World
from .execute import RowPlan
from .records import BatchPlan
from .scan import LineError


def plan_batch(world: World, provider: str, model: str | None, now: float) -> BatchPlan:
    """Return the plan of a batch created at `now`, and use up the faults in it."""

    def take(kind: type[faults.F]) -> faults.F | None:
        return world.faults.take(kind, provider, model)

    hide, lose, lag = take(faults.HideBatch), take(faults.LoseBatch), take(faults.LagList)
    fail, expire = take(faults.FailBatch), take(faults.ExpireBatch)
    blank = take(faults.BlankFileIds)
    late, hide_output = take(faults.LateFileIds), take(faults.HideOutput)
    in_file, stale = take(faults.FailInErrorFile), take(faults.StaleList)
    return BatchPlan(
        rows=_plan_rows(world, provider, model, in_file),
        stick=take(faults.StickBatch),
        failures=_failures(fail) if fail else (),
        failed_at=now + fail.seconds if fail else 0.0,
        expire_done=expire.done if expire else None,
        hidden_until=now + hide.seconds if hide else 0.0,
        lost_from=now + lose.seconds if lose else float("inf"),
        listed_from=now + lag.seconds if lag else 0.0,
        blank_file_id=blank.value if blank else None,
        no_metadata=take(faults.DropMetadata) is not None,
        no_input_file_id=take(faults.HideInputFileId) is not None,
        bare_in_lists=take(faults.ListWithoutLabels) is not None,
        told_counts=take(faults.LieInCounts),
        empty_files=take(faults.EmptyFiles) is not None,
        late_ids_s=late.seconds if late else 0.0,
        hide_output_s=hide_output.seconds if hide_output else 0.0,
        forget_done_on_cancel=take(faults.ForgetDoneOnCancel) is not None,
        fails_in_file=in_file is not None,
        stale_until=_until(stale.seconds, now) if stale else 0.0,
        others_in_lists=take(faults.ListWithOtherIds) is not None,
        no_files_in_lists=take(faults.ListWithoutFileIds) is not None,
        bad_error_file=take(faults.RefuseErrorFile),
        word=take(faults.SayStatus),
        bare_errors=take(faults.BareErrors) is not None,
        dated=take(faults.DatedShape) is not None,
        cancel_stuck=take(faults.StickCancel),
    )


def _failures(fail: faults.FailBatch) -> tuple[LineError, ...]:
    lines = fail.lines or (fail.line,)
    return tuple(LineError(fail.code, fail.message, fail.param, line) for line in lines)


def _until(seconds: float | None, now: float) -> float:
    return float("inf") if seconds is None else now + seconds


def _plan_rows(
    world: World, provider: str, model: str | None, in_file: faults.FailInErrorFile | None
) -> RowPlan:
    def count(kind: type[faults.RowsFault]) -> int:
        fault = world.faults.take(kind, provider, model)
        return fault.n if fault else 0

    healing = world.faults.take(faults.HealRows, provider, model)
    return RowPlan(
        shuffle=world.shuffle and world.faults.take(faults.KeepOrder, provider, model) is None,
        n_lost=count(faults.LoseRows),
        n_repeated=count(faults.RepeatRows),
        n_stray=count(faults.StrayRows),
        n_broken=count(faults.BreakRows),
        n_zero=count(faults.ZeroRows),
        spoiled=world.faults.take(faults.SpoilRows, provider, model),
        junk=world.faults.take(faults.JunkRows, provider, model),
        vllm=world.faults.take(faults.VllmRows, provider, model),
        failing=in_file or healing or world.faults.take(faults.FailRows, provider, model),
        heals=healing is not None,
    )
