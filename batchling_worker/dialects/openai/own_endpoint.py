"""An OpenAI-compatible endpoint of the user's own, made a provider by settings alone."""

from __future__ import annotations

import datetime as dt

from batchling_client.wire.deployment.provider_settings import EndpointSettings, own_route

from ...provider import ProviderFacts
from .dialect import Dialect, cursor_after, page_after
from .files import OpenAIFiles


def own_endpoint(name: str, said: EndpointSettings) -> OpenAIFiles:
    """Return the provider of a checked setting, whose base URL ends in the version that OpenAI's paths begin with."""
    facts = ProviderFacts(
        route=own_route(name, said),
        looks_at_once=100,
        searchable=True,
        early_results=False,
        discount_percent=0,
        source="settings",
        checked_on=dt.date(2026, 11, 25),
        verified=(),
    )
    return OpenAIFiles(facts, Dialect(root="", page=page_after, next_cursor=cursor_after))
