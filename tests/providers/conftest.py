"""Adapters as they ship, against a sandbox whose time stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from batchling_worker import providers
from batchling_worker.engine.accounts import no_cookies
from batchling_worker.provider import Account
from batchling_worker.sandbox import Limits, Sandbox
from tests.form import Ability, names

from .desk import Desk, credential
from .port import hold_to_the_port
from .wire import Wire

KEY = "sk-canary-5f1c2d"


@pytest.fixture(scope="package")
def served() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="package", autouse=True)
def port() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        hold_to_the_port(patch)
        yield


@pytest.fixture
def sandbox(served: Sandbox) -> Sandbox:
    served.reset()
    served.limits = Limits(min_rows=1)
    served.speeds.set({"*": 2.0})
    served.clock.freeze()
    return served


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    # As workers have it.
    async with httpx.AsyncClient(
        timeout=httpx.Timeout(30.0), trust_env=False, verify=False, cookies=no_cookies()
    ) as client:
        yield client


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`name` is each provider that has the abilities in the test's mark `needs`."""
    parametrized = {
        word for mark in metafunc.definition.iter_markers("parametrize") for word in _names_of(mark)
    }
    if "name" in metafunc.fixturenames and "name" not in parametrized:
        needed = [one for mark in metafunc.definition.iter_markers("needs") for one in mark.args]
        if "wired" in metafunc.fixturenames:
            needed.append(Ability.OPENAI_FILES)
        metafunc.parametrize("name", names(*needed))


def _names_of(mark: pytest.Mark) -> list[str]:
    names = mark.args[0]
    return names.split(",") if isinstance(names, str) else list(names)


def staging(sandbox: Sandbox, name: str) -> dict[str, Any]:
    """Where files lie of a provider that keeps none itself, as its emulator says."""
    prefix = f"BATCHLING_PROVIDERS__{name.upper()}__"
    said = {
        key.removeprefix(prefix).lower(): value
        for key, value in sandbox.settings().items()
        if key.startswith(prefix)
    }
    return {key: value for key, value in said.items() if key in ("staging", "staging_url", "role_arn")}


@pytest.fixture
def desk(sandbox: Sandbox, http: httpx.AsyncClient, name: str) -> Desk:
    account = Account(
        base_url=sandbox.base_url(name),
        headers=credential(name, KEY),
        http=http,
        digest="a" * 20,
        **staging(sandbox, name),
    )
    return Desk(provider=providers.load(name), account=account)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire() as wire:
        yield wire


@pytest.fixture
def wired(wire: Wire, http: httpx.AsyncClient, name: str) -> Desk:
    """Every provider that follows OpenAI's files in turn, at the end of a bare wire."""
    account = Account(base_url=wire.url, headers=credential(name, KEY), http=http, digest="a" * 20)
    return Desk(provider=providers.load(name), account=account)
