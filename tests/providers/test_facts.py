"""Each route has an adapter whose facts are about it."""

from __future__ import annotations

import pytest

from batchling_client.wire.routes import ROUTES, Routes
from batchling_worker import providers
from batchling_worker.errors import PermanentError


def test_every_route_has_a_provider_and_every_provider_a_route() -> None:
    assert {route.provider for route in ROUTES} == set(providers.names())


def test_the_base_url_is_one_of_the_hosts_of_the_route(name: str) -> None:
    facts = providers.load(name).facts
    # A provider with a host for each customer accepts any of these hosts.
    host = facts.base_url.removeprefix("https://").replace("*", "mine")
    assert Routes().of_host(host) is facts.route is Routes().named(name)


def test_facts_name_their_source_and_its_date(name: str) -> None:
    facts = providers.load(name).facts
    assert facts.source.startswith("https://")
    assert facts.checked_on.year >= 2026


def test_a_provider_is_loaded_once(name: str) -> None:
    assert providers.load(name) is providers.load(name)


def test_an_unknown_provider_is_refused_in_one_sentence() -> None:
    with pytest.raises(PermanentError, match=r"^No provider is called 'acme': there are .*groq.*\.$"):
        providers.load("acme")
