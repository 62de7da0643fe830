"""Behind Flower's OAuth login: nobody sees a page before the login, and what is done bears the name that logged in."""

from __future__ import annotations

import http.cookiejar
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.scripts.byhand import ByHand, ids

from .browser import running_flower

pytestmark = pytest.mark.long

XSRF = re.compile(r'name="_xsrf" value="([^"]+)"')


class LoginProvider:
    """An OAuth provider in which a person is logged in already: it sends everybody back at once."""

    def __init__(self) -> None:
        self.email = ""
        self.flower_port = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = urlsplit(self.path)
                if asked.path == "/v1/userinfo":
                    assert self.headers["authorization"] == "Bearer token-of-code-1"
                    self._send({"email": provider.email, "email_verified": True})
                    return
                state = parse_qs(asked.query)["state"][0]
                back = urlencode({"code": "code-1", "state": state})
                self.send_response(302)
                self.send_header("location", f"http://127.0.0.1:{provider.flower_port}/login?{back}")
                self.end_headers()

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                assert form["client_secret"] == ["flowers-secret"]
                self._send({"access_token": f"token-of-{form['code'][0]}"})

            def _send(self, answer: dict[str, object]) -> None:
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def provider() -> Iterator[LoginProvider]:
    made = LoginProvider()
    yield made
    made.stop()


class Person:
    """A browser that follows redirects and keeps every cookie."""

    def __init__(self, port: int) -> None:
        self._at = f"http://127.0.0.1:{port}"
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(jar)

    def ask(self, path: str, fields: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Return status, address and text of the page at which the browser ends."""
        body = None if fields is None else urlencode(fields).encode()
        try:
            with self._opener.open(f"{self._at}{path}", body, timeout=20) as reply:
                return reply.status, reply.url.removeprefix(self._at), reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.url or "", error.read().decode()


async def test_pages_are_seen_after_the_login_alone_and_timelines_bear_the_name(
    there: ByHand, redis_url: str, namespace: str, tmp_path: Path, provider: LoginProvider
) -> None:
    batch_id = await there.sealed(ids(1))
    words = (
        "--auth_provider=flower.views.auth.OktaLoginHandler",
        "--auth=ada@example.com",
        "--oauth2_key=flower",
        "--oauth2_secret=flowers-secret",
        "--oauth2_redirect_uri=http://127.0.0.1/login",
    )
    settings = {"FLOWER_OAUTH2_OKTA_BASE_URL": provider.url}
    with running_flower(redis_url, namespace, tmp_path, *words, **settings) as port:
        provider.flower_port = port
        provider.email = "mallory@example.com"
        stranger = Person(port)
        assert stranger.ask("/batchling")[0] == 403
        assert stranger.ask("/batches?partial=1")[0] == 403
        assert stranger.ask(f"/batch/{batch_id}/cancel", {})[0] == 403

        provider.email = "ada@example.com"
        ada = Person(port)
        assert ada.ask("/batchling")[0] == 200
        status, _, page = ada.ask("/batchling")
        assert (status, f"groq / {there.spec.model}" in page) == (200, True)
        asked = XSRF.search(ada.ask(f"/batch/{batch_id}/cancel")[2])
        assert asked is not None
        status, at, _ = ada.ask(f"/batch/{batch_id}/cancel", {"_xsrf": asked[1]})

    assert (status, at) == (200, f"/batch/{batch_id}?done=cancelled")
    assert (
        await there.batch(batch_id)
    ).error == f"Batch {batch_id} was cancelled by ada@example.com in Flower."
