"""Fixtures of the command tests: a sandbox, a deployment, and a file with functions to run."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from batchling_worker.sandbox import Sandbox
from tests.deployment import MODEL, SLOW_MODEL, Deployment
from tests.forks import Forks

SCRIPT = """
import asyncio
import sys

import click
import httpx

URL = "https://api.groq.com/openai/v1/chat/completions"


async def ask(text, model="llama-3.1-8b-instant"):
    async with httpx.AsyncClient(headers={"authorization": "Bearer gsk-of-a-test"}) as http:
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        return await http.post(URL, json=body)


async def answers(n="2", *, model="llama-3.1-8b-instant"):
    replies = await asyncio.gather(*(ask(f"question {i}", model) for i in range(int(n))))
    print("statuses", *(reply.status_code for reply in replies))


async def words(*args, **kwargs):
    print(args, sorted(kwargs.items()))


async def breaks():
    raise ValueError("a mistake of the user")


@click.command()
def command():
    pass


async def yields():
    yield 1


NUMBER = 1
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(speeds={MODEL: 0.3, SLOW_MODEL: 60.0}) as running:
        yield running


@pytest.fixture
async def deployment(sandbox: Sandbox) -> AsyncIterator[Deployment]:
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        async with Deployment(home=Path(home), sandbox=sandbox) as running:
            yield running


@pytest.fixture(scope="module")
def sandbox_of_all() -> Iterator[Sandbox]:
    with Sandbox(speeds={"*": 0.1}) as running:
        yield running


@pytest.fixture(scope="module")
def shared_env(sandbox_of_all: Sandbox) -> Iterator[dict[str, str]]:
    """The environment of one deployment, which the tests of a module share; each has an event loop of its own."""
    with Forks() as forks, tempfile.TemporaryDirectory(prefix="bl-") as home, asyncio.Runner() as runner:
        running = Deployment(home=Path(home), sandbox=sandbox_of_all, forks=forks)
        runner.run(running.__aenter__())
        try:
            running.fork()
            yield running.env
        finally:
            runner.run(running.__aexit__())


@pytest.fixture
def short_home() -> Iterator[Path]:
    """A BATCHLING_HOME with room for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        yield Path(home)
