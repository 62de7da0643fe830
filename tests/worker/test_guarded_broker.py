"""The guard of Celery's messages: it delivers the steps that a worker sends, and nothing else to their queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state as worker_state
from celery.worker.control import Panel
from kombu import matcher

from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.keys import WIRE_VERSION
from batchling_client.wire.scripts import DueBatch
from batchling_client.wire.states import BatchState
from batchling_worker.app import make_app
from batchling_worker.runtime import guarded_broker, wire_versions
from batchling_worker.runtime.dispatch import POLLS_A_MESSAGE, Dispatch
from batchling_worker.settings import WorkerSettings
from tests.pipeline.test_fuzzed_messages import BROKEN
from tests.redis_server import redis_server

QUEUE = wire_versions.queue_of(WIRE_VERSION)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home = tmp_path_factory.mktemp("guard")
    with redis_server() as url:
        yield make_app(WorkerSettings(redis_url=url, home=home))


@pytest.fixture
def read(app: Any) -> Iterator[Callable[[], Any]]:
    """Reads the next message of the queue as a worker's channel does; raises `Empty` if it was dropped."""
    with app.connection_for_read() as connection:
        yield lambda: connection.default_channel._get(QUEUE)


def due(state: BatchState | None, *, collected: bool = False) -> DueBatch:
    return DueBatch(batch_id=new_batch_id(), token=1 << 50, state=state, n_missed=1, collected=collected)


@pytest.mark.parametrize("state", [*BatchState, None])
@pytest.mark.parametrize("collected", [False, True])
def test_every_step_that_a_worker_sends_is_delivered(
    app: Any, read: Callable[[], Any], state: BatchState | None, collected: bool
) -> None:
    claims = [
        due(state, collected=collected)
        for _ in range(POLLS_A_MESSAGE if state is BatchState.SUBMITTED else 1)
    ]
    Dispatch(app, app.parts.runtime).send(claims, WIRE_VERSION)

    assert read()["headers"]["task"].startswith("batchling.")


@pytest.mark.parametrize("message", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_message_is_dropped(app: Any, read: Callable[[], Any], message: bytes) -> None:
    with app.connection_for_write() as connection:
        connection.default_channel.client.lpush(QUEUE, message)

    with pytest.raises(Empty):
        read()


def test_a_worker_obeys_no_command_that_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Panel, "data", dict(Panel.data))
    monkeypatch.setattr(matcher.registry, "_matchers", dict(matcher.registry._matchers))

    guarded_broker.limit_commands("read")

    assert set(Panel.data) == {*guarded_broker.READS, "hello"}
    with pytest.raises(matcher.MatcherNotInstalled):
        matcher.match("w@host", "(.|.)*!", "pcre")  # type: ignore[arg-type]


def test_a_worker_that_starts_revokes_no_task_of_another(app: Any) -> None:
    state = SimpleNamespace(hostname="w0@test", app=app)

    answer = guarded_broker._hello(state, "w1@test", revoked=["x"])

    assert answer is not None
    assert answer["revoked"] == []
    assert not worker_state.revoked
