"""Why batches wait, in their providers' words: each reason is reported once, up to a limit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from ..wire.records.batch import Batch
from ..wire.records.row_and_result import LaneSpec
from ..wire.shown import shown
from ..wire.states import BatchState
from ..wording import counted

MOST_OF_A_RUN: Final = 20
LONGEST: Final = 300
_VARYING: Final = re.compile(r"\S*\d\S*")
"""Request ids, times and counts: a provider that names another one in each answer says the same all the same."""
_HELD: Final = re.compile(r"^held for \d+ s: ")
"""How an account waits after a failure: the failure itself was a reason to wait already."""

THAT_IS_ALL: Final = "More batches wait for other reasons: `batchling batches` shows them."


class WaitReasons:
    """The reasons that were reported for a run's batches."""

    def __init__(self) -> None:
        self._said: set[tuple[str, str]] = set()
        self._n_lines = 0

    def news(self, batches: Iterable[Batch]) -> list[str]:
        """Return a line per reason that is new for a model; after `MOST_OF_A_RUN` lines, a last line that says so."""
        room = MOST_OF_A_RUN - self._n_lines
        if room < 0:
            return []
        fresh = {cause: waiting for cause, waiting in _by_cause(batches).items() if cause not in self._said}
        self._said.update(fresh)
        lines = [_line(whose, waiting) for (whose, _), waiting in fresh.items()]
        self._n_lines += len(lines)
        return lines if len(lines) <= room else [*lines[:room], THAT_IS_ALL]


def reasons(batches: Iterable[Batch]) -> list[str]:
    """Return why batches wait now: a line per model and reason, with how much waits for it."""
    return [_line(whose, waiting) for (whose, _), waiting in _by_cause(batches).items()]


def causes(batches: Iterable[Batch]) -> list[str]:
    """Return why batches wait now: a line per cause, whichever models it holds up, with how much waits for it."""
    groups: dict[str, list[Batch]] = {}
    for (_, cause), waiting in _by_cause(batches).items():
        groups.setdefault(cause, []).extend(waiting)
    return [_line_of_cause(waiting) for waiting in groups.values()]


def of_lane(batches: Iterable[Batch], spec: LaneSpec) -> str:
    """Return why requests of a lane have no answer yet, in one sentence; '' where no batch of the lane has any."""
    waiting = [one for one in batches if one.spec == spec and not one.state.terminal and one.n_open > 0]
    if not waiting:
        return ""
    held = [one for one in waiting if one.error]
    batch = (held or waiting)[-1]
    if held:
        return f"Batch {batch.batch_id} waits: {_words(batch).rstrip('.')}."
    return f"Batch {batch.batch_id} {_stage(batch)}."


def _stage(batch: Batch) -> str:
    """Return how far a batch has come if nothing holds it up."""
    match batch.state:
        case BatchState.OPEN:
            return "was not submitted yet: it was open for more requests (batch_window_seconds)"
        case BatchState.SEALED:
            return "was not submitted yet: no worker had begun with it"
        case BatchState.SUBMITTING:
            return f"was being submitted to {batch.spec.provider}"
        case BatchState.SUBMITTED:
            since = f" since {batch.submitted_at:%Y-%m-%d %H:%M:%S} UTC" if batch.submitted_at else ""
            status = (
                f", which calls it {shown(batch.provider_status, LONGEST)}" if batch.provider_status else ""
            )
            return f"runs at {batch.spec.provider}{since}{status}"
        case _:
            return f"has ended at {batch.spec.provider}, and its results were being read"


def _by_cause(batches: Iterable[Batch]) -> dict[tuple[str, str], list[Batch]]:
    """Return the waiting batches by model and cause."""
    groups: dict[tuple[str, str], list[Batch]] = {}
    for batch in batches:
        if _waits_for_a_reason(batch):
            whose = f"{batch.spec.provider}/{batch.spec.model}"
            groups.setdefault((whose, _VARYING.sub("#", _HELD.sub("", batch.error))), []).append(batch)
    return groups


def _waits_for_a_reason(batch: Batch) -> bool:
    return bool(batch.error) and not batch.state.terminal and batch.n_open > 0


def _line_of_cause(batches: Sequence[Batch]) -> str:
    names = list(dict.fromkeys(batch.spec.model for batch in batches))
    models = shown(names[0]) if len(names) == 1 else f"{len(names)} models of {batches[0].spec.provider}"
    n_waiting = sum(batch.n_open for batch in batches)
    waits = "waits" if n_waiting == 1 else "wait"
    return f"{counted(n_waiting, 'request')} of {models} {waits}: {_words(batches[0])}"


def _line(whose: str, batches: Sequence[Batch]) -> str:
    words = _words(batches[0])
    n_waiting = sum(batch.n_open for batch in batches)
    where = f"batch {batches[0].batch_id}" if len(batches) == 1 else f"{len(batches)} batches"
    return f"{shown(whose)}: {words} ({counted(n_waiting, 'request')} in {where})"


def _words(batch: Batch) -> str:
    return shown(batch.error, LONGEST)
