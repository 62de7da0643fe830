"""The demo: runs a program as a user would write it against the sandbox, and reports what happened."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypeAlias

import click
import httpx

from batchling import batchify
from batchling_client.wire.deployment.rehearsing import environment_of

from ..sandbox import LedgerPage
from .stage import stage

FAST: Final = "llama-3.1-8b-instant"
SLOW: Final = "openai/gpt-oss-20b"
SPEEDS: Final = {FAST: 1.0, SLOW: 5.0}
N_EACH: Final = 150
LONGEST: Final = 30
"""The longest part of an answer that is shown: a line fits on a terminal of 80 columns."""
KEY: Final = "sandbox-needs-no-key"
URL: Final = "https://api.groq.com/openai/v1/chat/completions"

Ask: TypeAlias = Callable[[str, str], Awaitable[tuple[str, str]]]
"""Model and prompt in, model and answer out."""


def play(home: Path) -> int:
    """Run the demo below `home` and return the exit code: 0 if every request was answered and none billed twice.

    Raises `StackError`.
    """
    started_s = time.monotonic()
    click.echo("Starting a Redis, a worker and a sandbox that stands in for Groq.")
    with _ended_in_order(), stage(home, speeds=SPEEDS) as held, environment_of(held.environment):
        done_s = asyncio.run(_program())
        page = held.sandbox.ledger()
    _account(page, done_s, time.monotonic() - started_s)
    complete = len(done_s) == len(SPEEDS) and page.totals.n_rows == N_EACH * len(SPEEDS)
    return 0 if complete and page.totals.n_billed_twice == 0 and page.totals.n_realtime == 0 else 1


async def _program() -> dict[str, float]:
    """Ask both models everything at once and print answers as they come; return when each model was done."""
    n_of: dict[str, int] = dict.fromkeys(SPEEDS, 0)
    done_s: dict[str, float] = {}
    async with AsyncExitStack() as clients:
        ask, sdk = await _asker(clients)
        click.echo(f"{N_EACH * len(SPEEDS)} requests to two models over {sdk}; answers as they come:\n")
        async with batchify(
            batch_window_seconds=0.3,
            batch_poll_interval_seconds=0.3,
            cache=False,
            live_display=False,
            name="demo",
        ):
            asked_s = time.monotonic()
            tasks = [ask(model, f"Name one use of batch {n}.") for n in range(N_EACH) for model in SPEEDS]
            for answer in asyncio.as_completed(tasks):
                model, text = await answer
                n_of[model] += 1
                passed_s = time.monotonic() - asked_s
                if n_of[model] == 1:
                    click.echo(f"{passed_s:5.1f} s  {model}: first answer, {_short(text)}")
                if n_of[model] == N_EACH:
                    done_s[model] = passed_s
                    click.echo(f"{passed_s:5.1f} s  {model}: all {N_EACH} answered")
    return done_s


async def _asker(clients: AsyncExitStack) -> tuple[Ask, str]:
    """Return a function that asks, and its name: Groq's own SDK if installed, else httpx; neither knows of batches."""
    if find_spec("groq") is None:
        http = await clients.enter_async_context(
            httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"})
        )

        async def ask_plainly(model: str, prompt: str) -> tuple[str, str]:
            body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
            reply = (await http.post(URL, json=body)).raise_for_status().json()
            return model, str(reply["choices"][0]["message"]["content"])

        return ask_plainly, "httpx"
    groq = importlib.import_module("groq")
    client = await clients.enter_async_context(groq.AsyncGroq(api_key=KEY))

    async def ask(model: str, prompt: str) -> tuple[str, str]:
        reply = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": prompt}]
        )
        return model, str(reply.choices[0].message.content)

    return ask, f"the groq SDK {groq.__version__}"


def _account(page: LedgerPage, done_s: dict[str, float], passed_s: float) -> None:
    totals = page.totals
    if len(done_s) == len(SPEEDS):
        ahead, behind = sorted(done_s, key=done_s.__getitem__)
        lead_s = done_s[behind] - done_s[ahead]
        click.echo(f"\n{ahead} was done {lead_s:.1f} s before {behind}.")
        click.echo("No answer waited for another batch.")
    twice = "none twice" if not totals.n_billed_twice else f"{totals.n_billed_twice} TWICE"
    click.echo(
        f"The sandbox billed {totals.n_rows} rows in {totals.n_batches} batches, {twice}; "
        f"{totals.n_realtime} calls at full price."
    )
    click.echo(f"Done in {passed_s:.1f} s; stack and sandbox have ended. Your turn:")
    click.echo("\n    batchling run --sandbox SCRIPT.py")


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM end the demo like Ctrl-C, so that nothing of it stays behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= LONGEST else f'"{line[: LONGEST - 1]}…"'
