"""Words of callers and providers steer no terminal and forge no line, in any command, display or log line."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import logging
from collections.abc import Iterator
from typing import Final

import click
import pytest
from rich.console import Console

from batchling_client.cli.main import main
from batchling_client.errors import BatchlingError
from batchling_client.progress import live_screen
from batchling_client.progress.live_screen import LiveScreen
from batchling_client.progress.log_screen import LogScreen
from batchling_client.progress.picture import Look, picture_of, text_of
from batchling_client.views.inspection import Inspection
from batchling_client.wire import shown
from batchling_client.wire.keys import BatchId
from batchling_client.wire.states import BatchState, RowKind
from batchling_worker.log_lines import JsonLines, LogfmtLines, emit
from batchling_worker.pages.loader import escaped
from tests.scripts.byhand import ByHand, ids, out

STEERING: Final = "\x1b[2J\x1b]0;owned\x07\x1b]52;c;ZWNobw==\x07\x9b2J\r\n\u202e\u2066\u0085\u2028\u200b"
EVIL: Final = f"evil{STEERING}FORGED line"
DANGEROUS: Final = frozenset(STEERING) - set("[2J]0;owned52;cZWNobw==")
WORDS: Final = (
    b"error",
    b"provider_status",
    b"provider_batch_id",
    b"label",
    b"input_file_id",
    b"quota_id",
    b"name",
)
"""Fields of records that hold words of others; every other text field is set, too, where the record stays readable."""


def steers(text: str) -> list[str]:
    """Return what a text could do: its characters that are not to be printed, and lines that were forged."""
    found = [f"U+{ord(one):04X}" for one in DANGEROUS - {"\n"} if one in text]
    return found + ["forged line" for line in text.split("\n") if line.startswith("FORGED")]


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command of the group that reads a deployment, those of the worker too."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        elif command is not None and any(one.name == "redis_url" for one in command.params):
            yield (*path, name), command


COMMANDS: Final = {words: command for words, command in commands(main) if words[0] not in ("run", "submit")}
"""`run` and `submit` show what their own caller says, and nothing of what Redis holds."""


def test_one_function_escapes_whatever_cannot_be_printed_and_keeps_json_exact() -> None:
    everything = "".join(map(chr, (*range(0xD800), *range(0xDC00, 0x11000), 0xE0001, 0x10FFFF)))
    assert shown.escaped(everything).isprintable()
    for n in range(0, len(everything), 5000):
        some = everything[n : n + 5000]
        assert json.loads(shown.as_json(some)) == some
        assert all(line.isprintable() for line in shown.as_json([some], indent=2).split("\n"))
    assert shown.shown(f"a \n b{EVIL}").isprintable()
    assert len(shown.shown("x" * 10**6, 50)) == len(shown.shown("\x1b" * 10**6, 50)) == 50
    assert shown.shown("gpt-5 (größer)") == "gpt-5 (größer)"
    line = json.dumps({"a": EVIL, "b": "\U0001f468\u200d\U0001f469"}, ensure_ascii=False).encode()
    assert json.loads(shown.json_line(line)) == json.loads(line)
    assert not steers(shown.json_line(line).decode())


async def evil_deployment(byhand: ByHand) -> list[BatchId]:
    """Fill a namespace by the scripts and then by raw writes, so that every word in it is of others."""
    made = []
    for state in BatchState:
        byhand.use_model(f"{EVIL}{state.value}")
        (one,) = ids(1)
        made.append(await byhand.in_state(state, [one]))
    byhand.use_model(EVIL)
    failed = await byhand.in_state(BatchState.ENDED, ids(1))
    (row,) = await byhand.ids_of(failed)
    token = await byhand.claimed(failed)
    await byhand.deliver(failed, token, [out(row, RowKind.FAILURE, about=f"400 {EVIL.replace(' ', '_')}")])
    for batch_id in made:
        key = byhand.keys.batch(batch_id)
        stored = await byhand.redis.execute_command("HGETALL", key)
        for field in {*WORDS, *stored}:
            raw = stored.get(field, b"")
            if field in WORDS or not raw:
                await byhand.redis.execute_command("HSET", key, field, EVIL)
                if await Inspection(byhand.redis, byhand.keys).batch(batch_id) is None:
                    await byhand.redis.execute_command("HSET", key, field, raw)
        await byhand.redis.execute_command("HSET", key, "timeline", f"1764547200000 {EVIL}\n")
    await byhand.redis.execute_command("HSET", byhand.keys.run(byhand.run_id), "name", EVIL)
    return [*made, failed]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
async def test_no_command_is_steered(
    words: tuple[str, ...],
    byhand: ByHand,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    batch_ids = await evil_deployment(byhand)
    monkeypatch.setenv("BATCHLING_REDIS_URL", redis_url)
    monkeypatch.setenv("BATCHLING_NAMESPACE", byhand.keys.namespace)
    command = COMMANDS[words]
    names = {one.name for one in command.params}
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    calls = [[*words]]
    if arguments:
        some = (
            [*batch_ids, byhand.run_id, EVIL, "groq"]
            if words[0] in ("show", "failures")
            else [byhand.run_id, EVIL]
        )
        calls = [[*words, str(one)] for one in some]
    calls += [[*call, "--rows"] for call in calls] if "rows" in names else []
    calls += [[*call, "--json"] for call in calls] if "as_json" in names else []
    calls = [[*call, "--times", "1"] for call in calls] if "times" in names else calls

    for call in calls:
        with pytest.raises(SystemExit):
            await asyncio.to_thread(main.main, call)
        said = capfd.readouterr()
        assert not steers(said.out), call
        assert not steers(said.err), call
        if "--json" in call and said.out:
            json.loads(said.out)


async def test_no_display_is_steered(byhand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_ids = await evil_deployment(byhand)
    batches = [await byhand.batch(one) for one in batch_ids]
    assert any(EVIL in batch.error for batch in batches)

    class Counts:
        n_requests = n_waiting = 9
        n_answered = n_failed = n_realtime = n_left = n_reused = 1

    now = dt.datetime.now(dt.UTC)
    look = Look(title=EVIL, counts=Counts(), batches=batches, now=now, began_at=now)
    for line in text_of(picture_of(look)):
        assert line.isprintable()
    written = io.StringIO()

    def console(**_: object) -> Console:
        return Console(file=written, force_terminal=True, color_system=None, width=200, height=60)

    monkeypatch.setattr(live_screen, "_Terminal", console)
    screen = LiveScreen()
    screen.draw(look)
    screen.close()
    drawn = written.getvalue()
    assert "evil" in drawn
    assert not {"\x07", "\x9b", "\u202e", "\u2066", "\u2028", "\u200b"} & set(drawn)
    assert "\x1b[2J" not in drawn
    assert "\x1b]" not in drawn


async def test_no_line_of_a_log_or_of_stderr_is_steered(
    byhand: ByHand, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    batches = [await byhand.batch(one) for one in await evil_deployment(byhand)]
    now = dt.datetime.now(dt.UTC)

    class Counts:
        n_requests = n_waiting = n_answered = n_failed = n_realtime = n_left = n_reused = 1

    look = Look(title=EVIL, counts=Counts(), batches=batches, now=now, began_at=now)
    with caplog.at_level(logging.INFO, "batchling"):
        LogScreen(to_stderr=True).draw(look)
        emit(
            logging.getLogger("batchling.worker"),
            logging.WARNING,
            "step_stumbled",
            {"model": EVIL, "reason": EVIL},
        )
    assert caplog.records
    for record in caplog.records:
        if record.name == "batchling":
            assert not steers(record.getMessage())
    for formatter in (LogfmtLines(), JsonLines()):
        for record in caplog.records:
            line = formatter.format(record)
            assert line.isprintable()
    said = capfd.readouterr()
    assert not steers(said.out + said.err)


def test_no_exception_and_no_page_is_steered() -> None:
    assert not steers(str(BatchlingError(f"It failed: {EVIL}")).replace("\nFORGED", ""))
    page = escaped(f"<img>{EVIL}")
    assert not [one for one in DANGEROUS - {"\n"} if one in page]
    assert "<img>" not in page
