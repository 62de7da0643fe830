"""Realtime calls of every provider can be refused; otherwise they are answered and billed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from batchling_worker.sandbox import Sandbox, emulator
from batchling_worker.sandbox.world import faults

CHAT: dict[str, Any] = {"model": "gemini-m", "messages": [{"role": "user", "content": "q"}]}
GOOGLE: dict[str, Any] = {"contents": [{"parts": [{"text": "q"}]}]}
LOCATION = "v1/projects/p/locations/europe-west4/publishers/google/models/gemini-m"
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("v1/chat/completions", CHAT),
    "groq": ("openai/v1/chat/completions", CHAT),
    "mistral": ("v1/chat/completions", CHAT),
    "together": ("v1/chat/completions", CHAT),
    "gemini": ("v1beta/models/gemini-m:generateContent", GOOGLE),
    "vertex": (f"{LOCATION}:generateContent", GOOGLE),
    "anthropic": ("v1/messages", {**CHAT, "max_tokens": 9}),
    "sference": ("v1/chat/completions", CHAT),
    "bedrock": ("model/m/converse", {"messages": [{"role": "user", "content": [{"text": "q"}]}]}),
    "azure": ("openai/v1/chat/completions", CHAT),
    "doubleword": ("v1/chat/completions", CHAT),
    "xai": ("v1/chat/completions", CHAT),
}


@pytest.mark.parametrize("name", emulator.names())
def test_a_realtime_call_is_refused_as_often_as_armed(sandbox: Sandbox, name: str) -> None:
    path, body = CALLS[name]
    headers = {"authorization": "Bearer key", "anthropic-version": "2023-06-01"}
    sandbox.faults.add(faults.RefuseRealtime(status=503, message="Overloaded.", provider=name))

    def post() -> httpx.Response:
        return httpx.post(f"{sandbox.base_url(name)}/{path}", json=body, headers=headers)

    refused = post()
    assert (refused.status_code, "Overloaded." in refused.text) == (503, True)
    assert sandbox.faults.n_struck(faults.RefuseRealtime) == 1
    assert post().status_code == 200
    assert [call.status_code for call in sandbox.ledger().realtime] == [200]
