"""Fixtures of the views: the scripts of one namespace, and the lists over it."""

from __future__ import annotations

import pytest

from batchling_client.views.batch_list import BatchLists
from tests.scripts.byhand import ByHand
from tests.scripts.conftest import byhand, redis_url

__all__ = ["byhand", "redis_url"]


@pytest.fixture
def lists(byhand: ByHand) -> BatchLists:
    return BatchLists(byhand.redis, byhand.keys)
