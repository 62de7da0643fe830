"""A gateway that keeps result files in an object store: it redirects downloads there, by URLs that are signed."""

from __future__ import annotations

import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batchling_client.operate import steering
from batchling_client.views.inspection import Inspection
from tests.deployment import CANARY, Deployment
from tests.waiting import wait_until

SIGNATURE = "X-Amz-Signature=signed-canary"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server:
    def __init__(self, handler: type[Handler]) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.site = f"127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class Store(Server):
    """Holds files by the path that was made up for each, and keeps the heads of all calls."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.heads: list[str] = []
        store = self

        class Files(Handler):
            def do_GET(self) -> None:
                store.heads.append(str(self.headers))
                body = store.files.get(self.path)
                self.answer(403 if body is None else 200, body or b"<Error><Code>AccessDenied</Code></Error>")

        super().__init__(Files)

    def keep(self, body: bytes) -> str:
        """Store a file; return a signed URL, with which anybody can read it."""
        path = f"/bucket/{secrets.token_hex(8)}.jsonl?{SIGNATURE}"
        self.files[path] = body
        return f"http://{self.site}{path}"


class Gateway(Server):
    """Passes calls on to a provider, and redirects those for the content of a file."""

    def __init__(self, upstream: str, store: Store) -> None:
        class Calls(Handler):
            def pass_on(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                head = {
                    name: said
                    for name, said in self.headers.items()
                    if name.lower() not in ("host", "connection")
                }
                call = urllib.request.Request(
                    upstream + self.path, self.rfile.read(size) or None, head, method=self.command
                )
                try:
                    with urllib.request.urlopen(call) as reply:
                        status, kind, body = reply.status, reply.headers["content-type"], reply.read()
                except urllib.error.HTTPError as error:
                    status, kind, body = error.code, error.headers["content-type"], error.read()
                if status == 200 and self.path.endswith("/content"):
                    self.answer(302, b"", location=store.keep(body))
                else:
                    self.answer(status, body, content_type=kind or "application/json")

            def do_GET(self) -> None:
                self.pass_on()

            def do_POST(self) -> None:
                self.pass_on()

            def do_DELETE(self) -> None:
                self.pass_on()

        super().__init__(Calls)


@pytest.fixture
def store() -> Iterator[Store]:
    running = Store()
    yield running
    running.stop()


@pytest.fixture
def gateway(deployment: Deployment, store: Store) -> Iterator[Gateway]:
    running = Gateway(deployment.sandbox.base_url("groq"), store)
    deployment.env["BATCHLING_PROVIDERS__GROQ__BASE_URL"] = f"http://{running.site}"
    yield running
    running.stop()


def written(deployment: Deployment) -> bytes:
    """All that Redis and the workers have written down."""
    files = (deployment.home / "redis").rglob("*.aof")
    return b"".join(path.read_bytes() for path in files) + deployment.worker_logs().encode()


async def test_results_on_an_unlisted_host_wait_and_are_delivered_once_the_host_is_in_the_settings(
    deployment: Deployment, store: Store, gateway: Gateway
) -> None:
    pid = deployment.fork()
    ids = await deployment.ask(5)

    async def is_told() -> bool:
        told = [batch.error for batch in await deployment.batches()]
        return any(f"name {store.site} in BATCHLING_PROVIDERS__GROQ__DOWNLOAD_HOSTS" in one for one in told)

    await wait_until(is_told, description="the batch names the host and the setting", within_s=60)
    [batch] = await deployment.batches()
    assert batch.provider_batch_id
    assert store.heads == []
    assert await deployment.results(ids) == [None] * 5

    deployment.kill_fork(pid)
    deployment.env["BATCHLING_PROVIDERS__GROQ__DOWNLOAD_HOSTS"] = store.site
    deployment.fork()
    inspection = Inspection(deployment.redis, deployment.keys)
    await steering.retry(inspection, deployment.scripts, batch.batch_id)

    results = await deployment.answered(ids, within_s=60)
    assert {result.status for result in results} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)
    assert store.heads
    assert not any(CANARY in head or "uthorization" in head for head in store.heads)
    said = written(deployment)
    assert ids[0].encode() in said
    assert b"signed-canary" not in said
    assert b"/bucket/" not in said
