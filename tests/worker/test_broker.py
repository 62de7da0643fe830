"""What Celery's messages leave behind: nothing that could end a worker, and nothing in Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redis import Redis

from batchling_worker.app import make_app
from batchling_worker.runtime import tasks
from batchling_worker.settings import WorkerSettings
from tests.redis_server import redis_server


def a_message_in_hand(url: str, home: Path) -> Any:
    """A broker connection that has taken a message and not acknowledged it yet."""
    app = make_app(WorkerSettings(redis_url=url, home=home))
    app.send_task(tasks.SUBMIT, args=["b0", 1])
    connection: Any = app.connection_for_read()
    channel, message = connection.default_channel, None
    while message is None:
        message = channel.basic_get(app.conf.task_default_queue)
    return connection


def test_a_worker_outlives_a_redis_that_goes_away_while_a_message_is_in_its_hands(tmp_path: Path) -> None:
    with redis_server() as url:
        connection = a_message_in_hand(url, tmp_path)
    # What kombu does first with a connection that broke.
    connection.transport.client = None
    connection.release()


def test_no_copy_of_a_message_stays_in_redis(tmp_path: Path) -> None:
    with redis_server() as url:
        connection = a_message_in_hand(url, tmp_path)
        with Redis.from_url(url) as redis:
            kinds = {name: redis.type(name) for name in redis.scan_iter(match="*")}
        connection.release()
    assert kinds
    assert set(kinds.values()) == {b"set"}, kinds
