"""Calls of child processes are in the counts of their parent's run, whatever way they were started."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batchling_client import Run, batchify
from batchling_client.intercept import child_calls, child_processes

from .gateway import Site, ask_blocking

CHILD = """
import batchling_client, httpx, sys
for _ in range(2):
    httpx.post(sys.argv[1], json={})
"""


def block() -> Any:
    return batchify(live_display=False)


def counted(run: Run) -> list[tuple[str, str, int]]:
    return [(one.reason, one.host, one.n_calls) for one in run.progress.passed]


def in_a_child(work: Callable[[], object]) -> None:
    """Run something in a forked child."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def start(site: Site) -> None:
    subprocess.run([sys.executable, "-c", textwrap.dedent(CHILD), site.url], timeout=60, check=True)


def test_calls_of_a_child_that_imports_batchling_are_counted_in_the_newest_block(site: Site) -> None:
    with block() as outer, block() as run:
        start(site)
        assert counted(run) == [("child process", site.host, 2)]
        assert counted(outer) == []
    assert f"2 calls passed at full price: 2 to {site.host} (child process)" in run.summary()
    with block() as next_run:
        start(site)
    assert counted(next_run) == [("child process", site.host, 2)]
    assert counted(run) == [("child process", site.host, 2)]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_calls_of_a_forked_child_and_of_its_child_are_counted(site: Site) -> None:
    def call() -> None:
        ask_blocking(site.url)
        in_a_child(lambda: ask_blocking(site.url))

    with block() as run:
        in_a_child(call)
    assert counted(run) == [("child process", site.host, 4)]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_calls_of_a_child_that_a_thread_beside_an_async_block_forks_are_counted(site: Site) -> None:
    async with block() as run:
        with ThreadPoolExecutor(1) as pool:
            await asyncio.get_running_loop().run_in_executor(pool, in_a_child, lambda: ask_blocking(site.url))
    assert counted(run) == [("child process", site.host, 2)]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = child_calls.make()
    assert path is not None
    return Path(path)


def test_the_file_is_private_and_grows_with_hosts_and_not_with_calls(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    calls = child_calls.ChildCalls(str(file))

    def count() -> None:
        for _ in range(50):
            calls.note("a.example")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for n in range(100):
        calls.note(f"https://b{n}.example/path?key=sk-secret")
    found = list(child_calls.read(str(file)).values())
    assert found[0] == ("a.example", 200)
    assert sum(n_calls for _, n_calls in found) == 300
    assert len(found) == child_calls.MOST_HOSTS + 1
    assert "secret" not in file.read_text()


def test_many_children_count_in_one_file(file: Path) -> None:
    children_of_it = [child_calls.ChildCalls(str(file)) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for child in children_of_it:
            for _ in range(25):
                pool.submit(child.note, "a.example")
    assert sorted(child_calls.read(str(file)).values()) == [("a.example", 25)] * 8


def test_the_file_of_child_calls_is_read_as_untrusted_input(file: Path) -> None:
    def line(text: str) -> bytes:
        return f"{text:<{child_calls.LINE - 1}}\n".encode("latin-1")

    good = line("000000000003 a.example")
    with file.open("ab") as written:
        for one in (
            line("nonsense"),
            line("-00000000003 a.example"),
            line("000000000001 \x1b[31m"),
            line("0" * 12),
            good,
        ):
            written.write(one)
        written.write(secrets.token_bytes(child_calls.LINE * 3))
        written.write(good[:50])
    assert child_calls.read(str(file)) == {5: ("a.example", 3)}
    with file.open("ab") as written:
        written.write(good * (child_calls.MOST_LINES + 10))
    assert len(child_calls.read(str(file))) <= child_calls.MOST_LINES
    size = file.stat().st_size
    child_calls.ChildCalls(str(file)).note("a.example")
    assert file.stat().st_size == size


@pytest.mark.parametrize("how", ["link", "second name", "readable", "another file", "gone", "folder"])
def test_a_file_that_is_not_the_parents_is_neither_read_nor_written(how: str, file: Path) -> None:
    path = file
    child_calls.ChildCalls(str(file)).note("a.example")
    if how == "link":
        path = file.with_suffix(".link")
        path.symlink_to(file)
    elif how == "second name":
        path = file.with_suffix(".name")
        path.hardlink_to(file)
    elif how == "readable":
        file.chmod(0o644)
    elif how == "another file":
        file.write_bytes(b"somebody's words" * 100)
    elif how == "gone":
        file.unlink()
    else:
        path = file.parent
    before = file.read_bytes() if file.exists() else None
    child_calls.ChildCalls(str(path)).note("a.example")
    assert child_calls.read(str(path)) == {}
    assert (file.read_bytes() if file.exists() else None) == before


def test_a_file_that_cannot_be_made_leaves_the_block_as_it_is(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_processes._open, "path", None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with block() as run:
        assert os.environ[child_processes.VARIABLE] == f"{os.getpid()}:"
        start(site)
    assert counted(run) == []


def test_the_file_is_gone_with_its_process(tmp_path: Path) -> None:
    program = "from batchling_client import batchify\nwith batchify(live_display=False): pass"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=True)
    assert list(tmp_path.glob("*.children")) == []


SPAWNING = """
import logging, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor

URL = {url!r}

def ask(n):
    import httpx
    logged = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    httpx.post(URL, json={{}})
    return [line for line in logged if "full price" in line]

if __name__ == "__main__":
    from batchling import batchify

    for method in ("spawn", "forkserver"):
        with batchify(live_display=False) as run:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
                said = list(pool.map(ask, range(2)))
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
            outside = list(pool.map(ask, range(2)))
        passed = [(one.reason, one.n_calls) for one in run.progress.passed]
        print(method, [len(lines) for lines in said], outside, passed, flush=True)
"""


def test_spawned_processes_say_once_that_their_block_does_not_reach_them(tmp_path: Path, site: Site) -> None:
    script = tmp_path / "spawning.py"
    script.write_text(SPAWNING.format(url=site.url))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.stdout.splitlines() == [
        f"{method} [1, 0] [[], []] [('child process', 2)]" for method in ("spawn", "forkserver")
    ], done.stderr
    # The summary of a block that has caught nothing.
    assert done.stderr.count("2 calls passed at full price") == 2
    assert len(site.called) == 8
