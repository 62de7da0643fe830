"""An OpenAI-compatible endpoint of the user's own, made a provider by settings alone."""

from __future__ import annotations

import datetime as dt

from batchling_client.wire.stand_ins import StandIn, own_route

from .openai_dialect import Dialect, cursor_after, page_after
from .openai_files import OpenAIFiles
from .provider import ProviderFacts


def own_endpoint(name: str, said: StandIn) -> OpenAIFiles:
    """The provider of a checked setting; its base URL ends in the version that OpenAI's paths begin with."""
    route = own_route(name, said)
    facts = ProviderFacts(
        name=name,
        base_url=said.base_url or "",
        max_rows=route.max_rows,
        max_bytes=route.max_bytes,
        windows=route.windows,
        looks_at_once=100,
        searchable=True,
        early_results=False,
        discount_percent=0,
        source="settings",
        checked_on=dt.date(2026, 11, 25),
        verified=(),
    )
    return OpenAIFiles(facts, Dialect(root="", page=page_after, next_cursor=cursor_after))
