"""Callers with other provider settings never share a worker unawares."""

from __future__ import annotations

import psutil
import pytest

from batchling_client.wire.keys import Keys
from batchling_worker.stack.errors import StackError
from batchling_worker.stack.state import digest_of

from .bench import Bench

CANARY = "gsk-CANARY-55d1"


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
