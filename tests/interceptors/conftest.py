import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from batchling_client.intercept import interceptor

from .fakes import Upstream, sends


@pytest.fixture(scope="session")
def running_upstream() -> Iterator[Upstream]:
    server = Upstream()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def upstream(running_upstream: Upstream) -> Upstream:
    running_upstream.seen.clear()
    return running_upstream


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yield httpx and httpx2 in turn, and hold every test to leaving both classes as it found them."""
    module = importlib.import_module(request.param)
    before = sends(module)
    yield module
    assert sends(module) == before


@pytest.fixture(autouse=True)
def fresh_warnings() -> None:
    interceptor.warned.clear()


@pytest.fixture(autouse=True)
def libraries_as_they_were(nothing_intercepted: None) -> None:
    """Start every test here with unpatched libraries, which many of them compare with."""
