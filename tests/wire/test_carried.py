"""Headers that travel with a batch beside its key: the headers that gateways need, unless they change a call."""

from __future__ import annotations

import pytest

from batchling_client.wire import carried
from batchling_client.wire.roots import Roots

KEY = {"authorization": "Bearer sk-1"}
OVERRIDING = (
    "host",
    "authorization",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "proxy-authorization",
    "x-forwarded-host",
    "x-original-url",
    "x-http-method-override",
    "range",
    "x-batchling-staging",
    "two words",
    "",
    "a" * 200,
)


@pytest.mark.parametrize("name", OVERRIDING)
def test_a_call_cannot_bring_a_header_that_would_change_the_workers_call(name: str) -> None:
    assert carried.refusal_of(name, chosen_by="calls")


@pytest.mark.parametrize("name", sorted(carried.CHOOSES_A_HOST))
def test_only_settings_may_choose_the_host_behind_a_gateway(name: str) -> None:
    assert carried.refusal_of(name, chosen_by="calls")
    assert carried.refusal_of(name, chosen_by="settings") == ""


def test_no_known_name_is_refused() -> None:
    assert not [name for name in carried.KNOWN_HEADERS if carried.refused(name)]


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "\x00", "é", "a" * 9000])
def test_a_value_that_no_header_can_have_does_not_travel(value: str) -> None:
    found = carried.of_call({"x-tenant": value}, "/", names={"x-tenant"}, query_names=())
    assert found == {}


def test_what_is_carried_makes_another_fingerprint_and_nothing_keeps_the_old_one() -> None:
    known = Roots("default")
    plain = known.of_credential(KEY).fingerprint
    others = [
        {"+x-tenant": "a"},
        {"+x-tenant": "b"},
        {"+x-other": "a"},
        {"?tenant": "a"},
        {"+x-tenant": "a", "+x-other": "b"},
        {"+x-tenant": "a\n+x-other: b"},
    ]
    fingerprints = {known.of_credential({**KEY, **beside}).fingerprint for beside in others}
    assert len(fingerprints) == len(others)
    assert plain not in fingerprints
    assert plain == known.of_credential({"x-api-key": "sk-1"}).fingerprint


def test_a_named_account_differs_by_what_is_carried() -> None:
    digests = ("", carried.digest({"+x-tenant": "a"}), carried.digest({"+x-tenant": "b"}))
    assert len({Roots("default").of_account("evals", "acme", one).fingerprint for one in digests}) == 3


def test_what_sdks_tracers_and_retries_send_is_not_missed() -> None:
    usual = dict.fromkeys(
        (
            "accept",
            "user-agent",
            "content-type",
            "x-stainless-lang",
            "x-goog-api-client",
            "traceparent",
            "x-request-id",
            "x-my-correlation-id",
            "idempotency-key",
            "sentry-trace",
            "openai-beta",
            "http-referer",
            "x-title",
            "x-irid",
            "x-run-id",
            "helicone-session-id",
            "langfuse_session_id",
        ),
        "1",
    )
    url = "https://gateway.example/v1/messages?beta=true&team=b"
    names = [*(f"+{name}" for name in (*usual, "x-tenant")), *carried.query_of(url)]
    assert carried.left_out(names, known=()) == ["+x-tenant", "?team"]
    assert carried.left_out(names, known=("?team",)) == ["+x-tenant"]
