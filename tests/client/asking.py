"""Asks as an HTTP library would, without one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from batchling_client import Run
from batchling_client.block.run import handler_of
from batchling_client.intercept.interceptor import HttpCall, HttpReply
from batchling_client.session.calls import Request
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import Row

HOST = "api.groq.com"
PATH = "/openai/v1/chat/completions"
ASK: dict[str, Any] = {"model": "llama", "messages": [{"role": "user", "content": "hi"}]}
"""As an SDK is asked."""


def a_call(
    prompt: str = "hello",
    *,
    model: str | None = "llama",
    key: str | None = "gsk-test",
    host: str = HOST,
    path: str = PATH,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> HttpCall:
    """Return a chat completion call as an SDK makes it."""
    if body is None:
        fields = {"model": model} if model is not None else {}
        body = json.dumps({**fields, "messages": [{"role": "user", "content": prompt}], **more}).encode()
    credential = {"authorization": f"Bearer {key}"} if key is not None else {}
    return HttpCall(
        method="POST",
        url=f"https://{host}{path}",
        host=host,
        path=path,
        headers={"content-type": "application/json", **credential, **(headers or {})},
        body=body,
    )


async def ask(run: Run, prompt: str = "hello", **how: Any) -> HttpReply:
    """Return the reply to one call."""
    reply = await handler_of(run).answer(a_call(prompt, **how))
    assert isinstance(reply, HttpReply)
    return reply


async def batches_of(run: Run) -> list[Batch]:
    """Return the batches with requests of the run, oldest first."""
    return await handler_of(run).batches()


async def ask_all(run: Run, *prompts: str, **how: Any) -> list[HttpReply]:
    """Return the replies to calls made at once."""
    return list(await asyncio.gather(*(ask(run, prompt, **how) for prompt in prompts)))


def content(reply: HttpReply) -> str:
    """Return the text of the answer."""
    text = json.loads(reply.body)["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def error_of(reply: HttpReply) -> dict[str, Any]:
    """Return the error object of a reply in the provider's shape."""
    found = json.loads(reply.body)["error"]
    assert isinstance(found, dict)
    assert reply.headers["x-should-retry"] == "false"
    return found


def body_of(request: Request) -> bytes:
    """Return the body of a request as its row holds it."""
    return Row.decode(request.packed).body(request.lane.lane_id, request.lane.cipher)
