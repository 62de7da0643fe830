"""What a Redis tells of itself is judged: real servers, each set up badly in its own way, and what is said of it."""

from __future__ import annotations

import pytest

from batchling_client.wire.deployment import redis_health
from batchling_client.wire.deployment.connection import ask, connect
from batchling_client.wire.deployment.finding import Finding, Health
from batchling_client.wire.deployment.redis_health import RedisFacts
from tests.redis_server import free_port, redis_server, skip_without_waitaof

DURABLE = ("--appendonly", "yes", "--save", "")
INFO = {
    "redis_version": "8.2.3",
    "role": "master",
    "redis_mode": "standalone",
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "used_memory": 10,
    "maxmemory": 100,
    "total_system_memory": 1000,
}


async def told(url: str) -> RedisFacts:
    redis = connect(url)
    try:
        return await ask(redis)
    finally:
        await redis.aclose()


def told_of(**changed: object) -> RedisFacts:
    return RedisFacts(info={**INFO, **changed}, appendfsync="always", skew_s=0.0)


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    assert all(found.mend for found in findings if found.health is not Health.OK)
    return {found.check: found for found in findings}


async def test_a_durable_redis_of_the_default_kind_is_sound_and_its_costs_are_noted() -> None:
    with redis_server(*DURABLE) as url:
        found = by_check(redis_health.of_redis(await told(url)))

    assert all(finding.sound for finding in found.values()), found
    assert {check for check, finding in found.items() if finding.health is Health.NOTE} == {"fsync", "memory"}
    assert "everysec" in found["fsync"].says
    assert "maxmemory is not set" in found["memory"].says
    assert redis_health.refusal(found.values(), "here") is None


@pytest.mark.parametrize(
    ("words", "check", "says"),
    [
        (("--maxmemory-policy", "allkeys-lru"), "eviction", "allkeys-lru"),
        (("--maxmemory-policy", "volatile-ttl"), "eviction", "volatile-ttl"),
        (("--replicaof", "127.0.0.1 1"), "role", "slave"),
    ],
)
async def test_a_redis_that_would_lose_work_is_refused(words: tuple[str, ...], check: str, says: str) -> None:
    with redis_server(*DURABLE, *words) as url:
        found = by_check(redis_health.of_redis(await told(url)))

    assert [finding.check for finding in found.values() if finding.fatal] == [check]
    assert says in found[check].says
    sentence = redis_health.refusal(found.values(), "here")
    assert sentence is not None
    assert sentence.startswith("Redis at here would lose requests, as ")


async def test_a_sentinels_port_and_a_node_of_a_cluster_are_refused() -> None:
    with redis_server(sentinel="\n") as url:
        watching = redis_health.of_redis(await told(url))
    # The cluster bus needs a TCP port, and the default port would be the same for every server.
    bus = str(free_port())
    with redis_server("--cluster-enabled", "yes", "--cluster-port", bus) as url:
        clustered = redis_health.of_redis(await told(url))

    assert "sentinel://" in str(redis_health.refusal(watching, "here"))
    assert "Cluster" in str(redis_health.refusal(clustered, "here"))


@pytest.mark.parametrize(
    ("words", "check"),
    [
        (("--appendonly", "no"), "durability"),
        ((*DURABLE, "--appendfsync", "no"), "fsync"),
        ((*DURABLE, "--maxmemory", "1"), "memory"),
        ((*DURABLE, "--min-replicas-to-write", "1"), "replicas"),
    ],
)
async def test_a_weakness_is_told_alone_and_not_refused(words: tuple[str, ...], check: str) -> None:
    with redis_server(*words) as url:
        found = by_check(redis_health.of_redis(await told(url)))

    assert [finding.check for finding in found.values() if not finding.sound] == [check]
    assert redis_health.refusal(found.values(), "here") is None


async def test_a_managed_redis_that_forbids_config_is_judged_by_what_it_does_tell() -> None:
    with redis_server(*DURABLE, "--maxmemory-policy", "allkeys-lru", "--rename-command", "CONFIG", "") as url:
        seen = await told(url)

    found = by_check(redis_health.of_redis(seen))
    assert seen.appendfsync is None
    assert found["fsync"].health is Health.NOTE
    assert found["eviction"].fatal


async def test_a_user_who_may_not_ask_is_told_so_and_not_refused() -> None:
    with redis_server(*DURABLE, "--rename-command", "INFO", "") as url:
        found = redis_health.of_redis(await told(url))

    assert [(finding.check, finding.sound, finding.fatal) for finding in found] == [("info", False, False)]


async def test_what_needs_the_disks_word_is_refused_where_redis_cannot_give_it() -> None:
    skip_without_waitaof()
    for words, able in (
        ((*DURABLE,), True),
        (("--appendonly", "no"), False),
        ((*DURABLE, "--appendfsync", "no"), False),
    ):
        with redis_server(*words) as url:
            finding = redis_health.of_fsync_intent(await told(url))
        assert (finding.sound, finding.fatal) == (able, not able), words
    assert redis_health.of_fsync_intent(told_of(redis_version="7.0.15")).fatal


@pytest.mark.parametrize(
    ("change", "check", "fatal"),
    [
        ({"redis_version": "6.0.16"}, "version", True),
        ({"aof_last_write_status": "err"}, "durability", False),
        ({"aof_last_bgrewrite_status": "err"}, "durability", False),
        ({"rdb_last_bgsave_status": "err"}, "durability", False),
        ({"used_memory": 95}, "memory", False),
        ({"maxmemory": 0, "used_memory": 900}, "memory", False),
        ({"loading": 1, "loading_eta_seconds": 7}, "loading", False),
        ({"connected_slaves": 1, "min_slaves_good_slaves": 0}, "replicas", False),
    ],
)
def test_what_cannot_be_staged_is_judged_too(change: dict[str, object], check: str, fatal: bool) -> None:
    failed = [finding for finding in redis_health.of_redis(told_of(**change)) if not finding.sound]

    assert [(finding.check, finding.fatal) for finding in failed] == [(check, fatal)]
    assert failed[0].mend


def test_a_master_that_goes_on_alone_is_noted() -> None:
    found = by_check(redis_health.of_redis(told_of(connected_slaves=2)))
    assert found["replicas"].health is Health.NOTE
    assert "min-replicas-to-write" in found["replicas"].mend


@pytest.mark.parametrize(("skew_s", "sound"), [(0.1, True), (-0.1, True), (60.0, False), (-60.0, False)])
def test_a_clock_that_is_off_is_found(skew_s: float, sound: bool) -> None:
    assert redis_health.of_clock(skew_s).sound is sound


def test_valkey_is_shown_by_its_own_version() -> None:
    found = redis_health.of_redis(told_of(redis_version="7.2.4", valkey_version="9.1.2"))

    assert "its version is Valkey 9.1.2" in [finding.says for finding in found]


def test_the_forecast_warns_before_the_answers_fill_the_memory() -> None:
    facts = told_of(used_memory=500 << 20, maxmemory=1 << 30)

    assert redis_health.of_queue(facts, 1_000, 10 << 20).health is Health.OK
    full = redis_health.of_queue(facts, 500_000, 400 << 20)
    assert full.health is Health.NOTE
    assert "`batchling pause`" in full.mend
    assert redis_health.of_queue(told_of(used_memory=1, maxmemory=0), 0, 0).health is Health.OK
