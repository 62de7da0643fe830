"""OpenAI's Batch API."""

from __future__ import annotations

import datetime as dt
from typing import Final

from ..openai_dialect import BatchPage, Dialect, Query
from ..openai_files import OpenAIFiles
from ..provider import ProviderFacts

FACTS: Final = ProviderFacts(
    name="openai",
    base_url="https://api.openai.com",
    max_rows=50_000,
    max_bytes=200_000_000,
    windows=("24h",),
    looks_at_once=100,
    searchable=True,
    early_results=False,
    discount_percent=50,
    source="https://developers.openai.com/api/docs/guides/batch",
    checked_on=dt.date(2026, 11, 23),
    verified=("SDK", "capture", "docs"),
)
PAGE_ROWS: Final = "100"


def _page(cursor: str) -> Query:
    return [("limit", PAGE_ROWS), ("after", cursor)] if cursor else [("limit", PAGE_ROWS)]


def _next_cursor(page: BatchPage) -> str:
    if page.has_more is not True or not page.batches:
        return ""
    return page.last_id if isinstance(page.last_id, str) and page.last_id else page.batches[-1].known_id


PROVIDER: Final = OpenAIFiles(FACTS, Dialect(root="/v1", page=_page, next_cursor=_next_cursor))
