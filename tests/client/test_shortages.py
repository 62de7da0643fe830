"""A call fails at once if waiting cannot help: no files or threads left, a wrong password, a replica, a wrong host."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError

from batchling_client import QueueUnreachable, Run, batchify
from batchling_client.block.run import handler_of
from batchling_client.session import redis_outage
from batchling_client.wire.deployment.redis_errors import mistake_of, shortage_of
from tests.waiting import wait_until

from .asking import ask, batches_of, error_of
from .conftest import RedisServer

ROOT = Path(__file__).parents[2]

NO_FILES = """
import asyncio, json, os, resource, sys, threading, time
import redis
from batchling_client import QueueUnreachable, batchify
from batchling_client.session import redis_outage
from tests.client.asking import a_call, ask, batches_of, error_of

look = redis.Redis.from_url(os.environ["BATCHLING_REDIS_URL"])
look.ping()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

def use_up():
    held = []
    try:
        while True:
            held.append(open("/dev/null"))
    except OSError:
        return held

"""
NO_LOOP = """
with batchify(live_display=False, dry_run=True):
    pass
held = use_up()
for _ in range(2):
    try:
        with batchify(live_display=False):
            print("entered")
    except QueueUnreachable as error:
        print(error)
for one in held:
    one.close()
with batchify(live_display=False) as run:
    print("entered")
"""
NO_CONNECTION = """
redis_outage.PATIENCE_S = 0.5

async def main():
    async with batchify(batch_window_seconds=60, live_display=False) as run:
        waiting = asyncio.create_task(ask(run, "queued"))
        while not await batches_of(run):
            await asyncio.sleep(0.01)
        held = use_up()
        # Each takes the place of a connection that ends.
        keep = {c["id"] for c in look.client_list() if c["id"] == str(look.client_id())}
        for client in look.client_list():
            if client["id"] not in keep:
                look.client_kill_filter(_id=client["id"])
        while True:
            held += use_up()
            if waiting.done():
                break
            await asyncio.sleep(0.01)
        print(error_of(await waiting)["message"])
        for one in held:
            one.close()
        again = asyncio.create_task(ask(run, "asked once there are files again"))
        while sum(batch.n_requests for batch in await batches_of(run)) < 2:
            await asyncio.sleep(0.01)
        again.cancel()
        print("queued again")

asyncio.run(main())
"""


def program(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", NO_FILES + code], cwd=ROOT, capture_output=True, text=True, timeout=50
    )


async def is_queued(run: Run) -> bool:
    return bool(await batches_of(run))


def test_a_plain_block_without_a_file_left_says_so_and_the_next_is_entered() -> None:
    done = program(NO_LOOP)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert lines[0] == lines[1]
    assert "no file descriptor left (its limit is 64)" in lines[0]
    assert lines[2] == "entered"
    assert "Exception in thread" not in done.stderr


def test_a_session_without_a_file_left_ends_with_a_sentence_and_the_next_call_is_queued() -> None:
    done = program(NO_CONNECTION)
    said, again = done.stdout.splitlines()
    assert "no file descriptor left (its limit is 64)" in said
    assert "run the program again" in said
    assert again == "queued again"


def test_a_process_that_can_start_no_thread_says_so_and_holds_no_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        for _ in range(2):
            with pytest.raises(QueueUnreachable, match="can start no thread"), batchify():
                pass
    with batchify(live_display=False) as run:
        assert run.progress.n_requests == 0


async def test_a_blocking_call_that_can_start_no_thread_is_answered_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from batchling_client.intercept.interceptor import HttpReply

    from .asking import a_call

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with batchify(live_display=False) as run:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
        reply = handler_of(run).answer_blocking(a_call())
        assert isinstance(reply, HttpReply)
        assert "can start no thread" in error_of(reply)["message"]
        assert run.progress.n_failed == 1


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_outage, "PATIENCE_S", 0.3)
    monkeypatch.setattr(redis_outage, "FAIL_OVER_S", 0.3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("CONFIG SET requirepass other", "asks for a password"),
        ("REPLICAOF 127.0.0.1 1", "is a replica"),
    ],
)
async def test_a_redis_that_refuses_in_the_middle_ends_the_calls_with_the_reason(
    change: str,
    said: str,
    own_redis: RedisServer,
    short_patience: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with batchify(batch_window_seconds=60, redis_url=own_redis.url, live_display=False) as run:
        waiting = asyncio.create_task(ask(run, "before"))
        await wait_until(lambda: is_queued(run), description="it is queued")
        with own_redis.client() as client:
            client.execute_command(*change.split())
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        asked = await ask(run, "after")
        assert said in error_of(asked)["message"]
        assert said in error_of(await waiting)["message"]
    # Once for each of the two kinds of connections that were killed, one after the other.
    assert caplog.text.count("Reconnected to Redis") <= 2
    assert len([one for one in caplog.records if said in one.message]) <= 3


async def test_a_replica_that_becomes_the_master_again_is_waited_for(own_redis: RedisServer) -> None:
    async with batchify(batch_window_seconds=60, redis_url=own_redis.url, live_display=False) as run:
        with own_redis.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            asking = asyncio.create_task(ask(run))
            await asyncio.wait([asking], timeout=0.3)
            client.execute_command("REPLICAOF", "NO", "ONE")
        await wait_until(lambda: is_queued(run), description="it is queued")
        asking.cancel()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("unix://{}", "asks for a password"),
        ("unix://:wrong@{}", "refuses the user or password"),
        ("redis://nobody.invalid:6379", "host name has no address"),
    ],
)
async def test_a_mistake_in_the_url_is_named_at_the_entry(
    url: str, said: str, own_redis: RedisServer
) -> None:
    with own_redis.client() as client:
        client.config_set("requirepass", "right")
    with pytest.raises(QueueUnreachable, match=said) as caught:
        async with batchify(redis_url=url.format(f"{own_redis.home}/redis.sock")):
            pass
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EMFILE, "file descriptor"), (errno.ENFILE, "file"), (errno.ENOMEM, "memory")]
)
def test_a_shortage_is_found_below_the_error_of_the_redis_library(number: int, said: str) -> None:
    found: Exception | None = None
    try:
        try:
            raise OSError(number, "as the system says it")
        except OSError:
            raise ConnectionError("as redis-py says it")  # noqa: B904 - as redis-py does it
    except ConnectionError as error:
        found = error
    assert said in (shortage_of(found) or "")


def test_a_socket_that_may_not_be_opened_is_a_mistake_and_one_that_is_not_there_is_not() -> None:
    assert "rights" in (mistake_of(PermissionError(errno.EACCES, "denied")) or "")
    assert mistake_of(FileNotFoundError(errno.ENOENT, "no socket")) is None
    assert mistake_of(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None


class SocketBlockedError(RuntimeError):
    """As of pytest-socket."""

    __module__ = "pytest_socket"


@pytest.mark.parametrize("error", [SocketBlockedError("A test tried."), RuntimeError("Network is disabled")])
def test_a_plugin_that_keeps_tests_off_the_network_is_named(
    error: RuntimeError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("BATCHLING_REDIS_URL", f"unix://{tmp_path}/redis.sock")

    with pytest.raises(QueueUnreachable, match=r"^Tests block the network .* BATCHLING_ENABLED=false"):  # noqa: SIM117
        with batchify(live_display=False):
            pass
