"""The display beside other people's: in a notebook of a real kernel, and beside a bar of tqdm on a real terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
import termios
from typing import Any

import nbclient
import nbformat
import pytest

from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

CELL = """
import asyncio
from openai import AsyncOpenAI
from batchling import batchify

client = AsyncOpenAI(max_retries=0)

def ask(number):
    return client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": f"q {number}"}])

async with batchify(name="evals", batch_window_seconds=0.2, batch_poll_interval_seconds=0.1) as run:
    answers = await asyncio.gather(*map(ask, range(4)))
"""
BAR = """
import asyncio
from openai import AsyncOpenAI
from tqdm.asyncio import tqdm
from batchling import batchify

client = AsyncOpenAI(max_retries=0)

def ask(number):
    return client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": f"q {number}"}])

async def main():
    async with batchify(name="evals", batch_window_seconds=0.2, batch_poll_interval_seconds=0.1):
        await tqdm.gather(*map(ask, range(4)))

asyncio.run(main())
"""


def test_a_notebook_has_one_output_that_is_updated_and_nothing_in_red() -> None:
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])

    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()

    [shown] = notebook.cells[0].outputs
    header, model, summary = shown["data"]["text/plain"].splitlines()
    assert shown["output_type"] == "display_data"
    assert header.startswith("evals  4/4  100 %")
    assert model.startswith("openai/gpt-5-mini  done  4/4")
    assert summary.startswith("4 of 4 requests answered (run 'evals'")
    assert "4/4" in shown["data"]["text/html"]


async def test_the_lines_of_the_display_stand_above_a_bar_of_tqdm() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 100))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BAR),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    seen = bytearray()
    asyncio.get_running_loop().add_reader(ours, lambda: seen.extend(os.read(ours, 65536)))
    code = await asyncio.wait_for(process.wait(), 120)
    os.write(theirs, b"<end>")
    await wait_until(lambda: seen.endswith(b"<end>"), description="the terminal is read to its end")
    asyncio.get_running_loop().remove_reader(ours)
    os.close(ours)
    os.close(theirs)

    # What a carriage return has overwritten is not on the terminal any more.
    rows = [
        row.rpartition("\r")[2].removeprefix("\x1b[2K")
        for row in seen.decode().replace("\r\n", "\n").split("\n")
    ]
    assert code == 0, seen.decode()
    assert [row for row in rows if row.startswith("100%|") and "4/4" in row]
    ours_in_rows = [row for row in rows if "openai/gpt-5-mini" in row]
    assert ours_in_rows
    assert all(row.startswith("batchling: openai/gpt-5-mini  ") for row in ours_in_rows)
    assert [row for row in rows if row.startswith("batchling: 4 of 4 requests answered")]
