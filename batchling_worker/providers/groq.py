"""Groq's Batch API: OpenAI's under another root, with a cursor of its own and a list that takes ids."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from batchling_client.wire.routes import route_of

from ..dialects.openai.dialect import BatchPage, Dialect, Query, no_cursor, says_more
from ..dialects.openai.files import OpenAIFiles
from ..provider import ProviderFacts

FACTS: Final = ProviderFacts(
    route=route_of("groq"),
    looks_at_once=200,
    searchable=True,
    early_results=False,
    discount_percent=50,
    source="https://console.groq.com/docs/batch",
    checked_on=dt.date(2026, 11, 23),
    verified=("SDK", "docs"),
)


def _page(cursor: str) -> Query:
    return [("cursor", cursor)] if cursor else []


def _next_cursor(page: BatchPage) -> str:
    paging = page.paging if isinstance(page.paging, dict) else {}
    cursor = paging.get("next_cursor")
    if isinstance(cursor, str) and cursor:
        return cursor
    if says_more(page.has_more) or says_more(paging.get("has_more")):
        raise no_cursor()
    return ""


def _by_ids(ids: Sequence[str]) -> Query:
    return [("id", one) for one in ids]


PROVIDER: Final = OpenAIFiles(
    FACTS, Dialect(root="/openai/v1", page=_page, next_cursor=_next_cursor, by_ids=_by_ids)
)
