"""Doubleword's Batch API: OpenAI's, but results can be read while a batch runs, and a deadline does not end it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import AsyncGenerator
from typing import Final
from urllib.parse import quote

from batchling_client.wire.routes import route_of
from batchling_client.wire.states import Outcome

from ..dialects.lenient_json import whole
from ..dialects.openai.batch_object import BatchObject, file_id
from ..dialects.openai.dialect import PAGE_ROWS, Dialect, Query, cursor_after, page_after
from ..dialects.openai.files import OpenAIFiles
from ..dialects.openai.rows import openai_rows
from ..dialects.result_file import rows_of
from ..dialects.result_lines import LineReader
from ..provider import Account, Answer, Ended, Ending, ProviderFacts, Running, SpentFiles

FACTS: Final = ProviderFacts(
    route=route_of("doubleword"),
    looks_at_once=100,
    searchable=True,
    early_results=True,
    discount_percent=50,
    source="https://docs.doubleword.ai/batches/getting-started-with-batched-api",
    checked_on=dt.date(2026, 11, 23),
    file_expiry_s=(3_600, 2_592_000),
    verified=("docs", "SDK"),
)


class DoublewordDialect(Dialect):
    """OpenAI's API, with a search of its own and status words that mean something else."""

    def search(self, label: str) -> Query:
        """Return the query; Doubleword searches metadata, file names and ids."""
        return [("limit", PAGE_ROWS), ("search", label)]

    def told(self, batch: BatchObject, now: dt.datetime) -> Running | Ended:
        """Return the state of a batch; a batch whose rows all failed is called failed, but its rows can be read.

        A batch continues after its deadline, even with `expired_at` set. The output file grows while it runs.
        """
        look = batch.look(now)
        if isinstance(look, Ended) and look.outcome is Outcome.FAILED and look.ending.results:
            return dataclasses.replace(look, outcome=Outcome.COMPLETED)
        output = file_id(batch.output_file_id)
        if isinstance(look, Running) and output and look.n_done:
            return dataclasses.replace(look, early=Ending(results=(output,)))
        return look


class Doubleword(OpenAIFiles):
    """Reads result files from the line at which the last reading ended."""

    async def delete(self, account: Account, spent: SpentFiles) -> None:
        """Do nothing: files expire, and deleting an input file would delete its batch, rows and results too."""

    def _rows(self, account: Account, after: str, one: str) -> AsyncGenerator[Answer, None]:
        n_lines = int(after) if after.isascii() and after.isdigit() else 0
        path = f"/files/{quote(one, safe='')}/content" + (f"?skip={n_lines}" if n_lines else "")
        return rows_of(self._call(account, "read results", "GET", path), one, reader(n_lines))


def reader(n_lines: int) -> LineReader:
    """Return a reader of the lines after these; each answer's cursor is the number of its line."""
    rows = openai_rows()
    return dataclasses.replace(
        rows,
        read=lambda custom_id, row: _with_status(rows.read(custom_id, row)),
        strict=lambda line: _with_status(rows.strict(line)),
        cursors=True,
        n_lines=n_lines,
    )


def _with_status(answer: Answer | None) -> Answer | None:
    """Return the answer with a status: a line has none, but the sentence of a failed row may be JSON with a status."""
    if answer is None or answer.status != 500 or b"status" not in answer.body:
        return answer
    try:
        said = json.loads(json.loads(answer.body)["error"]["message"])
        said = {**said, **said.get("details", {})}
        status, body = said["status"], said.get("body") or said.get("message") or ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return answer
    if not isinstance(status, int) or not 400 <= status <= 599 or not isinstance(body, str):
        return answer
    return dataclasses.replace(answer, status=status, body=whole(body).encode() or answer.body)


DIALECT: Final = DoublewordDialect(root="/v1", page=page_after, next_cursor=cursor_after)
PROVIDER: Final = Doubleword(FACTS, DIALECT)
