"""Calls are answered, each with its own answer, whatever happens on the way."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from batchling_client import Run, batchify, errors, session
from batchling_client.block.run import handler_of
from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.ids import new_batch_id, new_mailbox, new_run_id
from batchling_client.wire.keys import Keys
from batchling_client.wire.records.in_flight import InFlight
from batchling_client.wire.records.row_and_result import Row
from batchling_client.wire.scripts import BatchCap, RowIn
from batchling_client.wire.states import BatchState
from tests.redis_server import redis_server
from tests.waiting import wait_until

from .answerer import Answerer, completion
from .asking import ask, ask_all, batches_of, content, error_of
from .conftest import RedisServer

PROMPTS = [f"prompt {i}" for i in range(300)]
LINGER_S = 0.05


async def test_each_call_gets_its_own_answer(answerer: Answerer) -> None:
    async with batchify(batch_window_seconds=LINGER_S) as run:
        replies = await ask_all(run, *PROMPTS)
    assert [content(reply).rpartition(" ")[0] for reply in replies] == PROMPTS
    assert replies[0].headers["x-request-id"] == "req_200"
    assert replies[0].headers["content-type"] == "application/json"
    assert run.progress.n_succeeded == 300


async def test_a_rerun_is_answered_without_being_asked_again(answerer: Answerer) -> None:
    for _ in range(2):
        async with batchify(batch_window_seconds=LINGER_S) as run:
            replies = await ask_all(run, "same", "same", "other")
    assert len({content(reply) for reply in replies}) == 3
    assert sum(answerer.times_answered.values()) == 3


async def test_a_kept_result_that_cannot_be_an_answer_is_asked_again_once(answerer: Answerer) -> None:
    answerer.answer = lambda row: (200, b'{"model":"m","messages":[]}', "provider")
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await ask_all(run, "one", "two")
    answerer.answer = lambda row: (200, completion("now it works"), "provider")
    for n_asked in (2, 2):
        async with batchify(batch_window_seconds=LINGER_S) as run:
            replies = await ask_all(run, "one", "two")
        assert [content(reply) for reply in replies] == ["now it works"] * 2
        assert run.progress.n_succeeded == n_asked
    assert list(answerer.times_answered.values()) == [2, 2]


async def test_without_cache_a_rerun_is_asked_again(answerer: Answerer) -> None:
    for _ in range(2):
        async with batchify(batch_window_seconds=LINGER_S, cache=False) as run:
            await ask_all(run, "same", "same")
    assert len(answerer.times_answered) == 4


async def test_a_failed_request_is_asked_anew_by_a_rerun(answerer: Answerer) -> None:
    answerer.answer = lambda row: (400, b'{"error":{"message":"no"}}', "provider")
    async with batchify(batch_window_seconds=LINGER_S) as run:
        reply = await ask(run)
    assert (reply.status, reply.headers["x-should-retry"]) == (400, "false")
    assert "x-batchling-error" not in reply.headers
    answerer.answer = lambda row: (200, completion("now it works"), "provider")
    async with batchify(batch_window_seconds=LINGER_S) as run:
        assert content(await ask(run)) == "now it works"
    assert list(answerer.times_answered.values()) == [2]


async def test_two_runs_at_once_share_a_request_in_flight(answerer: Answerer) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S) as one, batchify(batch_window_seconds=LINGER_S) as two:
        asked = asyncio.create_task(ask_all(one, "a", "b"))
        joined = asyncio.create_task(ask_all(two, "a", "b"))
        await wait_until(lambda: two.progress.n_waiting == 2, description="both wait")
        answerer.go_on.set()
        assert [content(r) for r in await asked] == [content(r) for r in await joined]
    assert sum(answerer.times_answered.values()) == 2


async def test_the_first_of_a_crowd_has_its_answer_by_looking(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_the_drain(monkeypatch)
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S) as run:
        mine = asyncio.create_task(ask(run, "wanted by all"))

        async def at_provider() -> bool:
            return [batch.state for batch in await batches_of(run)] == [BatchState.SUBMITTED]

        await wait_until(at_provider, description="the batch is at the provider")
        [batch] = await batches_of(run)
        [raw] = await answerer.redis.lrange(answerer.keys.rows(batch.batch_id), 0, -1)
        row = Row.decode(raw)
        for _ in range(40):
            await answerer.scripts.enqueue(
                batch_id=new_batch_id(),
                lane_id=batch.lane_id,
                spec=b"",
                mailbox=new_mailbox(),
                run_id=new_run_id(),
                run_name="killed",
                cap=BatchCap(rows=1, bytes=1, linger_ms=0, longest_ms=0),
                poll_ms=0,
                keep_ms=60_000,
                ask_failed_anew=True,
                rows=[RowIn(request_id=row.request_id, packed=raw, size=1)],
            )
        assert b"|+," in await answerer.redis.get(answerer.keys.request(row.request_id))
        answerer.go_on.set()
        reply = await asyncio.wait_for(mine, 20)
    assert reply.status == 200
    assert list(answerer.times_answered.values()) == [1]


CHILD = """
import asyncio, sys
from batchling_client import batchify
from tests.client.asking import ask, content

async def main():
    async with batchify(batch_window_seconds=0.05, live_display=False) as run:
        print(content(await ask(run, "shared")))

asyncio.run(main())
"""


async def test_two_processes_share_a_request_in_flight(answerer: Answerer) -> None:
    answerer.go_on.clear()
    child = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", CHILD],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:

            async def child_asked() -> bool:
                places = [
                    await answerer.redis.get(key)
                    for key in await answerer.redis.keys(answerer.keys.request("*"))
                ]
                found = [InFlight.decode(place) for place in places]
                return any(one is not None and len(one.mailboxes) == 2 for one in found)

            mine = asyncio.create_task(ask(run, "shared"))
            await wait_until(child_asked, description="both processes wait", within_s=30)
            answerer.go_on.set()
            answer = content(await mine)
        out, _ = await asyncio.to_thread(child.communicate, timeout=30)
    finally:
        child.kill()
    assert out.strip() == answer
    assert sum(answerer.times_answered.values()) == 1


async def test_a_batch_is_sealed_at_its_size(answerer: Answerer) -> None:
    async with batchify(batch_size=7, batch_window_seconds=LINGER_S, cache=False) as run:
        await ask_all(run, *PROMPTS[:50])
        batches = await batches_of(run)
    assert sum(batch.n_requests for batch in batches) == 50
    assert max(batch.n_requests for batch in batches) == 7
    assert len(batches) == 8


async def test_runs_with_other_sizes_keep_their_own(answerer: Answerer) -> None:
    small = batchify(batch_size=2, batch_window_seconds=LINGER_S)
    large = batchify(batch_window_seconds=LINGER_S)
    async with small as one, large as two:
        # Other lanes, so that the sizes can be told apart.
        await asyncio.gather(
            ask_all(one, *PROMPTS[:6], model="small"), ask_all(two, *PROMPTS[:6], model="large")
        )
        assert sorted(batch.n_requests for batch in await batches_of(one)) == [2, 2, 2]
        assert [batch.n_requests for batch in await batches_of(two)] == [6]


async def test_a_client_follows_the_batch_that_another_opened(answerer: Answerer) -> None:
    # Two deployments in one loop are two sessions, as two processes would be.
    async with batchify(batch_window_seconds=60, cache=False) as one:
        held = handler_of(one).redis
        asked = asyncio.create_task(ask(one, "first"))

        async def opened() -> bool:
            return len(await batches_of(one)) == 1

        await wait_until(opened, description="a batch is open")
        async with batchify(batch_window_seconds=60, cache=False, redis_url=f"{held_url(held)}?db=0") as two:
            assert handler_of(two).redis is not held
            followed = asyncio.create_task(ask(two, "second"))

            async def joined() -> bool:
                return [b.n_requests for b in await batches_of(two)] == [2]

            await wait_until(joined, description="the second is in the same batch")
            [batch] = await batches_of(two)
            assert [b.batch_id for b in await batches_of(one)] == [batch.batch_id]
            await answerer.due(batch.batch_id)
            assert [reply.status for reply in await asyncio.gather(asked, followed)] == [200, 200]


def held_url(redis: object) -> str:
    pool = redis.connection_pool  # type: ignore[attr-defined]
    return f"unix://{pool.connection_kwargs['path']}"


async def test_a_lost_notice_costs_time_and_no_answer(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No mailbox entry and no publish: only the safety drain can find these.
    answerer.silent = True
    shorten_the_drain(monkeypatch)
    async with batchify(batch_window_seconds=LINGER_S) as run:
        replies = await asyncio.wait_for(ask_all(run, *PROMPTS), 20)
    assert {reply.status for reply in replies} == {200}


async def test_a_request_that_redis_has_forgotten_is_asked_for_again(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_the_drain(monkeypatch)
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S) as run:
        asked = asyncio.create_task(ask(run))

        async def placed() -> list[bytes]:
            found: list[bytes] = await answerer.redis.keys(answerer.keys.request("*"))
            return found

        async def is_placed() -> bool:
            return bool(await placed())

        await wait_until(is_placed, description="the request is in flight")
        await answerer.redis.unlink(*await placed())
        answerer.go_on.set()
        reply = await asyncio.wait_for(asked, 10)
    assert reply.status == 200


async def test_a_damaged_answer_is_refused_with_a_sentence(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_the_drain(monkeypatch)
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S) as run:
        asked = asyncio.create_task(ask(run))

        async def damaged() -> bool:
            for key in await answerer.redis.keys(answerer.keys.request("*")):
                await answerer.redis.set(
                    key.replace(b":request:", b":result:"), b"+\xff\x00damage", px=10_000
                )
                return True
            return False

        await wait_until(damaged, description="the request is in flight")
        reply = await asyncio.wait_for(asked, 10)
    assert reply.status == 502
    assert reply.headers["x-batchling-error"] == errors.AnswerUnreadable.code


async def test_a_header_names_the_errors_that_http_has_no_status_for(answerer: Answerer) -> None:
    answerer.answer = lambda row: (504, b'{"error":{"message":"too late"}}', "batch_expired")
    async with batchify(batch_window_seconds=LINGER_S) as run:
        reply = await ask(run)
    assert reply.headers["x-batchling-error"] == "batch_expired"
    assert error_of(reply)["message"] == "too late"


def shorten_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    original = session.Deployment.__init__

    def short(self: session.Deployment, **fields: object) -> None:
        original(self, **{**fields, "drain_period_s": 0.1})  # type: ignore[arg-type]

    monkeypatch.setattr(session.Deployment, "__init__", short)


@pytest.fixture
def bent(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    monkeypatch.setenv("BATCHLING_REDIS_URL", own_redis.url)
    return own_redis


async def test_a_redis_that_restarts_in_the_middle_is_waited_for(
    bent: RedisServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Answerer(bent.url, namespace)
    work = asyncio.create_task(worker.work())
    worker.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S) as run:
        before = asyncio.create_task(ask_all(run, *PROMPTS))
        await wait_until(lambda: worker.n_batches >= 1, description="a batch is submitted")
        await asyncio.to_thread(bent.stop)
        during = asyncio.create_task(ask_all(run, "asked while Redis is away"))
        await wait_until(lambda: "Redis is away" in caplog.text, description="the outage is noticed")
        await asyncio.to_thread(bent.start)
        worker.go_on.set()
        replies = await asyncio.wait_for(asyncio.gather(before, during), 30)
    await end([work])
    await worker.redis.aclose()
    assert {reply.status for part in replies for reply in part} == {200}
    assert set(worker.times_answered.values()) == {1}
    lines = [record.getMessage() for record in caplog.records if "Redis" in record.getMessage()]
    assert [line.split(":")[0] for line in lines] == ["Redis is away", "Reconnected to Redis."]


async def test_a_master_that_must_have_a_replica_is_waited_for_until_it_has(
    bent: RedisServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a fail-over, until the old master comes back as a replica."""
    worker = Answerer(bent.url, namespace)
    with bent.client() as client:
        async with batchify(batch_window_seconds=LINGER_S) as run:
            client.config_set("min-replicas-to-write", 1)
            asked = asyncio.create_task(ask_all(run, *PROMPTS[:20]))
            await wait_until(lambda: "NOREPLICAS" in caplog.text, description="the refusal is logged")
            client.config_set("min-replicas-to-write", 0)
            work = asyncio.create_task(worker.work())
            replies = await asyncio.wait_for(asked, 20)
    await end([work])
    await worker.redis.aclose()
    assert {reply.status for reply in replies} == {200}


async def test_a_full_queue_is_an_error_of_those_callers_and_nothing_is_half_written(
    bent: RedisServer, namespace: str
) -> None:
    async with batchify(batch_window_seconds=LINGER_S) as run:
        with bent.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "1")
            replies = await asyncio.wait_for(ask_all(run, *PROMPTS[:200]), 10)
            assert {reply.status for reply in replies} == {503}
            assert {error_of(reply)["code"] for reply in replies} == {"queue_full"}
            assert wire_keys(client, namespace) == [Keys(namespace).salt.encode()]
            client.config_set("maxmemory", "0")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--maxmemory-policy", "volatile-lru"), "maxmemory-policy is volatile-lru"),
        (("--replicaof", "127.0.0.1 1"), "role is slave"),
    ],
)
async def test_a_redis_that_would_lose_requests_is_refused_before_anything_is_queued(
    words: tuple[str, ...], reason: str
) -> None:
    with redis_server("--appendonly", "yes", *words) as url, pytest.raises(errors.QueueUnfit, match=reason):
        async with batchify(redis_url=url):
            pass


async def test_a_redis_that_keeps_nothing_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with redis_server("--appendonly", "no") as url:
        for _ in range(2):
            async with batchify(redis_url=url):
                pass
    assert caplog.text.count("its append-only file is off") == 1


def wire_keys(client: Redis, namespace: str) -> list[bytes]:
    return list(client.scan_iter(match=f"{Keys(namespace).prefix}*".replace("{", "\\{")))


async def test_a_key_never_stands_in_clear(
    answerer: Answerer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S) as run:
        asked = asyncio.create_task(ask(run, key="gsk-CANARY"))
        await wait_until(lambda: answerer.n_batches == 1, description="submitted")
        for key in await answerer.redis.keys(f"{answerer.keys.prefix}*"):
            assert b"CANARY" not in key
            assert b"CANARY" not in await answerer.redis.dump(key)
        answerer.go_on.set()
        await asked
    assert "CANARY" not in caplog.text


def test_repeated_runs_of_a_loop_leave_nothing_open(
    redis_server: RedisServer, namespace: str, run_with_worker: Callable[[Callable[[Run], object]], None]
) -> None:
    for _ in range(3):
        run_with_worker(ask)


@pytest.fixture
def run_with_worker(redis_server: RedisServer, namespace: str) -> Callable[[Callable[[Run], object]], None]:
    def go(use: Callable[[Run], object]) -> None:
        async def main() -> None:
            worker = Answerer(redis_server.url, namespace)
            work = asyncio.create_task(worker.work())
            async with batchify(batch_window_seconds=LINGER_S) as run:
                await use(run)  # type: ignore[misc]
            await end([work])
            await worker.redis.aclose()

        asyncio.run(main())

    return go


async def test_a_rerun_over_many_lanes_gets_every_answer(answerer: Answerer) -> None:
    models = [f"model-{i}" for i in range(6)]
    for _ in range(6):
        async with batchify(batch_window_seconds=LINGER_S) as run, asyncio.timeout(20):
            await asyncio.gather(*(ask_all(run, *PROMPTS[:150], model=model) for model in models))
            assert run.progress.n_succeeded == 900
    assert set(answerer.times_answered.values()) == {1}


async def test_answers_of_a_stand_in_never_pass_for_the_providers(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__GROQ__BASE_URL", "http://127.0.0.1:9/groq")
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await ask(run, "same")
    monkeypatch.delenv("BATCHLING_PROVIDERS__GROQ__BASE_URL")
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await ask(run, "same")
    assert len(answerer.times_answered) == 2
