"""Mistral's batch jobs: files as OpenAI has them, and jobs in words of their own."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from batchling_client.wire.routes import route_of

from ..dialects import bounds, http_errors
from ..dialects.openai.batch_object import LABEL_NAME, BatchObject
from ..dialects.openai.dialect import BatchPage, Dialect, Query, bare_line
from ..dialects.openai.files import OpenAIFiles
from ..dialects.provider_call import ProviderCall
from ..provider import ProviderFacts, Submission

HOUR_S: Final = 3600
PAGE_ROWS: Final = 100

FACTS: Final = ProviderFacts(
    route=route_of("mistral"),
    looks_at_once=PAGE_ROWS,
    searchable=True,
    early_results=False,
    discount_percent=50,
    source="https://docs.mistral.ai/studio/batch-processing",
    checked_on=dt.date(2026, 11, 23),
    # The longest expiry is not documented: an upload whose expiry is refused is made again without one.
    file_expiry_s=(3_600, 2_592_000),
    verified=("docs", "capture", "SDK"),
)
WORDS: Final = {
    "QUEUED": "validating",
    "RUNNING": "in_progress",
    "SUCCESS": "completed",
    "FAILED": "failed",
    "TIMEOUT_EXCEEDED": "expired",
    "CANCELLATION_REQUESTED": "cancelling",
    "CANCELLED": "cancelled",
}


CLOCKS_APART: Final = dt.timedelta(days=1)
"""How far the server's clock may be off for its own filter to show a batch."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as Mistral shows it; every field may be absent or of an undocumented type."""

    id: object = None
    status: object = None
    input_files: object = None
    output_file: object = None
    error_file: object = None
    errors: object = None
    metadata: object = None
    created_at: object = None
    completed_at: object = None
    total_requests: object = None
    completed_requests: object = None
    succeeded_requests: object = None
    failed_requests: object = None

    @property
    def batch(self) -> BatchObject:
        """The job in OpenAI's words; an undocumented status is kept."""
        word = bounds.text(self.status)
        files = self.input_files if isinstance(self.input_files, list) else []
        return BatchObject(
            id=self.id,
            status=WORDS.get(word.upper(), word),
            input_file_id=files[0] if files else None,
            output_file_id=self.output_file,
            error_file_id=self.error_file,
            errors=self.errors,
            request_counts=self._counts(),
            metadata=self.metadata,
            created_at=self.created_at,
            completed_at=self.completed_at,
            expired_at=self.completed_at,
            cancelled_at=self.completed_at,
        )

    def _counts(self) -> Mapping[str, object]:
        return {
            "total": self.total_requests,
            "completed": self.succeeded_requests,
            "failed": self.failed_requests,
        }


class JobPage(msgspec.Struct, frozen=True):
    """A page of the list; `total` counts the jobs of all pages."""

    data: list[Job] | None = None
    total: object = None


class MistralDialect(Dialect):
    """Mistral's words: jobs with a model, hours and several files, and a list of numbered pages."""

    def made_since(self, moment: dt.datetime) -> Query:
        """Return the query that limits the list; nothing relies on it, as no server was seen to apply it."""
        return [("created_after", (moment - CLOCKS_APART).isoformat())]

    def line(self, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """Return one request as a line of the input file; the job names the endpoint."""
        return bare_line(custom_id, body)

    expiry_word: ClassVar[str] = "expiry"

    def expiry(self, expiry_s: int) -> Mapping[str, str]:
        """Return the field of an upload that asks for its deletion, in hours (`extra/batch/client.py` of its SDK)."""
        return {"expiry": str(expiry_s // HOUR_S)}

    def wish(self, submission: Submission, input_file_id: str) -> dict[str, object]:
        """Return the body of a create call."""
        return {
            "input_files": [input_file_id],
            "endpoint": submission.endpoint,
            "model": submission.model,
            "timeout_hours": int(submission.completion_window.removesuffix("h")),
            "metadata": {LABEL_NAME: submission.label},
        }

    async def made(self, call: ProviderCall, wish: dict[str, object]) -> BatchObject:
        """Send a create call; return the job in the answer."""
        return (await call.tell(Job, wish)).batch

    async def shown(self, call: ProviderCall) -> BatchObject:
        """Look at one job."""
        return (await call.ask(Job)).batch

    async def listed(self, call: ProviderCall, query: Query) -> BatchPage:
        """Return a page of the list with the number of the next page; a page before the last may be empty.

        Raises `TemporaryError` if the answer is not a page.
        """
        page = await call.ask_list(JobPage, query)
        if page.data is None and page.total is None:
            raise http_errors.of_unreadable(call.call_info)
        jobs, number = page.data or [], int(dict(query)["page"])
        n_so_far = number * PAGE_ROWS + len(jobs)
        # A total below the number of jobs shown is ignored; some servers count only the jobs of the page.
        told = isinstance(page.total, int) and page.total >= n_so_far
        more = len(jobs) >= PAGE_ROWS or (n_so_far < bounds.count(page.total) if told else bool(jobs))
        return BatchPage(data=[job.batch for job in jobs], paging=str(number + 1) if more else "")


def _page(cursor: str) -> Query:
    return [("page", cursor or "0"), ("page_size", str(PAGE_ROWS)), ("order_by", "-created")]


def _next_cursor(page: BatchPage) -> str:
    return bounds.cursor(page.paging)


PROVIDER: Final = OpenAIFiles(
    FACTS, MistralDialect(root="/v1", page=_page, next_cursor=_next_cursor, batches="/batch/jobs")
)
