"""An endpoint that only the settings know is a provider like any other, for the client."""

from __future__ import annotations

import pytest

from batchling_client import settings
from batchling_client.errors import WrongSettings
from batchling_client.session.calls import Calls, Request
from batchling_client.session.lanes import Terms
from batchling_client.wire.ids import new_run_id

from .asking import a_call

HOST = "localhost:8000"
PATH = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def acme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__ACME__BASE_URL", f"http://{HOST}")
    monkeypatch.setenv("BATCHLING_PROVIDERS__ACME__API_KEY", "sk-CANARY")
    monkeypatch.setenv("BATCHLING_PROVIDERS__ACME__MAX_ROWS", "9")


def calls() -> Calls:
    used = settings.load()
    return Calls(Terms(run_id=new_run_id(), run_name=""), used.routes())


def test_its_calls_make_lanes_of_its_own() -> None:
    read = calls()
    request = read.read(a_call(host=HOST, path=PATH))
    assert isinstance(request, Request)
    spec = request.lane.spec
    assert (spec.provider, spec.host, spec.endpoint) == ("acme", f"http://{HOST}/v1", PATH)
    assert request.lane.cap.rows == 9
    assert read.wants("POST", HOST, PATH)
    assert not read.wants("POST", "localhost", PATH)
    assert not read.wants("GET", HOST, PATH)


def test_two_endpoints_on_one_host_never_share_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__OTHER__BASE_URL", f"http://{HOST}/other")
    read = calls()
    one, other = (read.read(a_call(host=HOST, path=path)) for path in (PATH, f"/other{PATH}"))
    assert isinstance(one, Request)
    assert isinstance(other, Request)
    assert (one.lane.spec.provider, other.lane.spec.provider) == ("acme", "other")
    assert one.lane.lane_id != other.lane.lane_id
    assert one.request_id != other.request_id


def test_a_gateways_call_is_the_request_that_its_providers_call_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__OPENAI__BASE_URL", "https://gateway.example/openai")
    direct = calls().read(a_call(host="api.openai.com", path=PATH))
    through = calls().read(a_call(host="gateway.example", path=f"/openai{PATH}"))
    assert isinstance(direct, Request)
    assert isinstance(through, Request)
    assert direct.request_id == through.request_id


def test_the_client_never_holds_the_workers_key() -> None:
    assert "CANARY" not in repr(settings.load())
    assert not hasattr(settings.load().providers["acme"], "api_key")


def test_a_name_without_a_base_url_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__GROK__API_KEY", "sk-CANARY")
    with pytest.raises(WrongSettings, match=r"BATCHLING_PROVIDERS__GROK__BASE_URL too\.$") as refusal:
        settings.load()
    assert "CANARY" not in str(refusal.value)


def test_settings_that_are_no_json_are_one_sentence_that_holds_no_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS", '{"groq": {"api_key": "sk-CANARY"')
    with pytest.raises(WrongSettings, match=r"^BATCHLING_PROVIDERS must be JSON\.$") as refusal:
        settings.load()
    assert refusal.value.__context__ is None, "a decoder's error holds all that it was given"
