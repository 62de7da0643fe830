"""A handler that answers by itself, and a real HTTP server for what passes through."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from batchling_client.intercept import scope, switch
from batchling_client.intercept.interceptor import PASS_THROUGH, Handler, HttpCall, HttpReply, PassThrough
from batchling_client.intercept.passed import Passed, Why
from batchling_client.wire.routes import Routes

PATH = "/openai/v1/chat/completions"
HOSTS = [
    ("https://llm.example", "llm.example"),
    ("https://llm.example:443", "llm.example"),
    ("http://LLM.example:80", "llm.example"),
    ("https://llm.example:8443", "llm.example:8443"),
    ("http://llm.example:443", "llm.example:443"),
    ("http://localhost:8000", "localhost:8000"),
    ("http://[::1]:8000", "[::1]:8000"),
]
"""URLs, and the hosts that a handler sees of them."""


def completion(content: str) -> dict[str, Any]:
    """Return a chat completion as OpenAI and Groq spell it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "llama",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        ],
    }


class FakeHandler:
    """Answers every chat completion (or wants none) under its own name, and keeps what it was asked."""

    def __init__(
        self, name: str = "batch", *, reply: HttpReply | PassThrough | None = None, wanting: bool = True
    ) -> None:
        self.name = name
        self.wanting = wanting
        self.passed = Passed(Routes())
        self.asked = asyncio.Event()
        self.wanted: list[tuple[str, str, str]] = []
        self.calls: list[HttpCall] = []
        self.released = asyncio.Event()
        self.released.set()
        headers = {"content-type": "application/json", "x-request-id": "req_1"}
        body = json.dumps(completion(name)).encode()
        self.reply = reply or HttpReply(status=200, headers=headers, body=body)

    def wants(self, method: str, host: str, path: str) -> bool:
        self.wanted.append((method, host, path))
        return self.wanting and method == "POST" and path.endswith("/chat/completions")

    def passes(self, method: str, host: str, path: str) -> bool:
        return False

    async def answer(self, call: HttpCall) -> HttpReply | PassThrough:
        if call.body_unread:
            self.passed.note(Why.STREAMED_BODY, call.host)
            return PASS_THROUGH
        self.calls.append(call)
        self.asked.set()
        await self.released.wait()
        return self.reply

    def answer_blocking(self, call: HttpCall) -> HttpReply | PassThrough:
        if call.body_unread:
            self.passed.note(Why.STREAMED_BODY, call.host)
            return PASS_THROUGH
        self.calls.append(call)
        return self.reply


def refusing() -> FakeHandler:
    """Return a handler that looks at a call and lets it pass."""
    return FakeHandler(reply=PASS_THROUGH)


def error_reply(status: int, **headers: str) -> HttpReply:
    """Return a provider's error answer."""
    body = json.dumps({"error": {"message": "no", "type": "invalid_request_error", "code": "bad"}}).encode()
    return HttpReply(status=status, headers={"content-type": "application/json", **headers}, body=body)


def who(body: bytes) -> str:
    """Return who answered: a handler's name, or ``upstream``."""
    content = json.loads(body)["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


def sends(library: Any) -> tuple[object, object]:
    """Return what stands for ``send`` on both client classes."""
    return vars(library.Client)["send"], vars(library.AsyncClient)["send"]


@contextmanager
def task_block(handler: Handler) -> Iterator[None]:
    """Open a block as ``async with batchify()`` does."""
    switch.install()
    token = scope.enter_task(handler)
    try:
        yield
    finally:
        scope.leave_task(token)
        switch.uninstall()


@contextmanager
def process_block(handler: Handler) -> Iterator[None]:
    """Open a block as plain ``with batchify()`` does."""
    switch.install()
    scope.enter_process(handler)
    try:
        yield
    finally:
        scope.leave_process(handler)
        switch.uninstall()


class Upstream:
    """A provider on a loopback port, in a thread of its own; keeps what reached it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        async def answer(request: web.Request) -> web.Response:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.seen.append((request.method, request.path, await request.read(), headers))
            if request.path == "/token":
                return web.json_response({"token": "fresh"})
            return web.json_response(completion("upstream"))

        async def listen() -> web.AppRunner:
            app = web.Application()
            app.router.add_route("*", "/{tail:.*}", answer)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            return runner

        runner = self._loop.run_until_complete(listen())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()
