"""docs/adding-an-interceptor.md: its example works as the only file that is added, and the places exist."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from batchling_client.errors import NotIntercepted
from batchling_client.intercept import probe, switch
from batchling_client.operate import installed_sdks, sdk_coverage
from batchling_client.wire.deployment.finding import Health
from tests.interceptors.fakes import PATH, FakeHandler, process_block, refusing, who

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding-an-interceptor.md").read_text(encoding="utf-8")
LIBRARIES = ROOT / "batchling_client" / "intercept" / "libraries"
PACKAGE = "batchling_client.intercept.libraries"
NO_CLIENTS = {"threads", "httpcore"}
"""What starts threads, and what httpx itself sends over."""


@dataclass
class Request:
    url: str
    body: bytes
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    def __init__(self, proxy: str = "") -> None:
        self.proxy = proxy

    def send(self, request: Request) -> Response:
        return Response(200, {}, b"sent to " + request.url.encode())


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch, nothing_intercepted: None) -> Iterator[Any]:
    """The library, and the page's interceptor installed on it."""
    library = ModuleType("acme_http")
    vars(library).update(Client=Client, Request=Request, Response=Response)
    monkeypatch.setitem(sys.modules, "acme_http", library)
    code = PAGE.partition("<!-- example: interceptor -->")[2].partition("```python\n")[2].partition("```")[0]
    interceptor: Any = ModuleType(f"{PACKAGE}.acme_http")
    interceptor.__package__ = PACKAGE
    exec(compile(code, "docs/adding-an-interceptor.md", "exec"), vars(interceptor))
    before = vars(Client)["send"]
    known = switch.interceptors()
    monkeypatch.setattr(switch, "interceptors", lambda: (*known, interceptor.INTERCEPTOR))
    switch.install()
    yield library
    switch.uninstall()
    assert vars(Client)["send"] is before


def test_the_example_catches_a_call_and_gives_the_handler_all_of_it(acme: Any) -> None:
    handler = FakeHandler()
    request = Request(f"https://api.acme.example:8443/a%20b{PATH}?q=1", b"{}", headers={"X-Key": "sk"})

    with process_block(handler):
        response = acme.Client().send(request)

    assert (type(response), response.status, who(response.body)) == (Response, 200, "batch")
    assert response.headers["content-length"] == str(len(response.body))
    [call] = handler.calls
    assert (call.host, call.path) == ("api.acme.example:8443", f"/a b{PATH}")
    assert (call.headers, call.body) == ({"x-key": "sk"}, b"{}")


@pytest.mark.parametrize("handler", [refusing(), FakeHandler(wanting=False)])
def test_the_example_sends_what_the_block_lets_pass(acme: Any, handler: FakeHandler) -> None:
    url = f"https://api.acme.example{PATH}"

    with process_block(handler):
        assert acme.Client().send(Request(url, b"{}")).body == f"sent to {url}".encode()
    assert acme.Client().send(Request(url, b"{}")).body == f"sent to {url}".encode()


async def test_the_example_s_probe_is_caught_unless_something_takes_the_method_away(
    acme: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await probe.check()
    with monkeypatch.context() as patch:
        patch.setattr(Client, "send", lambda client, request: Response(200, {}, b""))
        with pytest.raises(NotIntercepted, match="acme_http"):
            await probe.check()


def test_the_doctor_finds_sdks_that_require_the_example_s_library(
    acme: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metadata = "Metadata-Version: 2.4\nName: groq\nVersion: 9\nRequires-Dist: acme-http<3\n"
    (tmp_path / "groq-9.dist-info").mkdir()
    (tmp_path / "groq-9.dist-info" / "METADATA").write_text(metadata, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    [sdk] = installed_sdks.installed()

    covered = sdk_coverage.of_sdk(sdk, {})

    assert (sdk.blocking, sdk.awaiting, covered.health) == ("acme_http", "acme_http", Health.NOTE)


def test_every_file_holds_an_interceptor_and_says_what_becomes_of_its_calls() -> None:
    there = [path.stem for path in sorted(LIBRARIES.glob("*.py")) if path.stem != "__init__"]

    assert [importlib.import_module(f"{PACKAGE}.{name}").INTERCEPTOR for name in there] == [
        *switch.interceptors()
    ]
    for name, interceptor in zip(there, switch.interceptors(), strict=True):
        for library in interceptor.libraries:
            assert library.name.replace(".", "_") in (name, f"{name}2")
            caught = library.probe is not None
            assert caught + library.warned_of + (name in NO_CLIENTS) == 1
            assert bool(library.sdks) <= library.warned_of


def test_every_place_of_the_page_exists() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", PAGE, re.MULTILINE)
    places = [path for _, cell in rows for path in re.findall(r"`([^`]+)`", cell) if "acme" not in path]

    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert [path for path in places if not (ROOT / path).exists()] == []
    named = re.findall(r"`(_?[A-Z][A-Z_]+|[a-z]+_[a-z_]+)`", PAGE)
    folders = (ROOT / "batchling_client", ROOT / "tests" / "interceptors")
    code = "".join(path.read_text(encoding="utf-8") for each in folders for path in each.rglob("*.py"))
    assert [word for word in named if word not in code] == []
