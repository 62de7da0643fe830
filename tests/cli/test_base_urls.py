"""The doctor tries each base URL of the settings with a call that costs nothing, and keeps keys to themselves."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from batchling_client.operate import base_urls
from batchling_client.settings import ClientSettings
from batchling_client.wire.deployment.finding import Finding, Health
from batchling_client.wire.deployment.provider_settings import EndpointSettings
from batchling_client.wire.deployment.rehearsing import SANDBOX
from batchling_client.wire.routes import ROUTES, Route
from batchling_worker.sandbox import Sandbox

from .command import batchling, clean_environment

KEY = "sk-of-a-test"
SETTING = "BATCHLING_PROVIDERS__ACME__BASE_URL"
JSON = "application/json"


class Server:
    """A server with answers by path, which keeps what it was asked and with which key."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str, str]] = {}
        """Path -> status, body, and where a redirect leads."""
        self.seen: list[tuple[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.seen.append((self.path, self.headers.get("authorization", "")))
                status, body, target = server.answers.get(self.path, (404, '{"detail": "Not Found"}', ""))
                self.send_response(status)
                self.send_header("content-type", JSON)
                self.send_header("content-length", str(len(body)))
                if target:
                    self.send_header("location", target)
                self.end_headers()
                self.wfile.write(body.encode())

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
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def other() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


async def the_finding(name: str, base_url: str, environment: dict[str, str]) -> Finding:
    used = ClientSettings(providers={name: EndpointSettings(base_url=base_url)})
    [found] = await base_urls.tried(used, environment)
    assert found.check == f"provider {name}"
    assert found.mend or found.health is Health.OK
    assert not any(key in str(found) for key in environment.values())
    return found


def key_variable(route: Route) -> str:
    return route.variables["authorization" if route.signed else route.api_key_header]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.provider)
async def test_every_provider_is_asked_for_something_that_it_has(route: Route, sandbox: Sandbox) -> None:
    name, variable = route.provider, key_variable(route)
    base_url = sandbox.base_url(name)

    found = await the_finding(name, base_url, {variable: KEY})
    keyless = await the_finding(name, base_url, {})
    refused = await the_finding(name, base_url, {variable: "invalid-key"})

    assert (found.health, keyless.health) == (Health.OK, Health.OK)
    assert found.says.endswith("it answers")
    if route.free_call.path:
        assert refused.health is Health.FAILURE
        assert f"refuses the key in {variable}" in refused.says
    assert sandbox.ledger().totals.n_batches == 0


async def test_a_secret_that_signs_calls_is_never_sent(server: Server) -> None:
    server.answers["/model-invocation-jobs?maxResults=1"] = (403, '{"message": "Missing Token"}', "")
    found = await the_finding("bedrock", server.url, {"BATCHLING_AWS_CREDENTIALS": "AKIA:secret"})
    assert found.health is Health.OK
    assert server.seen == [("/model-invocation-jobs?maxResults=1", "")]


async def test_the_workers_own_key_comes_first(server: Server) -> None:
    server.answers["/v1/batches?limit=1"] = (200, '{"data": []}', "")
    keys = {"BATCHLING_PROVIDERS__ACME__API_KEY": "sk-workers", "ACME_API_KEY": KEY, "OPENAI_API_KEY": "sk-o"}
    assert (await the_finding("acme", server.url, keys)).health is Health.OK
    assert server.seen == [("/v1/batches?limit=1", "Bearer sk-workers")]


@pytest.mark.parametrize(
    ("status", "body", "health", "words"),
    [
        (200, "<!doctype html><title>Welcome</title>", Health.FAILURE, "an HTML page"),
        (200, "ok", Health.FAILURE, "something other than JSON"),
        (404, "<html>404</html>", Health.FAILURE, "no list of batches (404)"),
        (405, "", Health.FAILURE, "no list of batches (405)"),
        (401, "{}", Health.FAILURE, "refuses the key in ACME_API_KEY (401)"),
        (403, "<html>", Health.FAILURE, "refuses the key in ACME_API_KEY (403)"),
        (400, '{"error": {"status": "API_KEY_INVALID"}}', Health.FAILURE, "refuses the key"),
        (503, "<html>", Health.NOTE, "answers with an error (503)"),
        (429, "{}", Health.OK, "it answers (429)"),
    ],
)
async def test_the_answers_of_a_server_are_distinguished(
    server: Server, status: int, body: str, health: Health, words: str
) -> None:
    server.answers["/v1/batches?limit=1"] = (status, body, "")
    found = await the_finding("acme", server.url, {"ACME_API_KEY": KEY})
    assert (found.health, words in found.says) == (health, True), found
    if health is not Health.OK and "key" not in words:
        assert SETTING in found.mend
    if status in (404, 405) or status == 200:
        assert f"GET {server.url}/v1/batches?limit=1" in found.mend


async def test_a_server_without_a_list_of_batches_is_not_taken_for_a_wrong_path(server: Server) -> None:
    server.answers["/v1/models"] = (200, '{"data": []}', "")
    right = await the_finding("acme", f"{server.url}/v1", {"ACME_API_KEY": KEY})
    wrong = await the_finding("acme", f"{server.url}/api/v1", {"ACME_API_KEY": KEY})
    assert (right.health, wrong.health) == (Health.NOTE, Health.FAILURE)
    assert "has models and no list of batches" in right.says


async def test_a_redirect_is_never_followed_with_the_key(server: Server, other: Server) -> None:
    path = "/v1/batches?limit=1"
    server.answers[path] = (302, "", f"{other.url}{path}")
    elsewhere = await the_finding("acme", server.url, {"ACME_API_KEY": KEY})
    server.answers[path] = (307, "", "/moved/v1/batches")
    here = await the_finding("acme", server.url, {"ACME_API_KEY": KEY})
    server.answers[path] = (302, "", "http://[broken")
    broken = await the_finding("acme", server.url, {"ACME_API_KEY": KEY})

    assert (elsewhere.health, here.health, broken.health) == (Health.FAILURE, Health.NOTE, Health.FAILURE)
    assert SETTING in elsewhere.mend
    assert other.seen == []
    assert {asked for asked, _ in server.seen} == {path}


async def test_a_server_that_says_nothing_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_urls, "PATIENCE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = await the_finding("acme", f"http://127.0.0.1:{silent.getsockname()[1]}", {})
    assert found.health is Health.FAILURE
    assert "cannot be reached: no answer within" in found.says
    assert SETTING in found.mend


@pytest.mark.parametrize("key", ["sk-\u00e9", "sk-a\nx: y"])
async def test_a_key_that_no_header_takes_is_named_by_its_variable(server: Server, key: str) -> None:
    found = await the_finding("acme", server.url, {"ACME_API_KEY": key})
    assert (found.health, found.mend) == (Health.FAILURE, "Correct ACME_API_KEY.")
    assert server.seen == []


async def test_the_doctor_tries_them_though_redis_is_away(server: Server, short_home: Path) -> None:
    server.answers["/v1/batches?limit=1"] = (200, '{"data": []}', "")
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home), SETTING: server.url, "ACME_API_KEY": KEY}
    env["BATCHLING_PROVIDERS__OPENAI__BASE_URL"] = "http://127.0.0.1:1"

    seen = await batchling("doctor", "--json", env=env)

    found = {each["check"]: each for each in json.loads(seen.out)["findings"]}
    assert (seen.code, found["provider acme"]["status"]) == (1, "ok")
    assert found["provider openai"]["status"] == "failure"
    assert "cannot be reached: Connection refused" in found["provider openai"]["says"]
    assert "BATCHLING_PROVIDERS__OPENAI__BASE_URL" in found["provider openai"]["mend"]
    assert server.seen == [("/v1/batches?limit=1", f"Bearer {KEY}")]
    assert KEY not in seen.out + seen.err


async def test_in_a_rehearsal_the_sandbox_is_asked_in_their_place(
    server: Server, sandbox: Sandbox, short_home: Path
) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home), SETTING: server.url, "ACME_API_KEY": KEY}
    env |= {SANDBOX: sandbox.url, "BATCHLING_PROVIDERS__GROQ__BASE_URL": server.url + "/groq"}

    seen = await batchling("doctor", "--json", env=env, prelude="import batchling; ")

    found = {each["check"]: each for each in json.loads(seen.out)["findings"]}
    for name in ("acme", "groq"):
        assert found[f"provider {name}"]["status"] == "ok", found
        assert "this is a rehearsal" in found[f"provider {name}"]["says"]
    assert server.seen == []
    assert set(sandbox.ledger().calls) == {"openai GET /batches", "groq GET /batches"}


def test_of_the_hosts_in_redis_only_a_providers_own_are_asked_and_not_those_that_customers_name() -> None:
    used = ClientSettings(providers={"mistral": EndpointSettings(base_url="https://gateway.example.com")})
    of_lanes = [
        ("groq", "api.groq.com"),
        ("groq", "api.groq.com"),
        ("groq", "evil.example.com"),
        ("openai", "api.groq.com"),
        ("mistral", "api.mistral.ai"),
        ("azure", "evil.openai.azure.com"),
        ("azure", "*.openai.azure.com"),
        ("nobody", "api.groq.com"),
    ]

    found = base_urls.hosts_in_use(used, of_lanes)

    assert [(route.provider, host) for route, host in found] == [("groq", "api.groq.com")]


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"GROQ_API_KEY": KEY}, "is answered, with the key in GROQ_API_KEY"),
        ({}, "no key to try it with is set here"),
    ],
)
async def test_a_provider_in_use_is_asked_once_for_its_list_and_says_what_was_tried(
    server: Server, environment: dict[str, str], says: str
) -> None:
    [groq] = [route for route in ROUTES if route.provider == "groq"]
    server.answers[groq.free_call.path] = (200, '{"data": []}', "") if environment else (401, "{}", "")

    found = await base_urls.Trial(groq, server.url, environment, is_own=True).finding()

    assert found.health is Health.OK
    assert f"GET {server.url}/openai/v1/batches?limit=1" in found.says
    assert says in found.says
    assert server.seen == [(groq.free_call.path, f"Bearer {KEY}" if environment else "")]
