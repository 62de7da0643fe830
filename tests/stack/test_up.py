"""`up` gives every caller the same stack, and the stack outlives its callers."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil

from batchling_worker.stack.layout import LONGEST_SOCKET_PATH

from ..waiting import wait_until
from .bench import Bench, shown


def test_a_second_up_attaches_to_the_first(bench: Bench) -> None:
    first = bench.up()
    second = bench.up()

    assert shown(first) == shown(second) == shown(bench.status())
    assert bench.ask("PING") == "PONG"
    assert len(bench.everything()) == 3  # the supervisor, Redis, the worker


def test_the_command_prints_what_the_contract_says(bench: Bench) -> None:
    printed = json.loads(bench.run("up", "--json").stdout)

    redis_pid, worker_pid = bench.pids()
    hostname = printed["workers"][0]["hostname"]
    assert printed == {
        "redis": {"pid": redis_pid, "url": f"unix://{bench.home}/run/redis.sock"},
        "workers": [{"pid": worker_pid, "hostname": hostname}],
        "flower": None,
        "home": str(bench.home),
    }
    assert hostname.startswith("embedded-")
    assert json.loads(bench.run("status", "--json").stdout) == printed


def test_two_callers_at_once_get_one_stack(bench: Bench) -> None:
    callers = [
        subprocess.Popen(bench.command("up", "--json"), env=bench.environment, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    answers = {caller.communicate(timeout=50)[0] for caller in callers}

    assert [caller.returncode for caller in callers] == [0] * 4
    assert len(answers) == 1
    assert len(bench.everything()) == 3


async def test_the_stack_survives_a_caller_killed_with_its_process_group(bench: Bench) -> None:
    words = bench.command("up")
    script = (
        "import subprocess, sys; subprocess.run(sys.argv[1:], check=True); print('up', flush=True); input()"
    )
    caller = subprocess.Popen(
        [words[0], "-c", script, *words],
        env=bench.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with caller:
        assert caller.stdout is not None
        lines = [caller.stdout.readline(), caller.stdout.readline(), caller.stdout.readline()]
        assert lines[-1] == "up\n"
        before = bench.pids()
        os.killpg(caller.pid, signal.SIGINT)
        os.killpg(caller.pid, signal.SIGKILL)

    assert caller.returncode < 0
    assert bench.pids() == before
    assert bench.ask("PING") == "PONG"
    assert all(os.getsid(pid) != caller.pid for pid in (*before, bench.supervisor_pid()))


def test_nothing_is_open_to_others(bench: Bench) -> None:
    bench.up()
    redis_pid, _ = bench.pids()

    assert psutil.Process(redis_pid).net_connections(kind="tcp") == []
    for path in (bench.home, *bench.home.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        if path.is_socket():
            assert mode == 0o700, path


def test_redis_writes_every_change_and_forgets_none(bench: Bench) -> None:
    bench.up()

    told = bench.ask("INFO", "everything")
    assert "aof_enabled:1" in told
    assert "maxmemory_policy:noeviction" in told
    assert (bench.home / "redis" / "appendonlydir").is_dir()


def test_what_was_written_is_there_after_down_and_up(bench: Bench) -> None:
    bench.up()
    bench.ask("SET", "kept", "yes")
    bench.run("down")
    bench.up()

    assert bench.ask("GET", "kept") == "yes"


def test_a_long_home_gets_a_short_private_socket(bench: Bench) -> None:
    bench.home = bench.home / ("long" * 20) / ("a blank" * 10)
    redis = bench.up().redis

    assert redis is not None
    socket = Path(redis.label.removeprefix("unix://"))
    assert len(str(socket)) <= LONGEST_SOCKET_PATH
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert shown(bench.up()) == shown(bench.status())
    assert bench.run("down").returncode == 0
    assert not socket.parent.exists()


def test_a_home_that_cannot_be_made_is_one_sentence(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bench.home = tmp_path / "file" / "home"

    answer = bench.run("up")
    assert answer.returncode == 3
    assert answer.stderr.startswith(f"{bench.home} cannot be used")
    assert answer.stderr.count("\n") == 1


def test_a_directory_with_other_things_keeps_its_mode(bench: Bench) -> None:
    bench.home.mkdir(mode=0o755)
    (bench.home / "thesis.txt").touch()
    bench.layout.prepare()

    assert stat.S_IMODE(bench.home.stat().st_mode) == 0o755
    assert stat.S_IMODE(bench.layout.run.stat().st_mode) == 0o700


async def test_flower_joins_a_running_stack_and_stays(bench: Bench) -> None:
    before = bench.up()
    with_flower = bench.up(flower=True)
    again = bench.up()

    assert before.redis == with_flower.redis
    assert before.worker == with_flower.worker
    assert with_flower.flower is not None
    assert again.flower == with_flower.flower
    assert with_flower.flower.label.startswith("http://127.0.0.1:")
    port = int(with_flower.flower.label.rpartition(":")[2])
    flower = psutil.Process(with_flower.flower.pid)
    await wait_until(
        lambda: (
            [c.laddr for c in flower.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN]
            == [("127.0.0.1", port)]
        ),
        description="Flower listens on loopback",
        within_s=30,
    )


def test_attaching_imports_nothing_slow(bench: Bench) -> None:
    bench.up()
    before_s = children_s()
    script = (
        "import sys; from batchling_worker.stack.__main__ import main; main(sys.argv[1:]); "
        "print({'celery', 'pydantic', 'redis', 'psutil', 'msgspec', 'platformdirs'} & set(sys.modules))"
    )
    words = [*bench.command()[:2], "-c", script, "up", "--json", "--home", str(bench.home)]
    answer = subprocess.run(words, env=bench.environment, capture_output=True, text=True, check=True)

    assert answer.stdout.splitlines()[-1] == "set()"
    assert children_s() - before_s < 5


def children_s() -> float:
    """What the ended children of this process have had of the processors: how long it took says more of the machine."""
    used = os.times()
    return used.children_user + used.children_system


ENTERED = """
import redis
from batchling import batchify

with batchify(live_display=False, batch_window_seconds=60):
    look = redis.Redis.from_url("unix://" + sys_home + "/run/redis.sock")
    commands = {client["cmd"] for client in look.client_list()}
    print(sum(look.zcard(key) for key in look.scan_iter("batchling:2:*:workers")), commands & {"psubscribe"})
"""


def test_a_plain_block_is_entered_once_the_worker_of_its_new_stack_reads_the_queue(bench: Bench) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENTERED.replace("sys_home", repr(str(bench.home)))],
        env={**bench.environment, "BATCHLING_HOME": str(bench.home)},
        capture_output=True,
        text=True,
        timeout=50,
    )

    # Celery listens on its control channel when it has opened its other connections.
    assert done.stdout == "1 {'psubscribe'}\n", done.stderr


def test_the_cache_file_of_the_original_is_named_once_when_a_block_starts_the_stack(bench: Bench) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import batchling\nwith batchling.batchify(): pass"],
        env={**bench.environment, "BATCHLING_HOME": str(bench.home), "BATCHLING_CACHE_PATH": "cache.db"},
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert done.stderr.count("BATCHLING_CACHE_PATH") == 1, done.stderr


CANCELLED_START = """
import asyncio

import psutil

from batchling import batchify


async def main() -> None:
    try:
        async with asyncio.timeout(0.2):
            async with batchify(live_display=False):
                raise SystemExit("the block was entered before the stack was up")
    except TimeoutError:
        print("timed out")


asyncio.run(main())
print([child.name() for child in psutil.Process().children()])
"""


def test_a_block_that_is_cancelled_while_the_stack_starts_leaves_no_child_behind(bench: Bench) -> None:
    environment = {**bench.environment, "BATCHLING_HOME": str(bench.home)}
    done = subprocess.run(
        [sys.executable, "-c", CANCELLED_START], env=environment, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "timed out\n[]\n", "")
