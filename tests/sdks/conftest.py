"""One sandbox, one Redis and one worker for all tests; each test has a key, and so an account, of its own."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from batchling_client.block.run_handler import RunHandler
from batchling_client.intercept import interceptor
from batchling_client.intercept.interceptor import HttpCall, HttpReply, PassThrough
from batchling_worker.sandbox import Sandbox
from tests.deployment import Deployment

from . import network
from .asking import Way
from .books import Books
from .caller import Caller

Saw = Callable[[Caller, str], None]
"""Record for the table at the end which promise of a caller is tested."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def deployment() -> AsyncIterator[Deployment]:
    """Run a deployment that tries rows once, so that only an SDK could retry; `acme` exists only in settings."""
    with tempfile.TemporaryDirectory(prefix="bl-") as home, Sandbox(speeds={"*": 0.05}) as sandbox:
        async with Deployment(home=Path(home), sandbox=sandbox) as running:
            running.env["BATCHLING_PROVIDERS__ACME__BASE_URL"] = sandbox.base_url("openai")
            running.worker(max_attempts="1", lease_seconds="30")
            yield running
            assert "Traceback" not in running.worker_logs()


@pytest.fixture
def sandbox(deployment: Deployment) -> Iterator[Sandbox]:
    yield deployment.sandbox
    deployment.sandbox.faults.clear()


@pytest.fixture(autouse=True)
def environment(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables of `batchify`."""
    monkeypatch.setenv("BATCHLING_REDIS_URL", deployment.url)
    monkeypatch.setenv("BATCHLING_HOME", str(deployment.home))
    monkeypatch.setenv("BATCHLING_PROVIDERS__ACME__BASE_URL", deployment.sandbox.base_url("openai"))
    interceptor.warned.clear()


@pytest.fixture
def key() -> str:
    """Return an API key that no other test has."""
    return f"sk-{secrets.token_hex(12)}"


@pytest.fixture
def saw(record_property: Callable[[str, object], None]) -> Saw:
    """Return a function that records the subject of a test; if the test fails, the table names it."""
    return lambda caller, what: record_property(caller.title, what)


@pytest.fixture(params=list(Way), ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """Return each kind of block in turn."""
    way: Way = request.param
    return way


@pytest.fixture(autouse=True)
def books(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    """Return the books of this test; fail if they hold a call at full price."""
    with network.refused() as slipped:
        books = Books(sandbox=sandbox, slipped=slipped)
        answer, answer_blocking = RunHandler.answer, RunHandler.answer_blocking

        async def counted(run: RunHandler, call: HttpCall) -> HttpReply | PassThrough:
            books.calls.append(call)
            return await answer(run, call)

        def counted_blocking(run: RunHandler, call: HttpCall) -> HttpReply | PassThrough:
            books.calls.append(call)
            return answer_blocking(run, call)

        monkeypatch.setattr(RunHandler, "answer", counted)
        monkeypatch.setattr(RunHandler, "answer_blocking", counted_blocking)
        yield books
        books.check_nothing_at_full_price()
