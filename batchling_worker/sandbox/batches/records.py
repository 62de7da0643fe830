"""The records a provider keeps: files, batches and their outcomes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from ..world.faults import LieInCounts, RefuseErrorFile, SayStatus, StickBatch, StickCancel
from .execute import Executed, Job, RowPlan
from .scan import LineError, Scan

Status = Literal[
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"
]


_CHUNK = 1 << 18

ShownFiles = Literal["own", "others", "none"]


@dataclass(slots=True, kw_only=True)
class StoredFile:
    """A file on disk; `owner` is the fingerprint of the credential that may see it."""

    id: str
    owner: str
    path: Path
    filename: str
    purpose: str
    n_bytes: int
    created_at: float
    expires_at: float | None
    model: str | None = None
    hidden_until: float = 0.0
    processed_at: float = 0.0
    _n_lines: int | None = None
    lasting: bool = False
    """Whether it was uploaded without an expiry."""
    refusing: RefuseErrorFile | None = None

    @property
    def n_lines(self) -> int:
        """Return the number of lines, counted on first use."""
        if self._n_lines is None:
            with self.path.open("rb") as lines:
                pieces = iter(lambda: lines.read(_CHUNK), b"")
                self._n_lines = sum(piece.count(b"\n") for piece in pieces) + _cut_off(self.path)
        return self._n_lines


def _cut_off(path: Path) -> bool:
    """Return whether the last line has no newline."""
    with path.open("rb") as file:
        return bool(path.stat().st_size) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"


class CreateAsk(msgspec.Struct, frozen=True):
    """The body of a create call."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, object] | None = None
    output_expires_after: dict[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When a batch leaves each state, in unix seconds, if nobody cancels it; infinite = never."""

    in_progress_at: float
    finalizing_at: float
    ended_at: float
    worked_until: float
    most_done: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """The faults assigned to a batch when it was created."""

    rows: RowPlan = field(default_factory=RowPlan)
    stick: StickBatch | None = None
    failures: tuple[LineError, ...] = ()
    failed_at: float = 0.0
    expire_done: float | None = None
    hidden_until: float = 0.0
    lost_from: float = float("inf")
    listed_from: float = 0.0
    blank_file_id: str | dict[str, str] | None = None
    no_metadata: bool = False
    no_input_file_id: bool = False
    bare_in_lists: bool = False
    told_counts: LieInCounts | None = None
    empty_files: bool = False
    late_ids_s: float = 0.0
    hide_output_s: float = 0.0
    forget_done_on_cancel: bool = False
    fails_in_file: bool = False
    stale_until: float = 0.0
    others_in_lists: bool = False
    no_files_in_lists: bool = False
    bad_error_file: RefuseErrorFile | None = None
    word: SayStatus | None = None
    bare_errors: bool = False
    dated: bool = False
    cancel_stuck: StickCancel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a batch ended."""

    status: Status
    ended_at: float
    errors: list[LineError] = field(default_factory=list)
    n_total: int = 0
    n_completed: int = 0
    n_failed: int = 0
    n_undone: int = 0
    """How many of the failed rows never ran."""
    input_tokens: int = 0
    output_tokens: int = 0
    output_file_id: str | dict[str, str] | None = None
    error_file_id: str | dict[str, str] | None = None


@dataclass(slots=True, kw_only=True)
class Batch:
    """A batch; its work begins at its creation, and `lock` lets one call at a time move it on."""

    id: str
    owner: str
    ask: CreateAsk
    model: str | None
    created_at: float
    expires_at: float
    timeline: Timeline
    plan: BatchPlan
    failures: tuple[LineError, ...]
    checked: asyncio.Task[Scan] | None = None
    executed: asyncio.Task[Executed | None] | None = None
    job: Job | None = None
    input_path: Path | None = None
    enqueued_tokens: int = 0
    works_late: bool = False
    early_ids: tuple[str, str] | None = None
    """Ids of the output and the error file, if they can be read while the batch runs."""
    cancelling_at: float | None = None
    outcome: Outcome | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The part of a result file that is written by now."""

    path: Path
    n_bytes: int
    model: str | None
    complete: bool
    refusing: RefuseErrorFile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """A batch as its provider shows it at one moment; times are whole unix seconds."""

    id: str
    ask: CreateAsk
    model: str | None
    status: Status
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    counts: Mapping[str, object] | None
    n_undone: int
    errors: list[LineError]
    output_file_id: str | dict[str, str] | None
    error_file_id: str | dict[str, str] | None
    input_tokens: int
    output_tokens: int
    word: str | None = None
    """The word shown in place of the status."""
    bare_errors: bool = False
    """Whether its errors are a bare list."""
    dated: bool = False
    """Whether it is shown as older versions of its API show batches."""
    files: ShownFiles = "own"
    """Which result files it names: its own, or, in lists that lie, another's or none."""
