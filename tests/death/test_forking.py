"""A pool child may be forked at any moment: nothing of its parent may be half done."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, sys
import httpx
from batchling_client.wire import scripts
from batchling_worker import forking
from batchling_worker.sandbox import Sandbox

with Sandbox() as sandbox:
    forking.preload()
    before = set(sys.modules)

    async def call():
        async with httpx.AsyncClient() as http:
            await http.get(sandbox.url)
        scripts.source.__wrapped__("claim")

    asyncio.run(call())
    print(sorted(set(sys.modules) - before))
"""


def test_a_step_imports_nothing_that_its_worker_has_not_loaded_before_it_forks() -> None:
    seen = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
