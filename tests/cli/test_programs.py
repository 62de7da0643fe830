"""Programs that nobody wrote for batchling: scripts, modules, commands and functions under `batchling run`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import sys
from pathlib import Path

import pytest

from batchling_worker.sandbox import Sandbox
from tests.deployment import MODEL, SLOW_MODEL, Deployment
from tests.waiting import wait_until

from .command import PROGRAM, Finished, batchling, clean_environment

ASK = f"""
import asyncio
import sys

import httpx

URL = "https://api.groq.com/openai/v1/chat/completions"
HEADERS = {{"authorization": "Bearer gsk-of-a-test"}}


def body(text):
    return {{"model": "{MODEL}", "messages": [{{"role": "user", "content": str(text)}}]}}


def ask(text):
    with httpx.Client(headers=HEADERS) as http:
        return http.post(URL, json=body(text)).status_code


async def ask_async(text):
    async with httpx.AsyncClient(headers=HEADERS) as http:
        return (await http.post(URL, json=body(text))).status_code
"""
QUICK = ("--batch-window-seconds", "0.1", "--batch-poll-interval-seconds", "0.1")
FOUND = "from earlier runs"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "asking.py").write_text(ASK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def run(*words: str, env: dict[str, str], source: str = "") -> Finished:
    if source:
        Path("program.py").write_text(source)  # noqa: ASYNC240 - a test has the loop to itself
    return await batchling("run", *QUICK, *words, env=env)


def n_realtime(sandbox: Sandbox) -> int:
    return sandbox.ledger().totals.n_realtime


SCRIPT = """
import pickle
from asking import *

class Own:
    pass

if __name__ == "__main__":
    assert type(pickle.loads(pickle.dumps(Own()))) is Own
    assert sys.modules["__main__"].Own is Own
    print(sys.argv, __file__, sys.path[0], __spec__, __package__)
    async def main():
        return await asyncio.gather(*map(ask_async, range(3)))
    print(asyncio.run(main()))
    sys.exit(3)
"""


async def test_a_script_is_run_as_python_would_with_its_words_and_its_exit_code(
    folder: Path, shared_env: dict[str, str], sandbox_of_all: Sandbox
) -> None:
    done = await run("program.py", "--no-cache", "--help", "--", "-m", "x", env=shared_env, source=SCRIPT)

    assert done.code == 3, done.err
    words = ["program.py", "--no-cache", "--help", "--", "-m", "x"]
    assert done.out == f"{words} {folder / 'program.py'} {folder} None None\n[200, 200, 200]\n"
    assert "3 of 3 requests answered" in done.err
    assert n_realtime(sandbox_of_all) == 0


THREADS = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from asking import *

def show(text):
    sys.stdout.write(f"{ask(text)} ")

def for_ever():
    while True:
        ask(time.time())

print(show.__module__, sys.argv[1:], sys.stdin.read())
for n in range(2):
    threading.Thread(target=show, args=[f"thread {n}"]).start()
pool = ThreadPoolExecutor(2)
for n in range(4):
    pool.submit(show, f"pool {n}")
threading.Thread(target=for_ever, daemon=True).start()
"""


async def test_threads_that_outlive_the_end_of_a_script_are_in_the_block(
    folder: Path, shared_env: dict[str, str], sandbox_of_all: Sandbox
) -> None:
    """Calls of a daemon thread end with the program, as the thread does; no call is sent at full price."""
    done = await run("program.py", env=shared_env, source=THREADS)

    assert (done.code, done.out.split()) == (0, ["__main__", "[]", *["200"] * 6]), done.err
    assert "LoopExit" not in done.err
    assert n_realtime(sandbox_of_all) == 0


GREENLETS = """
from gevent import monkey

monkey.patch_all()
import gevent
from asking import *

jobs = [gevent.spawn(ask, f"greenlet {n}") for n in range(3)]
gevent.joinall(jobs)
print([job.value for job in jobs])
"""
GREENLETS_IN_A_BLOCK = """
from gevent import monkey

monkey.patch_all()
import gevent
from asking import *
from batchling import batchify

def ask_on_a_loop(text):
    return asyncio.run(ask_async(text))

with batchify(batch_window_seconds=0.1, batch_poll_interval_seconds=0.1):
    print(asyncio.run(ask_async("on the block's own thread")))
    jobs = [gevent.spawn(ask, f"greenlet {n}") for n in range(3)]
    jobs += [gevent.spawn(ask_on_a_loop, "on a loop")]
    gevent.sleep(0)
print([job.value for job in jobs])
"""


async def test_greenlets_of_a_program_that_patches_threads_late_are_answered(
    folder: Path, shared_env: dict[str, str], sandbox_of_all: Sandbox
) -> None:
    done = await run("program.py", env=shared_env, source=GREENLETS)

    assert (done.code, done.out) == (0, "[200, 200, 200]\n"), done.err
    assert "3 of 3 requests answered" in done.err
    assert "Traceback" not in done.err
    assert n_realtime(sandbox_of_all) == 0


async def test_a_plain_block_beside_greenlets_leaves_their_event_loops_alone_and_waits_for_them(
    folder: Path, shared_env: dict[str, str], sandbox_of_all: Sandbox
) -> None:
    (folder / "program.py").write_text(GREENLETS_IN_A_BLOCK)

    done = await batchling(
        env=shared_env,
        prelude="import runpy; runpy.run_path('program.py', run_name='__main__'); raise SystemExit\n",
    )

    assert (done.code, done.out) == (0, "200\n[200, 200, 200, 200]\n"), done.err
    assert "5 of 5 requests answered" in done.err
    assert "Traceback" not in done.err
    assert n_realtime(sandbox_of_all) == 0


POOL = f"""
from concurrent.futures import ThreadPoolExecutor
import asking

body = asking.body
asking.body = lambda text: {{**body(text), "model": "{SLOW_MODEL}"}}
pool = ThreadPoolExecutor(2)
for n in range(4):
    pool.submit(asking.ask, n)
"""
ON_A_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"


async def test_ctrl_c_while_python_joins_a_pool_at_its_end_is_no_traceback(
    folder: Path, deployment: Deployment
) -> None:
    (folder / "program.py").write_text(POOL)
    deployment.worker()
    ours, theirs = pty.openpty()
    seen = bytearray()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ON_A_TERMINAL + PROGRAM, "run", *QUICK, "program.py"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=deployment.env,
        start_new_session=True,
    )

    def read() -> None:
        with contextlib.suppress(OSError):
            seen.extend(os.read(ours, 65536))

    async def submitted() -> bool:
        return any(batch.provider_batch_id for batch in await deployment.batches())

    loop = asyncio.get_running_loop()
    loop.add_reader(ours, read)
    try:
        await wait_until(submitted, description="the batch is submitted", within_s=40)
        os.write(ours, b"\x03")
        await asyncio.wait_for(process.wait(), 45)
        await wait_until(lambda: b"requests answered" in seen, description="its summary is here")
    finally:
        loop.remove_reader(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
        os.close(theirs)
    words = " ".join(seen.decode().split())
    assert [one for one in ("Traceback", "KeyboardInterrupt", "Exception ignored") if one in words] == [], (
        words
    )
    assert "0 of 2 requests answered, 2 left" in words


async def test_a_package_is_run_with_its_relative_imports(folder: Path, shared_env: dict[str, str]) -> None:
    package = folder / "pack"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py"):
        (package / name).touch()
    (package / "__main__.py").write_text(
        "import sys\nfrom asking import ask\nfrom .words import HELLO\n"
        "print(HELLO, __name__, __package__, sys.argv, ask('package'))\nsys.exit('the end')\n"
    )
    (package / "words.py").write_text("HELLO = 'hello'\n")
    (package / "inner" / "deep.py").write_text(
        "import sys\nfrom ..words import HELLO\nprint(HELLO, sys.argv[1:])\n"
    )

    whole = await run("-m", "pack", "--model", "x", env=shared_env)
    part = await run("-mpack.inner.deep", "--dry-run", env=shared_env)

    argv = [str(package / "__main__.py"), "--model", "x"]
    assert (whole.code, whole.out) == (1, f"hello __main__ pack {argv} 200\n")
    assert whole.err.endswith("the end\n")
    assert (part.code, part.out) == (0, "hello ['--dry-run']\n")


SPAWN = """
import multiprocessing, click

def double(n):
    return 2 * n

@click.command()
@click.option("--no-cache", is_flag=True)
@click.argument("n", type=int)
def main(no_cache, n):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(no_cache, click.get_current_context().parent, pool.map(double, range(n)))
    raise ValueError("a mistake of the user")

if __name__ == "__main__":
    main()
"""


async def test_a_click_program_with_spawned_processes_and_its_own_error(
    folder: Path, shared_env: dict[str, str]
) -> None:
    done = await run("program.py", "--no-cache", "3", env=shared_env, source=SPAWN)

    assert (done.code, done.out) == (1, "True None [0, 2, 4]\n")
    assert "ValueError: a mistake of the user" in done.err
    assert "batchling_client" not in done.err


@pytest.mark.parametrize("active", [True, False])
async def test_a_command_of_this_environment_is_found_by_its_name(folder: Path, active: bool) -> None:
    path = Path(sys.executable).parent if active else folder
    env = {**clean_environment(), "PATH": str(path), "BATCHLING_HOME": str(folder)}

    done = await run("--dry-run", "pytest", "--version", env=env)

    assert (done.code, done.out[:7]) == (0, "pytest "), done.err


FUNCTIONS = """
from concurrent.futures import ThreadPoolExecutor
from asking import *

def blocking(*words, **named):
    print(words, sorted(named.items()))
    with ThreadPoolExecutor(3) as pool:
        print(*pool.map(ask, words))

async def with_a_pool(n):
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(3) as pool:
        print(*await asyncio.gather(*[loop.run_in_executor(pool, ask, f"{n} {i}") for i in range(int(n))]))

def returns_a_coroutine():
    return with_a_pool(2)

async def greet(name):
    print("hello", name)
"""


async def test_a_synchronous_function_runs_under_a_plain_block_and_gets_what_stands_behind_it(
    folder: Path, shared_env: dict[str, str], sandbox_of_all: Sandbox
) -> None:
    words = ["a", "--name", "alice", "--flag", "--count", "3", "--no-cache", "b", "--x=1", "--deadline"]

    done = await run("program.py:blocking", *words, "--", "--dry-run", env=shared_env, source=FUNCTIONS)

    assert done.code == 0, done.err
    named = [
        ("count", "3"),
        ("deadline", True),
        ("dry_run", True),
        ("flag", True),
        ("name", "alice"),
        ("x", "1"),
    ]
    assert done.out == f"('a', 'b') {named}\n200 200\n"
    assert n_realtime(sandbox_of_all) == 0


@pytest.mark.parametrize("words", [["with_a_pool", "--n", "3"], ["returns_a_coroutine"]])
async def test_the_threads_of_an_async_function_are_in_the_block(
    folder: Path, shared_env: dict[str, str], sandbox_of_all: Sandbox, words: list[str]
) -> None:
    done = await run(f"program.py:{words[0]}", *words[1:], env=shared_env, source=FUNCTIONS)

    assert (done.code, set(done.out.split())) == (0, {"200"}), done.err
    assert n_realtime(sandbox_of_all) == 0


async def test_a_name_before_the_target_is_the_runs_and_one_behind_it_the_functions(
    folder: Path, shared_env: dict[str, str]
) -> None:
    (folder / "program.py").write_text(FUNCTIONS)

    done = await batchling("--name", "evals", "program.py:greet", "--name", "alice", env=shared_env)

    assert (done.code, done.out) == (0, "hello alice\n")
    assert "Run 'evals' r" in done.err


DRY = """
from pathlib import Path
from batchling import DryRunEarlyExit, batchify
from asking import *

def open_output():
    Path("out.jsonl").write_text("")

async def gathered(n=3, **how):
    async with batchify(dry_run=True):
        await asyncio.gather(*map(ask_async, range(int(n))), **how)
    open_output()

async def collecting():
    async with batchify(dry_run=True):
        await asyncio.gather(*map(ask_async, range(3)), return_exceptions=True)
        open_output()

async def grouped():
    async with batchify(dry_run=True), asyncio.timeout(30):
        async with asyncio.TaskGroup() as group:
            for n in range(3):
                group.create_task(ask_async(n))
        open_output()

async def one_by_one():
    async with batchify(dry_run=True):
        for asked in asyncio.as_completed([ask_async(n) for n in range(3)]):
            try:
                await asked
            except Exception:
                pass
            open_output()

def plain():
    with batchify(dry_run=True):
        asyncio.run(inner())
    open_output()

async def inner():
    await asyncio.gather(*map(ask_async, range(3)), return_exceptions=True)
    open_output()

if __name__ == "__main__":
    for run in (gathered(), collecting(), grouped(), one_by_one(), plain):
        try:
            plain() if run is plain else asyncio.run(run)
            print("went on")
        except DryRunEarlyExit as error:
            print(error)
    asyncio.run(inner()) if sys.argv[1:] else plain()
    open_output()
"""
OVER = "The dry run ends here: 3 requests were counted, and nothing after the block runs."


async def test_nothing_after_the_block_of_a_dry_run_runs(folder: Path) -> None:
    """Uncaught, its exception is one line; under `batchling run` the exit code is 0."""
    output = folder / "out.jsonl"
    output.write_text("precious")
    env = {**clean_environment(), "BATCHLING_HOME": str(folder / "home")}
    (folder / "program.py").write_text(DRY)

    alone = await batchling(
        env=env, prelude="import runpy; runpy.run_path('program.py', run_name='__main__')\n"
    )
    script = await run("--dry-run", "program.py", "inner", env=env)
    function = await run("program.py:inner", "--dry-run", env=env)

    assert (alone.code, alone.out) == (1, 5 * f"{OVER}\n")
    assert alone.err.splitlines()[-1] == OVER
    assert "Traceback" not in alone.err
    assert alone.err.count("Dry run, nothing was queued or sent: 3 requests in 1 batch") == 6
    assert script.code == function.code == 0, (script, function)
    assert function.out == ""
    assert output.read_text() == "precious"


OWN_BLOCK = """
from asking import *
from batchling import batchify

async def main():
    async with batchify({}):
        await asyncio.gather(*map(ask_async, ("own 1", "own 2", "own 3")))

asyncio.run(main())
open("out.jsonl", "w").close()
"""


async def test_a_script_with_a_block_of_its_own_gets_no_advice_and_its_dry_run_is_no_failure(
    folder: Path, shared_env: dict[str, str]
) -> None:
    output = folder / "out.jsonl"
    output.write_text("precious")
    own = await run("program.py", env=shared_env, source=OWN_BLOCK.format("dry_run=True"))
    outer = await run("--dry-run", "program.py", env=shared_env, source=OWN_BLOCK.format(""))

    for done in (own, outer):
        assert (done.code, done.out) == (0, ""), done.err
        assert "3 requests in 1 batch" in done.err
        assert "caught no call" not in done.err
        assert "To run a function" not in done.err
    assert output.read_text() == "precious"


ANSWERS = """
from asking import *

async def answers(n, what="reused"):
    print(*await asyncio.gather(*[ask_async(f"{what} {i}") for i in range(int(n))]))
"""


async def test_answers_of_earlier_runs_are_counted_and_not_paid_again(
    folder: Path, shared_env: dict[str, str], sandbox_of_all: Sandbox
) -> None:
    """A dry run knows it, too, and so does a run with another completion window."""
    first = await run("program.py:answers", "2", env=shared_env, source=ANSWERS)
    n_rows = sandbox_of_all.ledger().totals.n_rows

    dry = await run("program.py:answers", "3", "--dry-run", env=shared_env)
    all_there = await run("program.py:answers", "2", "--dry-run", env=shared_env)
    slower = await run("program.py:answers", "2", "--completion-window", "7d", env=shared_env)
    second = await run("program.py:answers", "3", env=shared_env)
    listed = await batchling("runs", "--json", "--limit", "2", env=shared_env)

    assert FOUND not in first.err
    assert "3 requests, of them 2 answered by earlier runs; to be sent: 1 request in 1 batch" in dry.err
    assert "2 requests, of them 2 answered by earlier runs; nothing would be sent" in all_there.err
    assert "2 of 2 requests answered, 2 from earlier runs" in slower.err
    assert "3 of 3 requests answered, 2 from earlier runs" in second.err
    assert [(one["n_requests"], one["n_reused"]) for one in json.loads(listed.out)] == [(3, 2), (2, 2)]
    assert sandbox_of_all.ledger().totals.n_rows == n_rows + 1
