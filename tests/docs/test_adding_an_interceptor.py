"""docs/adding-an-interceptor.md: its example works, and every interceptor is in the places that it lists."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from batchling_client.intercept import probe, switch
from batchling_client.operate import sdk_coverage
from tests.interceptors.fakes import PATH, FakeHandler, process_block, refusing, who

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding-an-interceptor.md").read_text(encoding="utf-8")
LIBRARIES = ROOT / "batchling_client" / "intercept" / "libraries"
PACKAGE = "batchling_client.intercept.libraries"
WITHOUT_PROBE = {"threads", "httpcore"}
"""No client library: what starts threads, and what httpx itself sends over."""


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
    def send(self, request: Request) -> Response:
        return Response(200, {}, b"sent to " + request.url.encode())


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch, nothing_intercepted: None) -> Iterator[Any]:
    """The library, and the page's interceptor installed on it."""
    library = ModuleType("acme_http")
    vars(library).update(Client=Client, Response=Response)
    monkeypatch.setitem(sys.modules, "acme_http", library)
    code = PAGE.partition("<!-- example: interceptor -->")[2].partition("```python\n")[2].partition("```")[0]
    interceptor: Any = ModuleType(f"{PACKAGE}.acme_http")
    interceptor.__package__ = PACKAGE
    exec(compile(code, "docs/adding-an-interceptor.md", "exec"), vars(interceptor))
    before = vars(Client)["send"]
    interceptor.install()
    yield library
    interceptor.uninstall()
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


def test_every_interceptor_is_in_the_registry_and_can_be_switched() -> None:
    there = {f"{PACKAGE}.{path.stem}" for path in LIBRARIES.glob("*.py") if path.stem != "__init__"}

    assert set(switch.ADAPTERS) == there
    for name in switch.ADAPTERS:
        module = importlib.import_module(name)
        assert callable(module.install)
        assert callable(module.uninstall)


def test_every_caught_library_has_its_probe_its_mark_and_its_line_in_the_doctor() -> None:
    warned_of = {name.replace(".", "_") for name in switch.WARNED_OF}
    caught = {name.rpartition(".")[2] for name in switch.ADAPTERS} - warned_of - WITHOUT_PROBE

    assert {name.rstrip("2") for name in sdk_coverage.MODULES} == caught
    assert set(sdk_coverage.MODULES.values()) <= set(probe._PROBES)
    assert probe._PROBES.keys() == probe._MARKS.keys()
    assert probe._ASKED_FIRST.keys() <= probe._PROBES.keys()


def test_every_caught_library_loads_batchling_in_a_rehearsal() -> None:
    tree = ast.parse((ROOT / "batchling_client" / "startup" / "sitecustomize.py").read_text(encoding="utf-8"))
    [libraries] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LIBRARIES"
    ]
    assert isinstance(libraries, ast.Call)

    loaded = set(ast.literal_eval(libraries.args[0]))

    assert set(sdk_coverage.MODULES) | (switch.WARNED_OF - {"http.client"}) <= loaded


def test_every_place_of_the_page_exists() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", PAGE, re.MULTILINE)
    places = [path for _, cell in rows for path in re.findall(r"`([^`]+)`", cell) if "acme" not in path]

    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert [path for path in places if not (ROOT / path).exists()] == []
    named = re.findall(r"`(_?[A-Z][A-Z_]+)`", PAGE)
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "batchling_client").rglob("*.py"))
    assert [word for word in named if word not in code] == []
