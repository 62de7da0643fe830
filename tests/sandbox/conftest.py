"""A sandbox with a frozen clock, and a caller that speaks plain HTTP to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from batchling_worker.sandbox import Limits, Sandbox

from .caller import Caller


@pytest.fixture(scope="module")
def served() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(served: Sandbox) -> Sandbox:
    served.reset()
    served.speeds.clear()
    served.limits = Limits()
    served.clock.freeze()
    return served


@pytest.fixture(params=["openai", "groq"])
async def caller(request: pytest.FixtureRequest, sandbox: Sandbox) -> AsyncIterator[Caller]:
    async with Caller(sandbox, str(request.param)) as caller:
        yield caller
