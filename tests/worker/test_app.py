"""How a worker starts: where its broker is, and what it says when it cannot."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

from kombu import Connection

from batchling_worker.runtime.broker import broker_url, transport_options
from tests.redis_server import kept_port, redis_server

COMMAND = (sys.executable, "-m", "celery", "-A", "batchling_worker", "worker")


def environment(home: Path, **settings: str) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("BATCHLING_")}
    return (
        env | {"BATCHLING_HOME": str(home)} | {f"BATCHLING_{name}": value for name, value in settings.items()}
    )


def start(home: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = environment(home, **settings)
    return subprocess.run([*COMMAND, *words], env=env, capture_output=True, text=True, timeout=30)


def test_a_worker_without_a_queue_says_so_in_one_sentence(tmp_path: Path) -> None:
    ended = start(tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.strip().startswith("BATCHLING_REDIS_URL is not set and no embedded stack runs")
    assert "Traceback" not in ended.stderr


def test_a_wrong_setting_is_one_sentence_that_tells_no_value(tmp_path: Path) -> None:
    ended = start(
        tmp_path, REDIS_URL="redis://127.0.0.1:1", LEASE_SECONDS="soon", PROVIDERS__GROQ__API_KEY="gsk-CANARY"
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("BATCHLING_LEASE_SECONDS must be ")
    assert "Traceback" not in ended.stderr
    assert "CANARY" not in ended.stderr


def test_a_worker_refuses_a_redis_that_would_lose_work(tmp_path: Path) -> None:
    with redis_server("--appendonly", "yes", "--replicaof", "127.0.0.1 1") as url:
        ended = start(tmp_path, "--pool", "solo", REDIS_URL=url)
    assert ended.returncode == 2
    [sentence] = [line for line in ended.stderr.splitlines() if line.startswith("Redis at ")]
    assert "its role is slave: point BATCHLING_REDIS_URL at the master" in sentence
    assert "Traceback" not in ended.stderr + ended.stdout


def test_a_worker_refuses_a_bad_redis_that_comes_later_than_it(tmp_path: Path) -> None:
    with kept_port() as port, (tmp_path / "log").open("w+") as log:
        env = environment(tmp_path, REDIS_URL=f"redis://127.0.0.1:{port}", TICK_SECONDS="0.05")
        worker = subprocess.Popen([*COMMAND, "--pool", "solo"], env=env, stdout=log, stderr=log, text=True)
        try:
            deadline = time.monotonic() + 30
            while "store_away" not in (tmp_path / "log").read_text():
                assert time.monotonic() < deadline, "the worker says nothing of a Redis that is away"
                time.sleep(0.05)
            with redis_server("--maxmemory-policy", "allkeys-lru", port=port):
                code = worker.wait(30)
        finally:
            worker.kill()
            worker.wait()
        log.seek(0)
        said = log.read()
    assert code == 2
    assert "would lose requests, as its maxmemory-policy is allkeys-lru" in said


def test_a_worker_that_must_have_the_disks_word_refuses_a_redis_that_cannot_give_it(tmp_path: Path) -> None:
    with redis_server("--appendonly", "no") as url:
        ended = start(tmp_path, "--pool", "solo", REDIS_URL=url, FSYNC_INTENT="true")
    assert ended.returncode == 2
    assert "BATCHLING_FSYNC_INTENT is set and this Redis cannot confirm" in ended.stderr


def test_the_broker_checks_the_certificate_as_the_store_does() -> None:
    def tls_of(url: str) -> dict[str, object]:
        with Connection(broker_url(url)) as connection:
            assert isinstance(connection.ssl, dict)
            return connection.ssl

    own = tls_of("rediss://host:6380/1?ssl_ca_certs=/ca.pem")
    assert tls_of("rediss://:secret@host:6380/1")["ssl_cert_reqs"] is ssl.CERT_REQUIRED
    assert (own["ssl_cert_reqs"], own["ssl_ca_certs"]) == (ssl.CERT_REQUIRED, "/ca.pem")
    assert tls_of("rediss://host?ssl_cert_reqs=none")["ssl_cert_reqs"] is ssl.CERT_NONE


def test_sockets_and_sentinels_are_spelt_as_kombu_reads_them() -> None:
    assert broker_url("unix:///run/redis.sock") == "redis+socket:///run/redis.sock"
    assert broker_url("redis://:secret@host:6380/1") == "redis://:secret@host:6380/1"
    assert (
        broker_url("unix:///run/redis.sock?db=2&socket_timeout=3")
        == "redis+socket:///run/redis.sock?virtual_host=2"
    )
    assert broker_url("redis://host?db=3&socket_timeout=3") == "redis://host/3"
    assert broker_url("rediss://host/1?ssl_cert_reqs=none") == "rediss://host/1?ssl_cert_reqs=none"
    url = "sentinel://:p%40ss@one:26379,two/mymaster/3"
    assert broker_url(url) == "sentinel://:p%40ss@one:26379/3;sentinel://:p%40ss@two:26379/3"
    assert transport_options(url, "ns")["master_name"] == "mymaster"


def test_the_options_in_a_redis_url_hold_for_the_broker_too() -> None:
    options = transport_options("redis://host/0?socket_timeout=3&health_check_interval=2", "ns")
    assert (options["socket_timeout"], options["health_check_interval"]) == (3.0, 2.0)
    usual = transport_options("redis://host/0", "ns")
    assert usual["socket_timeout"] == usual["health_check_interval"] == 10.0
