"""Doubleword's Batch API: OpenAI's, whose results can be read while it runs, and whose deadlines end no batch."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Final
from urllib.parse import quote

from batchling_client.wire.states import Outcome

from ..dialects.lenient_json import whole
from ..dialects.openai.batch_object import BatchObject, file_id
from ..dialects.openai.dialect import PAGE_ROWS, Dialect, Query, cursor_after, page_after
from ..dialects.openai.files import OpenAIFiles
from ..dialects.result_file import rows_of
from ..dialects.result_lines import RowReader
from ..provider import Account, Answer, Ended, Ending, ProviderFacts, Running, SpentFiles

FACTS: Final = ProviderFacts(
    name="doubleword",
    base_url="https://api.doubleword.ai",
    max_rows=50_000,
    max_bytes=100_000_000,
    windows=("24h", "1h"),
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
    """OpenAI's, with a search of its own and batches whose words mean something else."""

    def search(self, label: str) -> Query:
        """Metadata, file names and ids are searched."""
        return [("limit", PAGE_ROWS), ("search", label)]

    def told(self, batch: BatchObject, now: dt.datetime) -> Running | Ended:
        """A batch in which every row failed is called failed: what its rows say is to be had all the same.

        Past its deadline a batch goes on, `expired_at` notwithstanding. The output file grows while it runs.
        """
        look = batch.look(now)
        if isinstance(look, Ended) and look.outcome is Outcome.FAILED and look.ending.results:
            return dataclasses.replace(look, outcome=Outcome.COMPLETED)
        output = file_id(batch.output_file_id)
        if isinstance(look, Running) and output and look.n_done:
            return dataclasses.replace(look, early=Ending(results=(output,)))
        return look


class Doubleword(OpenAIFiles):
    """Reads result files from the line on that the last reading came to."""

    async def delete(self, account: Account, spent: SpentFiles) -> None:
        """Do nothing: files expire, and with an input file its batch, rows and results are deleted too."""

    def _rows(self, account: Account, after: str, one: str) -> AsyncGenerator[Answer, None]:
        n_lines = int(after) if after.isascii() and after.isdigit() else 0
        path = f"/files/{quote(one, safe='')}/content" + (f"?skip={n_lines}" if n_lines else "")
        return rows_of(self._call(account, "read results", "GET", path), one, Lines(n_lines=n_lines))


@dataclasses.dataclass
class Lines(RowReader):
    """Says of each row behind which line of its file it goes on."""

    n_lines: int = 0

    def answers(self, lines: list[bytes]) -> Iterator[Answer]:
        for line in lines:
            self.n_lines += 1
            for answer in super().answers([line]):
                yield dataclasses.replace(_with_status(answer), cursor=str(self.n_lines))


def _with_status(answer: Answer) -> Answer:
    """Result lines tell no HTTP status, but the sentence of a failed row may be JSON that does."""
    if answer.status != 500 or b"status" not in answer.body:
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
