"""Calls that need not name a model are sent as without a block, with a warning where they cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchling_client import settings
from batchling_client.intercept.interceptor import PassThrough
from batchling_client.intercept.passed import Passed
from batchling_client.session.calls import Calls, Request
from batchling_client.session.lanes import Terms
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.routes import Routes

from .asking import a_call

OPENAI = "api.openai.com"
PROMPT = {"prompt": {"id": "pmpt_1"}}


def calls(routes: Routes | None = None) -> Calls:
    used = routes or Routes()
    return Calls(Terms(run_id=new_run_id(), run_name=""), used, Passed(used))


def a_body(path: str, body: dict[str, Any], host: str = OPENAI) -> Any:
    return a_call(host=host, path=path, body=json.dumps(body).encode())


@pytest.mark.parametrize(
    ("path", "body", "costs"),
    [
        ("/v1/moderations", {"input": "is this rude?"}, False),
        ("/v1/responses", PROMPT, True),
        ("/v1/responses", {**PROMPT, "model": None}, True),
        ("/v1/images/generations", {"prompt": "a cat"}, True),
        ("/v1/images/edits", {"prompt": "a dog", "images": []}, True),
        ("/v1/videos", {"prompt": "a film"}, True),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_call_that_needs_no_model_passes(
    path: str, body: dict[str, Any], costs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    asked = calls()
    for _ in range(2):
        assert isinstance(asked.read(a_body(path, body)), PassThrough)
    assert sum(one.n_calls for one in asked.passed.counts()) == 2 * costs
    assert caplog.text.count("names no model") == costs


def test_a_server_of_one_model_needs_none_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__MINE__BASE_URL", "http://127.0.0.1:9")
    asked = calls(settings.load().routes())
    body = {"messages": [{"role": "user", "content": "hi"}]}
    passed = asked.read(a_body("/v1/chat/completions", body, "127.0.0.1:9"))
    assert isinstance(passed, PassThrough)
    assert "names no model" in caplog.text
    batched = asked.read(a_body("/v1/chat/completions", {**body, "model": "one"}, "127.0.0.1:9"))
    assert isinstance(batched, Request)


def test_with_a_model_such_a_call_is_batched() -> None:
    assert isinstance(calls().read(a_body("/v1/responses", {**PROMPT, "model": "gpt-5"})), Request)
