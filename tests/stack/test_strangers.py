"""Other people's processes are neither adopted nor signalled, whatever their command line says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from batchling_worker.stack import control, keeper
from batchling_worker.stack.keeper import Recipe

from .bench import Bench

NOBODY = 65534


@contextmanager
def waiting(program: Sequence[str], words: Sequence[str], user: int | None = None) -> Iterator[int]:
    """Run a program that reads its input, with these words in its command line, and yield its pid."""
    process = subprocess.Popen([*program, *words], stdin=subprocess.PIPE, user=user, group=user, cwd="/")
    with process:
        yield process.pid
        assert process.poll() is None, "the process was signalled"
        process.kill()


def recipe(tmp_path: Path, *programs: str) -> Recipe:
    words = frozenset({"--unixsocket", str(tmp_path / "redis.sock")})
    return Recipe(
        name="redis",
        argv=["redis-server"],
        environment={},
        directory=tmp_path,
        log=tmp_path / "redis.log",
        label="redis",
        marks=[words],
        programs=programs,
    )


@pytest.mark.parametrize(
    ("real", "effective", "executable", "own"),
    [
        (0, 0, "/usr/bin/redis-server", True),
        (0, 0, "/opt/other/bin/Redis-Server", True),
        (0, 0, "/usr/bin/sleep", False),
        (0, 0, "", False),
        (1, 1, "/usr/bin/redis-server", False),
        (0, 1, "/usr/bin/redis-server", False),
        (1, 0, "/usr/bin/redis-server", False),
    ],
)
def test_only_the_same_user_and_program_is_a_child(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, real: int, effective: int, executable: str, own: bool
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    owner = SimpleNamespace(real=real, effective=effective)

    assert keeper.is_own(owner, executable, recipe(tmp_path, "redis-server")) is own


def test_another_program_of_the_same_user_is_no_child(tmp_path: Path) -> None:
    words = ("--unixsocket", str(tmp_path / "redis.sock"))
    with waiting((sys.executable, "-c", "input()"), words) as pid:
        assert keeper.stray(recipe(tmp_path, "redis-server")) is None
        child = keeper.stray(recipe(tmp_path, "python"))

    assert child is not None
    assert child.pid == pid


@pytest.mark.long
@pytest.mark.skipif(os.getuid() != 0, reason="only root may start a process as another user")
def test_a_stranger_does_not_keep_a_stack_from_starting_and_is_not_stopped_with_it(bench: Bench) -> None:
    words = ("--unixsocket", str(bench.home / "run" / "redis.sock"))
    with waiting(("/bin/sh", "-c", "read line", "sh"), words, user=NOBODY):
        bench.up()
        control.down(bench.home)
