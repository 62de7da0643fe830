"""Fixtures of the death tests: a sandbox and a deployment of their own for each test."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from batchling_worker.sandbox import Sandbox
from tests.deployment import MODEL, SLOW_MODEL, Deployment


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(speeds={MODEL: 0.2, SLOW_MODEL: 0.6, "*": 0.2}) as running:
        yield running


@pytest.fixture
async def deployment(sandbox: Sandbox) -> AsyncIterator[Deployment]:
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        async with Deployment(home=Path(home), sandbox=sandbox) as running:
            yield running
