"""Azure OpenAI's Batch API: OpenAI's for one resource, which processes a file before a batch can be made from it.

Its v1 path stands for itself. Calls with a dated `api-version` are batched under that version, as their resource may
know no other: then files and batches are at `/openai/files?api-version=`, outside of the deployments.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Final
from urllib.parse import quote

import msgspec

from batchling_client.wire import error_words
from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.routes import route_of

from ..dialects import bounds, http_errors
from ..dialects.openai.dialect import Dialect, cursor_after, page_after
from ..dialects.openai.files import OpenAIFiles
from ..dialects.provider_call import ProviderCall, known
from ..errors import FileNotReady, PermanentError, TemporaryError
from ..provider import Account, ProviderFacts, Source, Submission

FACTS: Final = ProviderFacts(
    route=route_of("azure"),
    looks_at_once=100,
    searchable=True,
    early_results=False,
    discount_percent=50,
    least_look_s=60.0,
    source="https://learn.microsoft.com/azure/ai-foundry/openai/how-to/batch",
    checked_on=dt.date(2026, 11, 23),
    file_expiry_s=(1_209_600, 2_592_000),
    verified=("SDK", "docs"),
)
PENDING: Final = frozenset({"notrunning", "pending", "running", "uploaded"})
SPOILT: Final = frozenset({"deleted", "deleting", "error", "failed"})
PENDING_S: Final = 5.0

_DATED: Final = re.compile(r"\d{4}-\d{2}-\d{2}.*")


class _File(msgspec.Struct, frozen=True):
    status: object = None
    status_details: object = None


class AzureDialect(Dialect):
    """Files and batches of one resource, under its v1 path or under the dated version that its callers use."""

    def root_of(self, account: Account) -> str:
        """Return the path for the callers' version: the v1 path takes no dated version, the other path requires it."""
        version = dict(account.query).get("api-version", "")
        return "/openai" if _DATED.fullmatch(version) else self.root


class AzureFiles(OpenAIFiles):
    """OpenAI's API, except that a batch needs a file that has been processed."""

    def __init__(self, facts: ProviderFacts, dialect: Dialect) -> None:
        super().__init__(facts, dialect)
        self._root_of = dialect.root_of

    async def create(self, account: Account, submission: Submission, source: Source) -> ProviderBatchId:
        """Create the batch once its input file is processed; until then send nothing that could cost money."""
        await self._check_processed(account, source.file_id)
        return await super().create(account, submission, source)

    async def _check_processed(self, account: Account, file_id: str) -> None:
        path = f"{self._root_of(account)}/files/{quote(file_id, safe='')}"
        call = ProviderCall(account, self.facts.name, "look at a file", "GET", path)
        file = await known(call.ask(_File))
        if file is None:
            raise FileNotReady("azure does not see the input file yet")
        word = bounds.text(file.status).lower()
        if word in PENDING:
            raise TemporaryError(f"azure has not read the input file yet (it is {word})", delay_s=PENDING_S)
        if word in SPOILT:
            details = file.status_details
            said = details if isinstance(details, str) else error_words.words_in(details)
            why = f": {said[: http_errors.LONGEST_REASON]}" if said else ""
            raise PermanentError(f"azure cannot use the input file, which is {word}{why}")


PROVIDER: Final = AzureFiles(
    FACTS,
    AzureDialect(root="/openai/v1", page=page_after, next_cursor=cursor_after, results_expire=True),
)
