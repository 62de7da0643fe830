"""Fixtures of the pages: one Flower a session, over one namespace that the tests fill by scripts."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import Keys
from tests.death.conftest import deployment, sandbox
from tests.scripts.byhand import ByHand
from tests.scripts.conftest import redis_url

from .browser import Browser, running_flower

__all__ = ["deployment", "redis_url", "sandbox"]


@pytest.fixture(scope="session")
def namespace() -> str:
    return f"t-{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def flower_port(redis_url: str, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    # Flower's API is open to every page: batchling's pages must not be.
    open_api = {"FLOWER_UNAUTHENTICATED_API": "true"}
    with running_flower(redis_url, namespace, tmp_path_factory.mktemp("flower"), **open_api) as port:
        yield port


@pytest.fixture
def browser(flower_port: int) -> Browser:
    return Browser(flower_port)


@pytest.fixture
async def there(redis_url: str, namespace: str) -> AsyncIterator[ByHand]:
    """The scripts of the namespace that Flower shows, in a lane of the test's own."""
    redis = connect(redis_url)
    byhand = ByHand(redis, Keys(namespace))
    byhand.use_model(f"m-{secrets.token_hex(6)}")
    yield byhand
    await redis.aclose()
