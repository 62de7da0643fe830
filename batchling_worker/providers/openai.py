"""OpenAI's Batch API."""

from __future__ import annotations

import datetime as dt
from typing import Final

from batchling_client.wire.routes import route_of

from ..dialects.openai.dialect import Dialect, cursor_after, page_after
from ..dialects.openai.files import OpenAIFiles
from ..provider import ProviderFacts

FACTS: Final = ProviderFacts(
    route=route_of("openai"),
    looks_at_once=100,
    searchable=True,
    early_results=False,
    discount_percent=50,
    source="https://developers.openai.com/api/docs/guides/batch",
    checked_on=dt.date(2026, 11, 23),
    file_expiry_s=(3_600, 2_592_000),
    verified=("SDK", "capture", "docs"),
)

PROVIDER: Final = OpenAIFiles(
    FACTS, Dialect(root="/v1", page=page_after, next_cursor=cursor_after, results_expire=True)
)
