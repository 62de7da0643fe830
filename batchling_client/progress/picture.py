"""What a display shows of a run, in words and numbers: the same for a terminal and for a notebook."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ..views.batch_view import Status, status_of
from ..wire.records.batch import Batch
from ..wire.shown import shown
from ..wire.states import BatchState
from ..wording import span
from . import batch_lines, wait_reasons

MOST_REASONS: Final = 3
MOST_MODELS: Final = 10
LONGEST_TITLE: Final = 24


class Counts(Protocol):
    """The counts of a run, as a display reads them."""

    @property
    def n_requests(self) -> int: ...
    @property
    def n_waiting(self) -> int: ...
    @property
    def n_answered(self) -> int: ...
    @property
    def n_failed(self) -> int: ...
    @property
    def n_realtime(self) -> int: ...
    @property
    def n_left(self) -> int: ...
    @property
    def n_reused(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a run."""

    title: str
    counts: Counts
    batches: Sequence[Batch]
    now: dt.datetime
    began_at: dt.datetime
    left: dt.timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The run as a whole; `n_reached` = the requests that their providers are through with, without an answer here."""

    title: str
    n_done: int
    n_all: int
    n_reached: int
    n_failed: int
    rate: str
    took: str
    left: str

    @property
    def percent(self) -> str:
        """Return how much is answered; 100 % only if everything is."""
        return f"{100 * self.n_done // self.n_all if self.n_all else 0} %"

    @property
    def done(self) -> str:
        return f"{self.n_done:,}/{self.n_all:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLine:
    """The batches of one model."""

    model: str
    doing: str
    status: Status
    """That of the unfinished batch that is least far."""
    n_done: int
    n_all: int
    n_failed: int
    age: str
    batch: str
    """The provider's id of a single batch, ours before there is one; else how many batches there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A whole look, ready to be laid out."""

    header: Header
    models: tuple[ModelLine, ...]
    reasons: tuple[str, ...]
    """Why requests wait now, one for each cause."""
    notes: tuple[str, ...]


def picture_of(look: Look) -> Picture:
    """Return what to show of a look."""
    by_model: dict[str, list[Batch]] = {}
    for batch in look.batches:
        by_model.setdefault(shown(f"{batch.spec.provider}/{batch.spec.model}"), []).append(batch)
    lines = [_model_line(model, batches, look.now) for model, batches in by_model.items()]
    if len(lines) > MOST_MODELS:
        # Lines keep their place otherwise, so that the eye finds them again.
        lines.sort(key=lambda line: line.status in _OVER)
    reasons = wait_reasons.causes(look.batches) if look.counts.n_waiting else []
    return Picture(
        header=_header(look),
        models=tuple(lines[:MOST_MODELS]),
        reasons=tuple(reasons[:MOST_REASONS]),
        notes=tuple(_notes(look, len(lines), len(reasons))),
    )


def text_of(picture: Picture) -> list[str]:
    """Return a picture as plain lines."""
    header = picture.header
    words = [header.title, header.done, header.percent, header.rate, header.took, header.left]
    words += [f"{header.n_failed:,} failed"] if header.n_failed else []
    lines = ["  ".join(word for word in words if word)]
    for model in picture.models:
        failed = [f"{model.n_failed:,} failed"] if model.n_failed else []
        cells = [
            model.model,
            model.doing,
            f"{model.n_done:,}/{model.n_all:,}",
            *failed,
            model.age,
            model.batch,
        ]
        lines.append("  ".join(cells))
    return [*lines, *picture.reasons, *picture.notes]


def doing_of(batch: Batch, now: dt.datetime) -> Status:
    """Return what a batch is doing; with all requests answered it is done, even before a worker settles it."""
    if batch.state is BatchState.ENDED and batch.n_open <= 0:
        return Status.DONE_WITH_FAILURES if batch.n_failed else Status.DONE
    return status_of(batch, now)


_OVER: Final = frozenset(
    {Status.DONE, Status.DONE_WITH_FAILURES, Status.MOVED_ON, Status.FAILED, Status.CANCELLED}
)
_ORDER: Final = tuple(status for status in Status if status not in _OVER) + tuple(
    status for status in Status if status in _OVER
)


_WORDS: Final = {Status.DONE_WITH_FAILURES: "done", Status.OVERDUE: "running, overdue"}
"""The failures of a model stand beside."""


def _header(look: Look) -> Header:
    counts = look.counts
    took = max(dt.timedelta(), look.now - look.began_at)
    n_new = max(0, counts.n_answered - counts.n_reused)
    n_reached = sum(
        max(0, batch_lines.rows_done(batch) - batch.n_succeeded - batch.n_failed) for batch in look.batches
    )
    return Header(
        title=shown(look.title, LONGEST_TITLE),
        n_done=counts.n_answered,
        n_all=counts.n_requests - counts.n_left,
        n_reached=min(n_reached, max(0, counts.n_waiting)),
        n_failed=counts.n_failed,
        rate=_rate(n_new, took.total_seconds()),
        took=batch_lines.clock(took),
        left=f"~{span(look.left)} left" if look.left is not None and counts.n_waiting else "",
    )


def _rate(n: int, seconds: float) -> str:
    """Return how many new answers came in a second, a minute or an hour, whichever gives a number above one."""
    if not n or seconds < 1:
        return ""
    for unit, name in ((1, "s"), (60, "min"), (3600, "h")):
        rate = n / seconds * unit
        if rate >= 1:
            return f"{rate:.1f}/{name}" if rate < 10 else f"{rate:,.0f}/{name}"
    return ""


def _model_line(model: str, batches: Sequence[Batch], now: dt.datetime) -> ModelLine:
    doing = Counter(doing_of(batch, now) for batch in batches)
    status = next(one for one in _ORDER if one in doing)
    words_of = {one: _WORDS.get(one, one.value) for one in doing}
    if len(batches) == 1:
        word = shown(batches[0].provider_status, batch_lines.LONGEST)
        is_running = status is Status.RUNNING and word and word != "in_progress"
        words = f"{words_of[status]} ({word})" if is_running else words_of[status]
        name = shown(batches[0].provider_batch_id or batches[0].batch_id)
    else:
        counted: Counter[str] = Counter()
        for one in _ORDER:
            if one in doing:
                counted[words_of[one]] += doing[one]
        words = ", ".join(f"{n:,} {word}" for word, n in counted.items())
        name = f"{len(batches):,} batches"
    unfinished = [batch for batch in batches if not batch.state.terminal]
    oldest = min(unfinished or batches, key=lambda batch: batch.created_at)
    return ModelLine(
        model=model,
        doing=words,
        status=status,
        n_done=sum(batch_lines.rows_done(batch) for batch in batches),
        n_all=sum(batch_lines.rows_all(batch) - batch.n_requeued for batch in batches),
        n_failed=sum(batch.n_failed for batch in batches),
        age=batch_lines.age_of(oldest, now),
        batch=name,
    )


def _notes(look: Look, n_models: int, n_reasons: int) -> Iterable[str]:
    counts = look.counts
    if n_models > MOST_MODELS:
        yield f"and {n_models - MOST_MODELS:,} more models"
    if n_reasons > MOST_REASONS:
        yield f"and {n_reasons - MOST_REASONS:,} more reasons to wait: `batchling batches` shows them"
    if counts.n_reused:
        yield f"from earlier runs  {counts.n_reused:,}"
    if counts.n_realtime:
        yield f"sent at full price  {counts.n_realtime:,}"
