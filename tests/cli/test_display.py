"""The display shows what happens, stays out of the program's way and leaves the terminal as it was."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import errno
import logging
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from redis.asyncio import Redis

from batchling_client.block.counts import Progress
from batchling_client.cli import tables
from batchling_client.progress import batch_lines, display, live_screen, wait_reasons
from batchling_client.progress.folding import folded
from batchling_client.progress.log_screen import LogScreen
from batchling_client.progress.picture import Look, picture_of, text_of
from batchling_client.progress.time_left import TimeLeft, Took, longest_left
from batchling_client.views.batch_view import view_of
from batchling_client.views.inspection import Inspection
from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import Keys, RunId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import LaneSpec
from tests.deployment import Deployment
from tests.waiting import wait_until

from .command import PROGRAM

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
QUICK = ("--batch-window-seconds", "0.1", "--batch-poll-interval-seconds", "0.1")


@dataclass(frozen=True)
class Shown:
    """A run as the display sees it."""

    redis: Redis
    keys: Keys
    id: RunId
    name: str | None = None
    progress: Progress = field(default_factory=Progress)

    def summary(self) -> str:
        return "all is well"

    def failures(self) -> Sequence[str]:
        return ()

    def set_reasons(self, reasons: Sequence[str]) -> None:
        """Do nothing: nobody asks."""


class Broken(Shown):
    def summary(self) -> str:
        raise RuntimeError("nothing to sum up")


def batch(number: int, state: str, **fields: object) -> Batch:
    spec = LaneSpec(
        provider="groq",
        host="api.groq.com",
        endpoint="/v1/chat/completions",
        model="m",
        fingerprint="f",
        completion_window="24h",
    )
    created_ms = int(NOW.timestamp() * 1000) - 75_000
    stored = {
        "id": f"b{number:03}",
        "lane": spec.lane_id,
        "state": state,
        "created_at": created_ms,
        "n_requests": 10,
    }
    packed = {name.encode(): str(value).encode() for name, value in {**stored, **fields}.items()}
    return Batch.decode({**packed, b"spec": spec.encode()})


def look(batches: Sequence[Batch], counts: Progress | None = None, left: dt.timedelta | None = None) -> Look:
    began_at = NOW - dt.timedelta(seconds=100)
    counts = counts or Progress()
    return Look(title="evals", counts=counts, batches=batches, now=NOW, began_at=began_at, left=left)


def test_a_line_tells_state_rows_age_and_the_providers_reason() -> None:
    running = batch(1, "submitted", provider_status="in_progress", n_done=4, provider_batch_id="batch_1")
    failed = batch(2, "failed", error="quota is used up", n_failed=10)

    assert batch_lines.line_of(running, NOW) == "groq/m  submitted (in_progress)  4/10  1:15  batch_1"
    assert batch_lines.line_of(failed, NOW).endswith("failed  10/10  1:15  b002  quota is used up")


def test_a_state_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    screen = LogScreen(to_stderr=True)

    screen.draw(look([batch(1, "open")]))
    screen.draw(look([batch(1, "open", n_requests=20)]))
    screen.draw(look([batch(1, "sealed")]))

    assert len(capsys.readouterr().err.splitlines()) == 2


def test_each_reason_to_wait_is_one_warning_for_a_batch(caplog: pytest.LogCaptureFixture) -> None:
    screen = LogScreen(to_stderr=True)
    errors = ["busy, see req_1", "busy, see req_2", "401 no such key", "busy, see req_3", "401 no such key"]

    for error in errors:
        screen.draw(look([batch(1, "submitted", error=error), batch(2, "submitted", error=error)]))
    screen.draw(look([batch(3, "failed", error="it is over")]))

    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "groq/m: busy, see req_1 (20 requests in 2 batches)",
        "groq/m: 401 no such key (20 requests in 2 batches)",
    ]


def test_a_batch_whose_requests_have_all_ended_waits_for_nothing() -> None:
    ended = batch(1, "ended", error="the provider reports the batch as failed", n_failed=8, n_requeued=2)
    ending = batch(2, "ended", error="the provider reports the batch as failed", n_failed=8)

    assert wait_reasons.reasons([ended]) == []
    assert wait_reasons.reasons([ended, ending]) == [
        "groq/m: the provider reports the batch as failed (2 requests in batch b002)"
    ]


def test_a_failure_and_the_wait_after_it_are_one_reason() -> None:
    said = wait_reasons.WaitReasons()

    first = said.news([batch(1, "submitting", error="groq could not be reached")])
    then = said.news([batch(1, "sealed", error="held for 8 s: groq could not be reached")])

    assert (len(first), then) == (1, [])


def test_lines_are_broken_at_words_and_commands_stay_whole() -> None:
    text = "Redis does not answer at redis://127.0.0.1:1: look with `batchling show r0mx2zjdxy4qr3za6s`."

    lines = folded(text, 60, indent=4).splitlines()

    assert lines[1:] == ["    `batchling show r0mx2zjdxy4qr3za6s`."]
    assert folded(text, None) == text
    assert max(map(len, folded(f"{text} {text}", 60).splitlines())) <= 60


def test_a_list_fits_the_terminal_and_is_whole_in_a_pipe() -> None:
    why = "openai answered 403 when asked to store a file: portal key or team missing"
    ended = [batch(1, "failed", error=why), batch(2, "settled")]
    found = [view_of(one, now=NOW, next_look_at=None, version=1) for one in ended]

    heading, first, *rest, last = map(click.unstyle, tables.batches(found, NOW, 60))

    assert (first.split()[0], last.split()[0]) == ("b001", "b002")
    assert " ".join(" ".join(rest).split()) == why
    assert max(map(len, [heading, first, *rest, last])) <= 60
    assert why in tables.batches(found, NOW)[1]


def test_warnings_come_to_an_end(caplog: pytest.LogCaptureFixture) -> None:
    screen = LogScreen(to_stderr=False)

    for n in range(200):
        words = "".join(chr(ord("a") + int(digit)) for digit in str(n))
        screen.draw(look([batch(1, "submitted", error=words * 200)]))

    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == wait_reasons.MOST_OF_A_RUN + 1
    assert warnings[-1] == wait_reasons.THAT_IS_ALL
    assert max(map(len, warnings)) < 2 * wait_reasons.LONGEST


def test_without_logging_a_warning_is_on_stderr() -> None:
    code = "from batchling_client.progress import display; display.warn('the key is refused')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "batchling: the key is refused\n"


def test_a_program_with_logging_gets_log_lines(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="batchling"):
        LogScreen(to_stderr=True).draw(look([batch(1, "open")]))

    assert "groq/m  open" in caplog.text
    assert capsys.readouterr().err == ""


async def test_the_display_survives_a_redis_that_is_away(tmp_path: Path) -> None:
    away = connect(f"unix://{tmp_path}/nobody.sock")
    task = asyncio.create_task(display.show(Shown(away, Keys("x"), RunId("r")), live=True))

    await asyncio.sleep(0)
    done, _ = await asyncio.wait([task], timeout=0.2)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await away.aclose()

    assert not done


def test_a_summary_that_fails_breaks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    away = connect(f"unix://{tmp_path}/nobody.sock")
    display.report(Broken(away, Keys("x"), RunId("r")))
    display.report(Shown(away, Keys("x"), RunId("r")))

    assert capsys.readouterr().err == "batchling: all is well\n"


async def test_a_terminal_batch_is_not_read_again(deployment: Deployment) -> None:
    await deployment.ask(1)
    (run,) = await deployment.redis.execute_command("ZRANGE", deployment.keys.runs, 0, -1)
    looking = Inspection(deployment.redis, deployment.keys)
    watch = display.Watch(looking, RunId(run.decode()))

    (first,) = await watch.look()
    key = deployment.keys.batch(first.batch_id)
    await deployment.redis.execute_command("HSET", key, "state", "settled")
    (second,) = await watch.look()
    await deployment.redis.execute_command("UNLINK", key)
    (third,) = await watch.look()

    assert (first.state.terminal, second.state.terminal) == (False, True)
    assert third is second


async def on_terminal(
    words: list[str], env: dict[str, str], *, out: Path | None = None, program: str = PROGRAM
) -> tuple[int, str, bool]:
    """Run a command on its own terminal; return exit code, output, and whether the terminal modes are as before."""
    ours, theirs = pty.openpty()
    modes = termios.tcgetattr(theirs)
    with contextlib.ExitStack() as files:
        stdout = files.enter_context(out.open("wb")) if out is not None else theirs
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, *words),
            stdin=theirs,
            stdout=stdout,
            stderr=theirs,
            env={**env, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
        )
    seen = bytearray()

    def read() -> None:
        try:
            seen.extend(os.read(ours, 65536))
        except OSError as error:
            if error.errno != errno.EIO:
                raise

    loop = asyncio.get_running_loop()
    loop.add_reader(ours, read)
    code = await asyncio.wait_for(process.wait(), 45)
    os.write(theirs, b"<end>")
    await wait_until(lambda: seen.endswith(b"<end>"), description="the terminal is read to its end")
    loop.remove_reader(ours)
    same = termios.tcgetattr(theirs) == modes
    os.close(ours)
    os.close(theirs)
    return code, seen.decode(), same


async def test_a_terminal_shows_a_line_a_batch_and_is_left_as_it_was(
    deployment: Deployment, script: Path
) -> None:
    deployment.worker()

    code, seen, same = await on_terminal(["run", f"{script}:answers", "3", *QUICK], deployment.env)

    assert code == 0, seen
    assert "groq/llama-3.1-8b-instant" in seen
    assert "/3" in seen
    assert "statuses 200 200 200" in seen
    assert "3 of 3 requests answered" in seen
    last = [row for row in shown(seen) if row.startswith("groq/llama-3.1-8b-instant")]
    assert [row.split()[1:3] for row in last] == [["done", "3/3"]], "the last picture is the final one"
    assert [row for row in shown(seen) if "3/3  100 %" in row]
    assert same
    assert "\x1b[?25l" not in seen
    assert "\x1b[?1049h" not in seen


async def test_output_that_goes_to_a_file_stays_in_the_file(
    deployment: Deployment, script: Path, tmp_path: Path
) -> None:
    deployment.worker()
    out = tmp_path / "out.txt"

    code, seen, _ = await on_terminal(["run", f"{script}:answers", "2", *QUICK], deployment.env, out=out)

    assert code == 0, seen
    assert out.read_text(encoding="utf-8") == "statuses 200 200\n"
    assert "statuses" not in seen
    assert "groq/llama-3.1-8b-instant" in seen


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_narrow_terminal_shows_counts_and_ages_whole(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "COLUMNS": str(columns),
        "FORCE_COLOR": "1",
        "NO_COLOR": "1",
        "TERM": "xterm",
    }.items():
        monkeypatch.setenv(name, value)
    long_id = "batch_0189af5b67b74c173fd0189af5b67b7"
    status = "waiting for the input file"
    running = batch(1, "submitted", provider_status=status, n_done=4, provider_batch_id=long_id)
    settled = batch(2, "settled", n_requests=12_345, n_succeeded=12_345, provider_batch_id=long_id)
    screen = live_screen.LiveScreen()

    screen.draw(look([running, settled]))
    screen.close()

    lines = capsys.readouterr().err.splitlines()
    assert any("12,349/12,355" in line and "1:15" in line for line in lines)
    assert columns < 80 or any("running" in line for line in lines)
    widest = max(len(click.unstyle(line)) for line in lines)
    assert columns < 60 or widest <= columns - len("^C"), "a terminal echoes Ctrl-C behind the last line"


def test_a_header_counts_the_run_and_a_line_each_model() -> None:
    counts = Progress(n_requests=40, n_waiting=18, n_succeeded=20, n_failed=2, n_reused=12)
    running = batch(1, "submitted", n_done=4, provider_batch_id="batch_1", provider_status="in_progress")
    batches = [running, batch(2, "settled", n_succeeded=8, n_failed=2), batch(3, "ended", n_succeeded=10)]

    header, model, *notes = text_of(picture_of(look(batches, counts, dt.timedelta(minutes=20))))

    assert header == "evals  22/40  55 %  6.0/min  1:40  ~20 m 0 s left  2 failed"
    assert model == "groq/m  1 running, 2 done  24/30  2 failed  1:15  3 batches"
    assert notes == ["from earlier runs  12"]


def test_requests_at_full_price_count_as_answered_and_say_so() -> None:
    counts = Progress(n_requests=10, n_realtime=10)

    header, _, *notes = text_of(picture_of(look([batch(1, "cancelled")], counts)))

    assert header.startswith("evals  10/10  100 %")
    assert notes == ["sent at full price  10"]


def test_a_cause_is_one_line_whichever_models_it_holds_up() -> None:
    counts = Progress(n_requests=30, n_waiting=30)
    error = "openai answered 401, see req_{}"
    batches = [batch(n, "submitted", error=error.format(n)) for n in range(3)]

    lines = text_of(picture_of(look(batches, counts)))

    assert [line for line in lines if "401" in line] == [
        "30 requests of m wait: openai answered 401, see req_0"
    ]


def ran(seconds: float, n: int = 10) -> Took:
    return Took(n_requests=n, seconds=seconds)


def test_time_left_comes_from_batches_of_like_size_in_the_same_lane() -> None:
    submitted_ms = int(NOW.timestamp() * 1000) - 60_000
    one = batch(1, "submitted", submitted_at=submitted_ms)
    lane = one.lane_id
    alike, large = [ran(90), ran(100), ran(200)], [ran(4000, 900), ran(5000, 900)]

    assert longest_left([one], {lane: [*alike, *large]}, NOW) == dt.timedelta(seconds=40)
    assert longest_left([one], {lane: large}, NOW) == dt.timedelta(seconds=4440)
    assert longest_left([one], {lane: [ran(30), ran(90)]}, NOW) is not None
    assert longest_left([one], {lane: [ran(30)]}, NOW) is None, "it takes longer than any before it"
    assert longest_left([one], {}, NOW) is None
    waits = batch(2, "submitted", submitted_at=submitted_ms, error="the key is refused")
    assert longest_left([one, waits], {lane: alike}, NOW) is None


async def test_time_left_is_read_from_the_last_batches_of_the_lane(deployment: Deployment) -> None:
    deployment.worker()
    await deployment.answered(await deployment.ask(2))
    await deployment.settled()
    await deployment.ask(2, linger_ms=60_000)
    batches = await deployment.batches()

    left = await TimeLeft(deployment.redis, deployment.keys).of(batches, dt.datetime.now(dt.UTC))

    assert left is not None
    assert dt.timedelta() < left < dt.timedelta(seconds=30)


BAR = """
import sys, time
from batchling_client.block.counts import Progress
from batchling_client.progress.live_screen import LiveScreen
from tests.cli.test_display import NOW, batch, look
screen = LiveScreen()
counts = Progress(n_requests=10, n_waiting=10)
screen.draw(look([batch(1, "open")], counts))
print("a line of the program")
sys.stderr.write("\\r 10%|#   |")
screen.draw(look([batch(1, "sealed")], counts))
sys.stderr.write("\\r 90%|####|\\n")
screen.close()
print("end")
"""


async def test_beside_a_bar_that_rewrites_its_line_whole_lines_are_printed(tmp_path: Path) -> None:
    code, seen, same = await on_terminal(["-"], dict(os.environ), program=BAR)

    assert code == 0, seen
    assert same
    rows = shown(seen)
    assert "a line of the program" in rows
    assert [row for row in rows if "sealed" in row], "its news is a line of its own"
    assert rows.index(" 90%|####|") == len(rows) - 2
    assert not [row for row in rows if "collecting" in row], "the picture has given way"


def shown(seen: str) -> list[str]:
    """Return what a terminal shows after these bytes: a small one, that knows what the display writes."""
    rows: list[str] = [""]
    at = 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", seen.partition("<end>")[0]):
        if part == "\n":
            at += 1
            rows += [""] * (at == len(rows))
        elif part == "\r":
            rows[at] = "\r" + rows[at].removeprefix("\r")
        elif part.endswith("A") and part.startswith("\x1b"):
            at = max(0, at - int(part[2:-1] or 1))
        elif part.endswith("K") and part.startswith("\x1b"):
            rows[at] = ""
        elif not part.startswith("\x1b"):
            rows[at] = part if rows[at].startswith("\r") else rows[at] + part
    return [row.removeprefix("\r").rstrip() for row in rows if row.strip()]
