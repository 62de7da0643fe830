"""Headers and query fields that a gateway needs travel with the batch, sealed, and tell tenants apart."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from batchling_client import settings
from batchling_client.errors import WrongSettings
from batchling_client.session.calls import Calls, Request
from batchling_client.session.lanes import Terms
from batchling_client.wire.ids import new_run_id
from batchling_worker.settings import load as load_workers

from .asking import a_call

HOST, PATH = "gateway.example", "/v1/chat/completions"
ACME = "BATCHLING_PROVIDERS__ACME"
SECRET = "pk-CANARY-0123456789"
GATEWAYS = {
    "Portkey": {"x-portkey-api-key": SECRET, "x-portkey-provider": "openai"},
    "Helicone": {"helicone-auth": f"Bearer {SECRET}"},
    "Cloudflare": {"cf-aig-authorization": f"Bearer {SECRET}"},
    "Azure API Management": {"ocp-apim-subscription-key": SECRET},
    "LiteLLM": {"x-litellm-api-key": SECRET},
    "Kong": {"apikey": SECRET},
}


@pytest.fixture(autouse=True)
def gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ACME}__BASE_URL", f"https://{HOST}/v1")


def calls(account: str | None = None) -> Calls:
    terms = Terms(run_id=new_run_id(), run_name="", account=account)
    return Calls(terms, settings.load().routes())


def read(headers: dict[str, str] | None = None, *, account: str | None = None, **more: Any) -> Request:
    request = calls(account).read(a_call(host=HOST, path=PATH, headers=headers or {}, **more))
    assert isinstance(request, Request)
    return request


@pytest.mark.parametrize("kind", GATEWAYS)
def test_a_known_gateways_headers_travel_sealed_without_any_setting(kind: str) -> None:
    headers = GATEWAYS[kind]
    lane = read(headers).lane
    assert {name: lane.secrets[f"+{name}"] for name in headers} == headers
    assert SECRET not in repr(lane)
    assert SECRET.encode() not in lane.packed_spec
    assert lane.spec.carried == ",".join(f"+{name}" for name in sorted(headers))


def test_a_provider_behind_a_gateway_is_treated_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__ANTHROPIC__BASE_URL", "https://other.example")
    message = {"model": "claude", "max_tokens": 1, "messages": []}
    request = calls().read(
        a_call(
            host="other.example",
            path="/v1/messages",
            key=None,
            headers={"x-api-key": "sk-ant", "x-portkey-api-key": SECRET, "anthropic-beta": "b"},
            body=json.dumps(message).encode(),
        )
    )
    assert isinstance(request, Request)
    assert request.lane.secrets == {"x-api-key": "sk-ant", "+x-portkey-api-key": SECRET}


def test_headers_and_query_fields_that_settings_name_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ACME}__LANE_HEADERS", "X-Tenant, X-Team")
    monkeypatch.setenv(f"{ACME}__LANE_QUERY", "region")
    call = a_call(host=HOST, path=PATH, headers={"x-tenant": "a"})
    request = calls().read(replace(call, url=f"{call.url}?region=eu&api-version=7&other=1"))
    assert isinstance(request, Request)
    beside = {name: said for name, said in request.lane.secrets.items() if name != "authorization"}
    assert beside == {"+x-tenant": "a", "?api-version": "7", "?region": "eu"}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("account", [None, "evals"])
def test_two_tenants_by_header_never_make_the_same_request(
    monkeypatch: pytest.MonkeyPatch, named: bool, account: str | None
) -> None:
    if named:
        monkeypatch.setenv(f"{ACME}__LANE_HEADERS", "x-tenant")
    made = [read({"x-tenant": one} if one else {}, account=account) for one in ("a", "b", "")]
    again = read({"x-tenant": "a"}, account=account)
    assert len({one.request_id for one in made}) == 3
    assert again.request_id == made[0].request_id
    assert len({one.lane.lane_id for one in made}) == (3 if named else 1)


def test_two_tenants_of_one_key_are_not_taken_for_a_key_that_has_changed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(f"{ACME}__LANE_HEADERS", "x-tenant")
    reading = calls()
    with caplog.at_level(logging.WARNING):
        for tenant in ("a", "b"):
            reading.read(a_call(host=HOST, path=PATH, headers={"x-tenant": tenant}))
    assert caplog.records == []


def test_a_header_that_nobody_named_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    reading = calls()
    with caplog.at_level(logging.WARNING):
        for tenant in ("a-secret-tenant", "another-tenant"):
            reading.read(a_call(host=HOST, path=PATH, headers={"x-tenant": tenant, "x-request-id": tenant}))
    [warning] = [one.getMessage() for one in caplog.records]
    assert "header 'x-tenant'" in warning
    assert f"{ACME}__LANE_HEADERS" in warning
    assert "secret" not in warning


@pytest.mark.parametrize("name", ["x-irid", "x-session-id", "x-eval-run-id", "langfuse_trace_id"])
def test_an_id_of_a_call_or_a_run_makes_no_rerun_pay_again(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """inspect_ai gives each call an id of its own in `x-irid`."""
    with caplog.at_level(logging.WARNING):
        first, rerun = read({name: "uMGxqp6sZ2"}), read({name: "aNk7Wv93Lf"})
    assert rerun.request_id == first.request_id
    assert rerun.lane.lane_id == first.lane.lane_id
    assert not caplog.records


def test_a_providers_own_host_is_sent_no_gateways_headers(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        call = a_call(
            host="api.openai.com", path=PATH, headers={"x-portkey-api-key": SECRET, "x-tenant": "a"}
        )
        request = calls().read(call)
    assert isinstance(request, Request)
    assert request.lane.secrets.keys() == {"authorization"}
    assert caplog.records == []


@pytest.mark.parametrize(
    "name", ["x-portkey-custom-host", "helicone-target-url", "host", "content-length", "x-forwarded-host"]
)
def test_a_call_cannot_name_a_host_or_a_length_to_the_gateway(name: str) -> None:
    assert f"+{name}" not in read({name: "evil.example"}).lane.secrets


@pytest.mark.parametrize("setting", ["LANE_HEADERS", "HEADERS"])
@pytest.mark.parametrize("name", ["host", "content-length", "authorization", "x-batchling-staging"])
def test_a_setting_that_would_change_a_call_is_refused(
    monkeypatch: pytest.MonkeyPatch, setting: str, name: str
) -> None:
    said = name if setting == "LANE_HEADERS" else json.dumps({name: SECRET})
    monkeypatch.setenv(f"{ACME}__{setting}", said)
    with pytest.raises(WrongSettings) as refusal:
        settings.load()
    assert name in str(refusal.value)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    "said",
    [
        json.dumps({"X-Portkey-Api-Key": SECRET}),
        f"x-portkey-api-key={SECRET}",
        f"x-portkey-api-key: {SECRET}",
    ],
)
def test_headers_of_the_settings_are_sent_with_every_call_and_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv(f"{ACME}__HEADERS", said)
    used = settings.load()
    assert read().lane.secrets["+x-portkey-api-key"] == SECRET
    workers = load_workers()
    for shown in (repr(used), repr(workers), repr(used.routes()), workers.model_dump_json()):
        assert SECRET not in shown


@pytest.mark.parametrize("lane_headers", ["", "x-team"])
def test_a_header_of_the_call_comes_before_the_same_header_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lane_headers: str
) -> None:
    monkeypatch.setenv(f"{ACME}__HEADERS", "x-team=red,x-portkey-api-key=pk-red")
    monkeypatch.setenv(f"{ACME}__LANE_HEADERS", lane_headers)
    with caplog.at_level(logging.WARNING):
        red, blue = read(), read({"x-team": "blue", "x-portkey-api-key": "pk-blue"})
        again = read({"x-team": "red"})
    assert [one.lane.secrets["+x-team"] for one in (red, blue, again)] == ["red", "blue", "red"]
    assert [one.lane.secrets["+x-portkey-api-key"] for one in (red, blue)] == ["pk-red", "pk-blue"]
    assert red.lane.lane_id == again.lane.lane_id != blue.lane.lane_id
    assert red.request_id == again.request_id != blue.request_id
    assert caplog.records == []


def test_a_header_that_splits_lanes_anyway_comes_before_that_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"{ACME}__HEADERS", "openai-organization=org-red")
    red, blue = read().lane, read({"openai-organization": "org-blue"}).lane
    assert red.secrets["+openai-organization"] == "org-red"
    assert "+openai-organization" not in blue.secrets
    assert ("openai-organization", "org-blue") in blue.spec.headers


@pytest.mark.parametrize("said", ["x-portkey-api-key", '{"x-portkey-api-key"', "=,="])
def test_headers_that_cannot_be_read_are_refused_without_their_text(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv(f"{ACME}__HEADERS", f"{said} {SECRET}" if "=" not in said else said)
    with pytest.raises(WrongSettings) as refusal:
        settings.load()
    assert SECRET not in str(refusal.value)
