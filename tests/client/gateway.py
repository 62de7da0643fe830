"""An unknown host on a loopback port, and programs that call it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

PATH = "/v1/chat/completions"


class Gateway(BaseHTTPRequestHandler):
    """An unknown host that answers LLM calls; keeps the paths that were called."""

    protocol_version = "HTTP/1.1"
    called: list[str]

    def do_POST(self) -> None:
        self.called.append(self.path)
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Site:
    def __init__(self, server: ThreadingHTTPServer, called: list[str]) -> None:
        self.host = f"127.0.0.1:{server.server_address[1]}"
        self.url = f"http://{self.host}{PATH}"
        self.called = called


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    """Serve calls on a loopback port."""
    called: list[str] = []
    handler = type("Here", (Gateway,), {"called": called})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield Site(server, called)
        server.shutdown()
        thread.join(10)


async def ask(url: str, n_calls: int = 2) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(n_calls):
            await client.post(url, json={"model": "m"})


def ask_blocking(url: str) -> None:
    with httpx.Client() as client:
        for _ in range(2):
            client.post(url, json={"model": "m"})


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings made while the block was open."""
    return [record.getMessage() for record in caplog.records if "caught no call" not in record.getMessage()]
