"""Fixtures of the pipeline tests: a sandbox and a deployment of their own for each test."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from batchling_worker.sandbox import Sandbox
from tests.deployment import MODEL, SLOW_MODEL, Deployment
from tests.forks import Forks
from tests.form import Ability, names


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(speeds={MODEL: 0.2, SLOW_MODEL: 0.8, "*": 0.2}) as running:
        yield running


@pytest.fixture(scope="package")
def forks() -> Iterator[Forks]:
    with Forks() as server:
        yield server


@pytest.fixture(params=names(Ability.OPENAI_FILES))
def provider(request: pytest.FixtureRequest) -> str:
    """Those whose adapter and emulator are the common ones: what they share need not be met by all the others."""
    chosen: str = request.param
    return chosen


@pytest.fixture
async def deployment(sandbox: Sandbox, forks: Forks) -> AsyncIterator[Deployment]:
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        async with Deployment(home=Path(home), sandbox=sandbox, forks=forks) as running:
            yield running
