"""Why requests wait is said to the program that waits: within seconds, once for each cause, however many batches."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from batchling_client import DeadlinePassed, Run, batchify
from batchling_client.block.parameters import BlockOptions
from batchling_client.block.run import handler_of
from batchling_client.block.run_handler import RunHandler
from batchling_client.operate import worker_presence
from batchling_client.progress import overdue
from batchling_client.progress.display import Watch
from batchling_client.views.inspection import Inspection
from batchling_client.wire import sealing
from batchling_client.wire.deployment import seal_key_files
from batchling_client.wire.deployment.rehearsing import SANDBOX
from batchling_client.wire.keys import BatchId, Keys, RunId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import WorkerPresence
from tests.waiting import wait_until

from .answerer import Answerer
from .asking import ask, batches_of, error_of
from .conftest import RedisServer

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def byhand(redis_server: RedisServer, namespace: str) -> AsyncIterator[Answerer]:
    """A worker's view of Redis, which does nothing."""
    worker = Answerer(redis_server.url, namespace)
    yield worker
    await worker.redis.aclose()


async def batch_ids(worker: Answerer, n: int) -> list[BatchId]:
    """Return the batches of the deployment, once there are that many."""

    async def opened() -> bool:
        return int(await worker.redis.zcard(worker.keys.batches)) >= n

    await wait_until(opened, description=f"{n} batches are open")
    return [BatchId(name.decode()) for name in await worker.redis.zrange(worker.keys.batches, 0, -1)]


async def hold(worker: Answerer, batch_id: BatchId, why: str) -> None:
    await worker.redis.hset(worker.keys.batch(batch_id), "error", why)


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [one.message for one in caplog.records if one.levelno >= logging.WARNING and words in one.message]


async def test_a_cause_is_warned_of_once_however_many_batches_it_holds(
    byhand: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    async with batchify(batch_size=1, batch_window_seconds=60, live_display=False) as run:
        calls = [asyncio.create_task(ask(run, f"prompt {n}")) for n in range(4)]
        first, *rest = await batch_ids(byhand, 4)
        await hold(byhand, first, "401 no such key (request req_1)")
        await wait_until(lambda: bool(said(caplog, "401")), description="it is said", within_s=10)
        for n, batch_id in enumerate(rest):
            await hold(byhand, batch_id, f"401 no such key (request req_9{n})")
        await hold(byhand, rest[-1], "the quota is used up")
        await wait_until(lambda: bool(said(caplog, "quota")), description="another cause", within_s=10)
        assert any("quota is used up" in reason for reason in run.progress.reasons)
        for call in calls:
            call.cancel()
    assert len(said(caplog, "401")) == 1


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("the quota of enqueued tokens is full.", "waits: the quota of enqueued tokens is full."),
        ("", "was not submitted yet: it was open for more requests (batch_window_seconds)."),
    ],
)
async def test_a_deadline_says_why_the_batch_waited(
    byhand: Answerer, monkeypatch: pytest.MonkeyPatch, reason: str, words: str
) -> None:
    monkeypatch.setattr(overdue, "LOOK_S", 60.0)
    async with batchify(batch_window_seconds=60, deadline=600, live_display=False) as run:
        first = asyncio.create_task(ask(run, "0"))
        [batch_id] = await batch_ids(byhand, 1)
        await hold(byhand, batch_id, reason)
        monkeypatch.setattr(handler_of(run)._asking, "_options", BlockOptions(deadline_s=0.2))
        replies = await asyncio.gather(*(ask(run, prompt) for prompt in ("1", "2")))
        first.cancel()
    for reply in replies:
        error = error_of(reply)
        assert (reply.status, error["code"]) == (504, "deadline_passed")
        assert error["message"] == f"{DeadlinePassed.sentence} Batch {batch_id} {words}"


async def test_a_deadline_passes_though_redis_gives_no_reason(
    byhand: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unable(run: RunHandler) -> list[Batch]:
        raise ConnectionError

    monkeypatch.setattr(RunHandler, "batches", unable)
    async with batchify(batch_window_seconds=60, deadline=0.2, live_display=False) as run:
        reply = await ask(run)
    assert error_of(reply)["message"] == DeadlinePassed.sentence


PLAIN = """
import asyncio, threading
from batchling_client import batchify
from tests.client.asking import a_call, handler_of

def call(run):
    try:
        handler_of(run).answer_blocking(a_call())
    except asyncio.CancelledError:
        pass

with batchify(batch_window_seconds=60, live_display=False) as run:
    threading.Thread(target=call, args=[run], daemon=True).start()
    input()
    handler_of(run).end.release()
"""


async def test_a_plain_block_without_a_display_says_it_on_stderr(byhand: Answerer) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PLAIN), cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdin is not None
    assert program.stderr is not None
    try:
        (batch_id,) = await batch_ids(byhand, 1)
        await hold(byhand, batch_id, "the key is refused")
        async with asyncio.timeout(20):
            while b"the key is refused" not in await program.stderr.readline():
                pass
    finally:
        program.stdin.write(b"\n")
        await program.communicate()


def announce(server: RedisServer, namespace: str, public_key: str) -> None:
    keys = Keys(namespace)
    worker = WorkerPresence(
        name="w1", pid=1, version="0", pool="threads", seal_public_key=sealing.digest(public_key)
    )
    with server.client() as client:
        client.set(keys.worker("w1"), worker.encode(), ex=60)
        client.zadd(keys.workers, {"w1": 1})
        client.expire(keys.workers, 60)


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_presence, "PATIENCE_S", 0.1)
    monkeypatch.setattr(worker_presence, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(worker_presence, "AGAIN_EVERY_S", 0.05)


async def test_a_worker_that_dies_in_the_middle_of_a_run_is_missed(
    byhand: Answerer,
    redis_server: RedisServer,
    namespace: str,
    tmp_path: Path,
    quick_looks: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    announce(redis_server, namespace, seal_key_files.stored_pair(tmp_path)[0])
    async with batchify(batch_window_seconds=60, live_display=False) as run:
        asking = asyncio.create_task(ask(run))
        await batch_ids(byhand, 1)
        assert not said(caplog, "No worker is alive")
        await byhand.redis.unlink(byhand.keys.worker("w1"))
        await wait_until(lambda: bool(said(caplog, "No worker is alive")), description="it is said")
        asking.cancel()
    assert len(said(caplog, "No worker is alive")) == 1


async def test_a_redis_that_is_full_is_named_to_those_who_wait(
    own_redis: RedisServer,
    namespace: str,
    tmp_path: Path,
    quick_looks: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    announce(own_redis, namespace, seal_key_files.stored_pair(tmp_path)[0])
    async with batchify(batch_window_seconds=60, redis_url=own_redis.url, live_display=False) as run:
        asking = asyncio.create_task(ask(run))

        async def queued(run: Run) -> bool:
            return bool(await batches_of(run))

        await wait_until(lambda: queued(run), description="it is queued")
        with own_redis.client() as client:
            client.config_set("maxmemory", 1)
            await wait_until(lambda: bool(said(caplog, "Redis is full")), description="it is said")
            client.config_set("maxmemory", 0)
        asking.cancel()


async def test_a_look_at_many_batches_reads_only_those_that_have_changed(byhand: Answerer) -> None:
    async with batchify(batch_window_seconds=60, live_display=False) as run:
        asking = asyncio.create_task(ask(run))
        (one,) = await batch_ids(byhand, 1)
        asking.cancel()
    fields = await byhand.redis.hgetall(byhand.keys.batch(one))
    other = RunId("of-many-batches")
    names = [BatchId(f"b{n:04}") for n in range(150)]
    for name in names:
        key = byhand.keys.batch(name)
        await byhand.redis.hset(key, mapping={**fields, b"id": name})
        await byhand.redis.expire(key, 60)
    await byhand.redis.sadd(byhand.keys.run_batches(other), *names)
    await byhand.redis.expire(byhand.keys.run_batches(other), 60)
    watch = Watch(Inspection(byhand.redis, byhand.keys), other)
    assert len(await watch.look()) == 150
    before = await n_read(byhand)
    assert len(await watch.look()) == 150
    assert await n_read(byhand) == before
    await hold(byhand, names[7], "the key is refused")
    (changed,) = [batch for batch in await watch.look() if batch.error]
    assert changed.batch_id == names[7]


async def n_read(worker: Answerer) -> int:
    """Return how often whole batches were read from Redis."""
    stats = await worker.redis.info("commandstats")
    return int(stats["cmdstat_hgetall"]["calls"])


def test_a_rehearsal_gives_the_worker_that_it_starts_as_much_time_as_an_embedded_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its Redis is named by a URL, as that of workers which run elsewhere is."""
    url = "unix:///tmp/redis.sock"
    monkeypatch.delenv(SANDBOX, raising=False)
    assert worker_presence.missing_worker(url).after_s < worker_presence.missing_worker(None).after_s
    monkeypatch.setenv(SANDBOX, "http://127.0.0.1:8099")
    assert worker_presence.missing_worker(url).after_s == worker_presence.missing_worker(None).after_s


def test_advice_on_a_missing_worker_fits_the_deployment() -> None:
    assert "batchling up" in worker_presence.missing_worker(None).warning
    assert "batchling up" not in worker_presence.missing_worker("redis://there").warning
    assert "celery -A batchling_worker worker" in worker_presence.missing_worker("redis://there").warning
