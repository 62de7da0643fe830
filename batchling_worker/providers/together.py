"""Together's batches: files by an upload of their own, jobs without label or counts, failed rows without a status."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import BinaryIO, Final

import msgspec

from batchling_client.wire.routes import route_of

from ..dialects import bounds
from ..dialects.openai.batch_object import BatchObject
from ..dialects.openai.dialect import UPLOAD_PATIENCE, BatchPage, Dialect, Query, bare_line
from ..dialects.openai.files import OpenAIFiles
from ..dialects.openai.rows import openai_rows
from ..dialects.provider_call import ProviderCall
from ..dialects.result_lines import LineReader
from ..dialects.row_answers import UNRUN
from ..provider import ProviderFacts, Submission

FACTS: Final = ProviderFacts(
    route=route_of("together"),
    looks_at_once=100,
    searchable=True,
    early_results=False,
    discount_percent=50,
    source="https://docs.together.ai/docs/inference/batch/overview",
    checked_on=dt.date(2026, 11, 23),
    equal_files_are_one=True,
    verified=("docs", "capture", "SDK"),
)
STORED_BEFORE: Final = frozenset({409})
"""Status if the same bytes are already stored; the answer names their file."""
CLIENT_CODES: Final = ("batch_client", "invalid")
TIMEOUT_CODE: Final = "timeout"


class StoredFile(msgspec.Struct, frozen=True):
    """The answer to an upload, as far as it is read."""

    id: object = None
    file_id: object = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as Together shows it; every field may be absent or of an undocumented type."""

    id: object = None
    status: object = None
    input_file_id: object = None
    output_file_id: object = None
    error_file_id: object = None
    error: object = None
    created_at: object = None
    completed_at: object = None

    @property
    def batch(self) -> BatchObject:
        """The job in OpenAI's words."""
        ended_at = bounds.moment(self.completed_at)
        return BatchObject(
            id=self.id,
            status=self.status,
            input_file_id=self.input_file_id,
            output_file_id=self.output_file_id,
            error_file_id=self.error_file_id,
            errors=_errors(self.error),
            created_at=bounds.moment(self.created_at),
            completed_at=ended_at,
            expired_at=ended_at,
            cancelled_at=ended_at,
        )


class Created(msgspec.Struct, frozen=True):
    """The answer to a create call; a warning beside the job changes nothing."""

    job: Job = Job()


class TogetherDialect(Dialect):
    """Together's words.

    A file goes up in one call. The SDK asks for a place at another host and puts it there; a worker talks to no host
    that an answer names, and the one call does the same for files of this size.
    """

    def line(self, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """Return one request as a line of the input file; the job names the endpoint."""
        return bare_line(custom_id, body)

    async def stored(self, call: ProviderCall, name: str, lines: BinaryIO, form: Mapping[str, str]) -> str:
        """Store an input file; return its id, which may be the id of equal bytes stored before."""
        fields = {"purpose": "batch-api", "file_name": name, **form}
        file = await call.upload(StoredFile, fields, name, lines, UPLOAD_PATIENCE, fine=STORED_BEFORE)
        return bounds.identifier(file.id) or bounds.identifier(file.file_id)

    def wish(self, submission: Submission, input_file_id: str) -> dict[str, object]:
        """Return the body of a create call, which has no field for a label."""
        return {
            "input_file_id": input_file_id,
            "endpoint": submission.endpoint,
            "completion_window": submission.completion_window,
        }

    async def made(self, call: ProviderCall, wish: dict[str, object]) -> BatchObject:
        """Send a create call; return the job in the answer."""
        return (await call.tell(Created, wish)).job.batch

    async def shown(self, call: ProviderCall) -> BatchObject:
        """Look at one job."""
        return (await call.ask(Job)).batch

    async def listed(self, call: ProviderCall, query: Query) -> BatchPage:
        """Return all jobs: the list is a bare array without pages."""
        return BatchPage(data=[job.batch for job in await call.ask_list(list[Job], query)])

    def rows(self) -> LineReader:
        """Return the reader for the lines of one result file."""
        return openai_rows(status_of)


def status_of(code: str) -> tuple[int, str]:
    """Return status and origin of a failed row, for which Together sends only a code: 400 for a fault of the caller."""
    if code in UNRUN:
        return UNRUN[code]
    if TIMEOUT_CODE in code:
        return 504, "provider"
    return (400 if code.startswith(CLIENT_CODES) else 500), "provider"


def _errors(sentence: object) -> list[dict[str, object]] | None:
    """Return the sentence as a list of complaints; an input file that is not seen is not a fault of its rows."""
    if not isinstance(sentence, str) or not sentence:
        return None
    return [{"message": sentence, "param": "file_id" if "download input file" in sentence else None}]


def _page(cursor: str) -> Query:
    return ()


def _next_cursor(page: BatchPage) -> str:
    return ""


PROVIDER: Final = OpenAIFiles(
    FACTS, TogetherDialect(root="/v1", page=_page, next_cursor=_next_cursor, uploads="/files/upload")
)
