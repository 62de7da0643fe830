"""The batch object of OpenAI-like providers: read leniently, told as a look."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from batchling_client.wire.states import Outcome

from ...decisions import status_words
from ...provider import Complaint, Ended, Ending, Other, Running
from .. import bounds

MOST_COMPLAINTS: Final = 1000
LABEL_NAME: Final = "batchling"
"""The name in a batch's metadata under which its label stands."""

LATE_FILES_S: Final = 15.0
"""For so long after its end a batch may yet show the files that its counts promise.

To settle it without them would make rows look lost that were answered and paid for."""
CLOCKS_APART_S: Final = 60.0


class BatchObject(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as its provider shows it; every field may be absent or of a type that nobody documented."""

    id: object = None
    status: object = None
    state: object = None
    input_file_id: object = None
    output_file_id: object = None
    error_file_id: object = None
    errors: object = None
    request_counts: object = None
    metadata: object = None
    created_at: object = None
    completed_at: object = None
    failed_at: object = None
    expired_at: object = None
    cancelled_at: object = None

    @property
    def known_id(self) -> str:
        """The provider's id, or ''."""
        return bounds.identifier(self.id)

    @property
    def word(self) -> str:
        """The provider's word for the status, in lower case, or ''."""
        return self._said.lower()

    @property
    def _said(self) -> str:
        return bounds.text(self.status) or bounds.text(self.state)

    @property
    def named(self) -> Other:
        """What tells it from other batches."""
        return Other(
            provider_batch_id=self.known_id,
            label=bounds.text(self._metadata.get(LABEL_NAME)),
            input_file_id=file_id(self.input_file_id),
        )

    @property
    def _metadata(self) -> Mapping[str, object]:
        return self.metadata if isinstance(self.metadata, dict) else {}

    @property
    def made_at(self) -> dt.datetime | None:
        """When it was created; None if it does not say."""
        return bounds.when(self.created_at)

    def look(self, now: dt.datetime) -> Running | Ended:
        """Return the state of the batch. An unknown status counts as an end if the rest of the object shows an end."""
        counts = self.request_counts if isinstance(self.request_counts, dict) else {}
        n_total, n_completed, n_failed = (
            bounds.count(counts.get(name)) for name in ("total", "completed", "failed")
        )
        outcome = status_words.outcome_of(self._said)
        if outcome is None and not status_words.is_running(self._said):
            outcome = self._end_shown(n_completed + n_failed, n_total, now)
        output, errors = file_id(self.output_file_id), file_id(self.error_file_id)
        just_now = outcome is not None and self._ended_just_now(outcome, now)
        awaited = (n_completed > 0 and not output) or (n_failed > 0 and not errors)
        # A completed batch without counts has at least one file.
        awaited = awaited or not (counts or output or errors)
        is_empty = not (n_completed or n_failed or output or errors)
        if outcome is Outcome.COMPLETED and is_empty and self._has_failed(now):
            outcome, awaited = Outcome.FAILED, True
        if outcome is None or (awaited and just_now):
            return Running(status=self.word or "unknown", n_done=n_completed + n_failed, n_total=n_total)
        return Ended(
            status=self.word,
            outcome=outcome,
            ending=Ending(
                results=tuple(one for one in (output, errors) if one),
                complaints=tuple(_complaints(self.errors)),
                n_succeeded=n_completed if _tells_successes(outcome, counts) else None,
            ),
            n_done=n_completed + n_failed,
            n_total=n_total,
        )

    def _end_shown(self, n_done: int, n_total: int, now: dt.datetime) -> Outcome | None:
        """Return how a batch of unknown status ended, from its end time or its counts and files; None if it runs."""
        latest = now.timestamp() + CLOCKS_APART_S
        for outcome, said in (
            (Outcome.FAILED, self.failed_at),
            (Outcome.EXPIRED, self.expired_at),
            (Outcome.CANCELLED, self.cancelled_at),
            (Outcome.COMPLETED, self.completed_at),
        ):
            at = bounds.moment(said)
            if at is not None and at <= latest:
                return outcome
        has_files = bool(file_id(self.output_file_id) or file_id(self.error_file_id))
        return Outcome.COMPLETED if has_files and 0 < n_total <= n_done else None

    def _has_failed(self, now: dt.datetime) -> bool:
        """Return whether a completed batch without rows and files shows a failure instead.

        A completion time does not prove success: some providers have one field for the time of any end.
        """
        failed_at = bounds.moment(self.failed_at)
        if failed_at is not None and bounds.moment(self.completed_at) is None:
            return failed_at <= now.timestamp() + CLOCKS_APART_S
        return any(_complaints(self.errors))

    def _ended_just_now(self, outcome: Outcome, now: dt.datetime) -> bool:
        told = {
            Outcome.COMPLETED: self.completed_at,
            Outcome.EXPIRED: self.expired_at,
            Outcome.CANCELLED: self.cancelled_at,
        }.get(outcome)
        ended_at = bounds.moment(told)
        if ended_at is None:
            return False
        return -CLOCKS_APART_S <= now.timestamp() - ended_at < LATE_FILES_S


def file_id(said: object) -> str:
    """Return a file id, or '': for no file, providers say null, an empty string or (Groq) an empty object.

    Gateways show a file as the object that their Files API has for it, or as a list of one.
    """
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    if isinstance(said, dict):
        said = said.get("id", said.get("file_id"))
    return bounds.identifier(said).strip()


def _tells_successes(outcome: Outcome, counts: Mapping[str, object]) -> bool:
    """Return whether counts show how many requests were answered; counts that lag behind the end do not."""
    n_total, n_completed, n_failed = (
        bounds.count(counts.get(name)) for name in ("total", "completed", "failed")
    )
    if not bounds.is_count(counts.get("completed")) or not (n_total or n_completed or n_failed):
        return False
    return bool(n_completed) or outcome is not Outcome.COMPLETED or n_failed >= n_total


def _complaints(errors: object) -> Iterator[Complaint]:
    """Yield the errors: OpenAI wraps them in a list object, Groq documents a bare array, others send one sentence."""
    listed = errors.get("data", [errors]) if isinstance(errors, dict) else errors
    if isinstance(listed, str):
        listed = [{"message": listed}] if listed else []
    if not isinstance(listed, list):
        return
    for entry in listed[:MOST_COMPLAINTS]:
        if isinstance(entry, str):
            yield Complaint(code="", message=entry)
        elif isinstance(entry, dict) and (entry.get("code") or entry.get("message")):
            param = entry.get("param")
            yield Complaint(
                code=_code(entry.get("code")),
                message=bounds.text(entry.get("message")),
                line=bounds.line(entry.get("line")),
                param=param if isinstance(param, str) else None,
            )


def _code(said: object) -> str:
    """Return an error's code, which some servers send as a number."""
    return str(bounds.count(said)) if bounds.count(said) and not isinstance(said, str) else bounds.text(said)
