"""Fixtures of the tests of roles: a deployment with a Redis user for each role, on either server."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from batchling_worker.sandbox import Sandbox
from tests.deployment import MODEL, SLOW_MODEL

from .ruled import SERVERS, Ruled


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(speeds={MODEL: 0.3, SLOW_MODEL: 600.0}) as running:
        yield running


@pytest.fixture(params=SERVERS)
async def ruled(request: pytest.FixtureRequest, sandbox: Sandbox) -> AsyncIterator[Ruled]:
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        async with Ruled(home=Path(home), sandbox=sandbox, which=request.param) as running:
            yield running
