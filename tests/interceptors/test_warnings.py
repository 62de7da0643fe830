"""A warning is given once in a process, however many threads come upon its cause at the same time."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from batchling_client.intercept.interceptor import warn_once

N_THREADS = 8
N_ROUNDS = 50


def test_threads_that_warn_at_once_give_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    meet = threading.Barrier(N_THREADS)

    def warn_in_each_round() -> None:
        for n in range(N_ROUNDS):
            meet.wait(10)
            warn_once(f"warning {n}", os.getpid())

    with ThreadPoolExecutor(N_THREADS) as pool:
        for done in [pool.submit(warn_in_each_round) for _ in range(N_THREADS)]:
            done.result(30)

    assert [record.getMessage() for record in caplog.records] == [
        f"warning {n} (process {os.getpid()})" for n in range(N_ROUNDS)
    ]


def test_a_forked_process_warns_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    for pid in (1, 2, 1):
        warn_once("warning", pid)

    assert [record.getMessage() for record in caplog.records] == [
        "warning (process 1)",
        "warning (process 2)",
    ]
