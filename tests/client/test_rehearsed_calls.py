"""In a rehearsal a call is read as the real provider would take it, whichever way it finds the sandbox."""

from __future__ import annotations

import logging

import pytest

from batchling_client import settings
from batchling_client.block import sandboxed
from batchling_client.operate.doctor import examine
from batchling_client.session.calls import Calls, Request
from batchling_client.session.lanes import Terms
from batchling_client.wire.deployment.rehearsing import SANDBOX
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.routes import Routes
from batchling_worker.sandbox import environment

from .asking import a_call

URL = "http://127.0.0.1:8099"
PATH = "/v1/chat/completions"
UNNAMED = {"x-tenant": "a", "x-portkey-api-key": "pk-CANARY"}


@pytest.fixture(params=["settings", "variables"])
def rehearsed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways: exports in a shell hold the settings of workers too."""
    told = environment.provider_settings(URL) if request.param == "settings" else {}
    for name, value in {**told, SANDBOX: URL}.items():
        monkeypatch.setenv(name, value)


def read(host: str, path: str = PATH) -> Request:
    terms = Terms(run_id=new_run_id(), run_name="", account=None)
    calls = Calls(terms, sandboxed.routes(settings.load().routes()))
    request = calls.read(a_call(host=host, path=path, headers=UNNAMED))
    assert isinstance(request, Request)
    return request


@pytest.mark.usefixtures("rehearsed")
@pytest.mark.parametrize(("host", "path"), [("api.openai.com", PATH), ("127.0.0.1:8099", f"/openai{PATH}")])
def test_a_header_is_not_warned_of_where_the_provider_takes_it(
    host: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        request = read(host, path)
    assert caplog.records == []
    assert request.lane.spec.carried == ""
    assert set(request.lane.secrets) == {"authorization"}


@pytest.mark.usefixtures("rehearsed")
def test_a_gateway_is_one_in_a_rehearsal_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__GROQ__BASE_URL", "https://gateway.example")
    with caplog.at_level(logging.WARNING):
        request = read("gateway.example", f"/openai{PATH}")
    assert "'x-tenant'" in caplog.text or "x-tenant" in caplog.text
    assert request.lane.spec.carried == "+x-portkey-api-key"


def test_the_answers_of_a_sandbox_are_never_a_providers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    real = read("api.openai.com")
    for name, value in {**environment.provider_settings(URL), SANDBOX: URL}.items():
        monkeypatch.setenv(name, value)
    assert read("api.openai.com").lane.lane_id != real.lane.lane_id


@pytest.mark.parametrize("value", ["1", "true", "127.0.0.1:8099"])
async def test_a_mark_that_was_set_by_hand_refuses_calls_and_says_so(value: str) -> None:
    gate = sandboxed.SandboxGate(value, Routes(), [])

    reply = await gate.answer(a_call(host="api.openai.com", path=PATH))

    assert reply.status == 403
    assert b"unset it, and rehearse with `batchling sandbox -- CMD`" in reply.body
    [found, *_] = await examine("redis://127.0.0.1:1/0", {SANDBOX: value})
    assert not found.sound
    assert "BATCHLING_SANDBOX holds no URL of a sandbox" in found.says
