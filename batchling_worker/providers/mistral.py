"""Mistral's batch jobs: files as OpenAI has them, and jobs in words of their own."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from ..dialects import bounds, http_errors
from ..dialects.openai.batch_object import LABEL_NAME, BatchObject
from ..dialects.openai.dialect import BatchPage, Dialect, Query, bare_line
from ..dialects.openai.files import OpenAIFiles
from ..dialects.provider_call import ProviderCall
from ..provider import ProviderFacts, Submission

LONGEST_HOURS: Final = 168
HOUR_S: Final = 3600
PAGE_ROWS: Final = 100

FACTS: Final = ProviderFacts(
    name="mistral",
    base_url="https://api.mistral.ai",
    # Its documents contradict each other: a page says 1 M requests, another this. The smaller figure is safe.
    max_rows=100_000,
    max_bytes=512_000_000,
    windows=tuple(f"{hours}h" for hours in range(1, LONGEST_HOURS + 1)),
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
    """A job as Mistral shows it; every field may be absent or of a type that nobody documented."""

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
        """The job in OpenAI's words; a status that nobody documented is kept."""
        word = self.status if isinstance(self.status, str) else ""
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
        """What narrows the list down; whether the server keeps to it nobody has seen, so nothing relies on it."""
        return [("created_after", (moment - CLOCKS_APART).isoformat())]

    def line(self, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """One request as a line of the input file; the endpoint is the job's."""
        return bare_line(custom_id, body)

    expiry_word: ClassVar[str] = "expiry"

    def expiry(self, expiry_s: int) -> Mapping[str, str]:
        """Return the field of an upload that asks for its deletion, in hours (`extra/batch/client.py` of its SDK)."""
        return {"expiry": str(expiry_s // HOUR_S)}

    def wish(self, submission: Submission, input_file_id: str) -> dict[str, object]:
        """The body of a create call."""
        return {
            "input_files": [input_file_id],
            "endpoint": submission.endpoint,
            "model": submission.model,
            "timeout_hours": int(submission.completion_window.removesuffix("h")),
            "metadata": {LABEL_NAME: submission.label},
        }

    async def made(self, call: ProviderCall, wish: dict[str, object]) -> BatchObject:
        """Sends a create call; the job that it answers with."""
        return (await call.tell(Job, wish)).batch

    async def shown(self, call: ProviderCall) -> BatchObject:
        """Looks at one job."""
        return (await call.ask(Job)).batch

    async def listed(self, call: ProviderCall, query: Query) -> BatchPage:
        """Look at a page of the list, and add the number of the next page; a page may be empty before the last.

        Raises `TemporaryError` where the answer is no page.
        """
        page = await call.ask(JobPage, query)
        if page.data is None and page.total is None:
            raise http_errors.of_unreadable(call.call_info)
        jobs, number = page.data or [], int(dict(query)["page"])
        n_so_far = number * PAGE_ROWS + len(jobs)
        # A total that is less than what was shown is none, and one may count the jobs of its page.
        told = isinstance(page.total, int) and page.total >= n_so_far
        more = len(jobs) >= PAGE_ROWS or (n_so_far < bounds.count(page.total) if told else bool(jobs))
        return BatchPage(data=[job.batch for job in jobs], paging=str(number + 1) if more else "")


def _page(cursor: str) -> Query:
    return [("page", cursor or "0"), ("page_size", str(PAGE_ROWS)), ("order_by", "-created")]


def _next_cursor(page: BatchPage) -> str:
    return page.paging if isinstance(page.paging, str) else ""


PROVIDER: Final = OpenAIFiles(
    FACTS, MistralDialect(root="/v1", page=_page, next_cursor=_next_cursor, batches="/batch/jobs")
)
