"""Callers with other provider settings never share a worker unawares."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from batchling_client.wire.keys import Keys
from batchling_worker.settings import WorkerSettings
from batchling_worker.stack.errors import StackError
from batchling_worker.stack.state import FOLLOWED, TOLD_APART, digest_of

from .bench import Bench

CANARY = "gsk-CANARY-55d1"
TWO_BLOCKS = """
from batchling import batchify

for _ in range(2):
    with batchify(live_display=False):
        pass
"""


def test_an_idle_worker_is_started_again_with_the_callers_settings(bench: Bench) -> None:
    before = bench.up(BATCHLING_PROVIDERS__GROQ__API_KEY="gsk-first")
    after = bench.up(BATCHLING_PROVIDERS__GROQ__API_KEY=CANARY)

    assert after.redis == before.redis
    assert after.worker is not None
    assert after.worker != before.worker
    environment = psutil.Process(after.worker.pid).environ()
    assert environment["BATCHLING_PROVIDERS__GROQ__API_KEY"] == CANARY
    assert environment["BATCHLING_HOME"] == str(bench.home)
    assert len(bench.everything()) == 3


def test_a_busy_worker_is_left_alone_and_the_caller_told(bench: Bench) -> None:
    before = bench.up()
    bench.ask("ZADD", Keys("default").schedule, "9999999999999", "abatch")

    with pytest.raises(
        StackError, match=r"1 unfinished batches: .*`batchling down`.* BATCHLING_HOME"
    ) as refusal:
        bench.up(BATCHLING_PROVIDERS__GROQ__API_KEY=CANARY)
    assert CANARY not in str(refusal.value)
    assert bench.status() == before
    bench.ask("DEL", Keys("default").schedule)


def test_no_key_reaches_a_file_or_a_command_line(bench: Bench) -> None:
    bench.up(BATCHLING_PROVIDERS__GROQ__API_KEY=CANARY)

    for path in bench.home.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in str(bench.everything())


def test_only_settings_that_matter_tell_callers_apart() -> None:
    plain = {"PATH": "/bin", "BATCHLING_HOME": "/x"}
    assert digest_of(plain) == digest_of({"PATH": "/usr/bin", "batchling_home": "/y"})
    groq = {"BATCHLING_PROVIDERS__GROQ__API_KEY": "a"}
    assert digest_of(groq) == digest_of({"batchling_providers__groq__api_key": "a"})
    assert (
        len(
            {
                digest_of(plain),
                digest_of(groq),
                digest_of({"BATCHLING_NAMESPACE": "b"}),
                digest_of({"BATCHLING_SEAL_PUBLIC_KEY": "c"}),
            }
        )
        == 4
    )


def test_a_setting_that_the_running_worker_lacks_is_reported_and_changes_nothing(bench: Bench) -> None:
    before = bench.run("up", BATCHLING_LEASE_SECONDS="20")
    differs = bench.run("up", BATCHLING_MAX_ATTEMPTS="1", BATCHLING_LEASE_SECONDS="21")

    assert (before.returncode, before.stderr) == (0, "")
    assert differs.returncode == 0
    assert differs.stderr.count("\n") == 1
    assert (
        "(BATCHLING_LEASE_SECONDS, BATCHLING_MAX_ATTEMPTS): `batchling down` and `batchling up`"
        in differs.stderr
    )
    assert differs.stdout == before.stdout
    same = bench.run("up", BATCHLING_MAX_ATTEMPTS="3", BATCHLING_LEASE_SECONDS="20.0")
    assert (same.stderr, bench.run("up").stderr) == ("", "")


def test_a_block_warns_once_of_a_setting_that_the_running_worker_does_not_have(bench: Bench) -> None:
    bench.up()
    environment = {**bench.environment, "BATCHLING_HOME": str(bench.home), "BATCHLING_MAX_ATTEMPTS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_BLOCKS], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stderr.count("(BATCHLING_MAX_ATTEMPTS)") == 1
    assert len(bench.everything()) == 3


def test_a_supervisor_that_adopts_a_worker_tells_of_the_settings_that_the_worker_has(bench: Bench) -> None:
    bench.up()
    with_flower = bench.up(flower=True, BATCHLING_MAX_ATTEMPTS="1")

    assert "BATCHLING_MAX_ATTEMPTS" in with_flower.notice
    assert "BATCHLING_MAX_ATTEMPTS" in bench.up(BATCHLING_MAX_ATTEMPTS="1").notice


def test_every_setting_of_a_worker_separates_callers_or_is_followed() -> None:
    names = {f"BATCHLING_{name.upper()}" for name in WorkerSettings.model_fields}
    apart = {name for name in names if name.startswith(TOLD_APART)}

    assert names - apart == {*FOLLOWED, "BATCHLING_HOME", "BATCHLING_REDIS_URL"}
