"""The sandbox as a server: in this process, as a program, with many rows, and its cleanup."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from batchling_worker.sandbox import Sandbox, emulator

from .caller import CHAT, Caller, line, lines

SETTING = re.compile(r"^export (BATCHLING_PROVIDERS__[A-Z]+__BASE_URL)=(http://127\.0\.0\.1:\d+/[a-z]+)$")


def test_every_registered_provider_has_a_base_url(sandbox: Sandbox) -> None:
    assert "openai" in emulator.names()
    for name in emulator.names():
        assert sandbox.settings()[f"BATCHLING_PROVIDERS__{name.upper()}__BASE_URL"] == f"{sandbox.url}/{name}"
    with pytest.raises(KeyError):
        sandbox.base_url("acme")


def test_taken_port_is_an_error_at_start(sandbox: Sandbox) -> None:
    with pytest.raises(OSError, match="address"):
        Sandbox(sandbox.port).start()


def test_files_are_gone_after_stop() -> None:
    with Sandbox() as sandbox:
        httpx.post(
            sandbox.base_url("openai") + "/v1/files",
            headers={"Authorization": "Bearer key"},
            data={"purpose": "batch"},
            files={"file": ("in.jsonl", b"{}\n")},
        ).raise_for_status()
        directory = Path(sandbox._directory.name)
        assert list(directory.iterdir())
    assert not directory.exists()


async def test_sandbox_is_an_async_context_manager() -> None:
    async with Sandbox(speeds={"*": 0.01}) as sandbox, Caller(sandbox, "groq") as caller:
        batch_id = await caller.create(lines(3))
        sandbox.clock.advance(1)
        assert (await caller.batch(batch_id))["status"] == "completed"


@contextmanager
def program(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run the sandbox as a program; yield it and the settings it printed."""
    command = [sys.executable, "-m", "batchling_worker.sandbox", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            n_lines = sum(len(emulator.settings(name, "http://x")) for name in emulator.names())
            found = [SETTING.match(running.stdout.readline().strip()) for _ in range(n_lines)]
            yield running, {match[1]: match[2] for match in found if match}
        finally:
            if running.poll() is None:
                running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_program_prints_its_settings_and_stops_on_a_signal(number: signal.Signals) -> None:
    with program("--seconds", "m=0.5") as (running, settings):
        base_urls = {f"BATCHLING_PROVIDERS__{name.upper()}__BASE_URL" for name in emulator.names()}
        assert settings.keys() >= base_urls
        url = httpx.URL(settings["BATCHLING_PROVIDERS__GROQ__BASE_URL"])
        assert httpx.get(url.join("/_sandbox/speeds")).json() == {"m": 0.5}
        running.send_signal(number)
        assert running.wait(20) == 0


def test_memory_does_not_grow_with_the_rows() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    with program("--seconds", "0.01") as (running, settings):
        url = httpx.URL(settings["BATCHLING_PROVIDERS__OPENAI__BASE_URL"])
        with httpx.Client(
            base_url=f"{url}/v1", headers={"Authorization": "Bearer key"}, timeout=60
        ) as client:
            run_batch(client, 10)
            before = peak_bytes(running.pid)
            n_bytes = run_batch(client, 10_000)
            assert n_bytes > 80_000_000
            assert peak_bytes(running.pid) - before < n_bytes / 4


def run_batch(client: httpx.Client, n_rows: int) -> int:
    padding = "x" * 8_000
    content = "".join(json.dumps(line(str(n), f"{n} {padding}")) + "\n" for n in range(n_rows)).encode()
    sent = client.post("/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)})
    ask = {
        "input_file_id": sent.raise_for_status().json()["id"],
        "endpoint": CHAT,
        "completion_window": "24h",
    }
    batch = client.post("/batches", json=ask).raise_for_status().json()
    client.post(client.base_url.join("/_sandbox/clock"), json={"advance": 1}).raise_for_status()
    batch = client.get(f"/batches/{batch['id']}").raise_for_status().json()
    assert batch["request_counts"]["completed"] == n_rows
    with client.stream("GET", f"/files/{batch['output_file_id']}/content") as answer:
        assert sum(chunk.count(b"\n") for chunk in answer.iter_raw()) == n_rows
    return len(content)


def peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize("endpoint", ["/batches", "/files", "/models"])
async def test_every_answer_has_a_request_id(caller: Caller, endpoint: str) -> None:
    answer = await caller.http.get(endpoint)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"].startswith("req_")


async def test_same_request_gets_the_same_answer(caller: Caller) -> None:
    body = line("a", "What is a batch?")["body"]
    answers = [(await caller.http.post("/chat/completions", json=body)).json() for _ in range(2)]
    assert answers[0]["choices"] == answers[1]["choices"]
    other = (await caller.http.post("/chat/completions", json=line("a", "Why?")["body"])).json()
    assert other["choices"] != answers[0]["choices"]
