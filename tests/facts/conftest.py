"""A sandbox with a frozen clock, so that tests can see every state of a batch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from groq import Groq
from openai import OpenAI

from batchling_worker.sandbox import Limits, Sandbox


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


@pytest.fixture
def openai(sandbox: Sandbox) -> Iterator[OpenAI]:
    with OpenAI(base_url=sandbox.base_url("openai") + "/v1", api_key="sk-one", max_retries=0) as client:
        yield client


@pytest.fixture
def groq(sandbox: Sandbox) -> Iterator[Groq]:
    with Groq(base_url=sandbox.base_url("groq"), api_key="gsk-one", max_retries=0) as client:
        yield client
