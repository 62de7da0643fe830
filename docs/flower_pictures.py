"""Writes docs/flower-*.png: pages of Flower over batches in varied states, in the machine's own Chromium.

`python docs/flower_pictures.py`, after `pip install '.[all,browser]'`.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from batchling_client.wire.keys import Keys  # noqa: E402
from batchling_client.wire.records.batch import UNENDED_ALLOWED  # noqa: E402
from batchling_client.wire.records.row_and_result import WorkerPresence  # noqa: E402
from batchling_client.wire.states import BatchState  # noqa: E402
from benchmarks.pages import running_flower  # noqa: E402
from benchmarks.workers import connected  # noqa: E402
from tests.redis_server import redis_server  # noqa: E402
from tests.scripts.byhand import ByHand, ids  # noqa: E402

PORT: Final = 6390
DAY_MS: Final = 86_400_000
PICTURES: Final = (
    ("flower-overview", "batchling", 1280, 720, "light"),
    ("flower-batches", "batches?state=all", 1280, 720, "light"),
    ("flower-phone", "batches", 390, 800, "dark"),
)


async def main() -> None:
    """Fill a Redis, start Flower over it, and take the pictures."""
    api: Any = importlib.import_module("playwright.async_api")
    with tempfile.TemporaryDirectory(prefix="bl-") as name, redis_server(port=PORT) as url:
        async with connected(url) as redis:
            await fill(ByHand(redis, Keys("default")))
        with running_flower(url, Path(name), Path(name) / "lateness") as port:
            async with api.async_playwright() as playwright:
                chromium = await playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                for picture, path, width, height, scheme in PICTURES:
                    tab = await chromium.new_page(
                        viewport={"width": width, "height": height}, color_scheme=scheme
                    )
                    await tab.goto(f"http://127.0.0.1:{port}/{path}")
                    await tab.wait_for_timeout(500)
                    await tab.screenshot(path=DOCS / f"{picture}.png")
                await chromium.close()


async def fill(byhand: ByHand) -> None:
    """Make a worker, and batches of several models in several states."""
    worker = WorkerPresence(name="worker@example", pid=1, version="1", pool="threads", seal_public_key="")
    await byhand.scripts.announce(name=worker.name, presence=worker.encode(), keep_ms=DAY_MS)
    for model, provider, state, n in (
        ("gpt-5-mini", "openai", BatchState.SETTLED, 120),
        ("gpt-5-mini", "openai", BatchState.SUBMITTED, 400),
        ("claude-haiku-4-5", "anthropic", BatchState.SUBMITTED, 300),
        ("o4-mini", "openai", BatchState.SEALED, 150),
        ("mistral-small", "mistral", BatchState.FAILED, 60),
        ("gpt-5-mini", "openai", BatchState.OPEN, 7),
    ):
        byhand.use_model(model, provider)
        batch_id = await byhand.in_state(state, ids(n))
        told: dict[str, str | int] = {}
        if state not in (BatchState.OPEN, BatchState.SEALED):
            told["provider_batch_id"] = f"batch_{batch_id[1:]}"
        if state is BatchState.SUBMITTED:
            told |= {"n_done": n // 3}
        if state is BatchState.SEALED:
            told["error"] = "waiting for token quota: other batches use 18,000 of about 20,000 tokens"
        for name, value in told.items():
            await byhand.redis.execute_command("HSET", byhand.keys.batch(batch_id), name, value)
    byhand.use_model("gpt-5", "openai")
    stuck = await byhand.sealed(ids(40))
    for number in range(UNENDED_ALLOWED + 1):
        await byhand.begin(stuck, await byhand.claimed(stuck), nonce=f"{number:016}")


if __name__ == "__main__":
    asyncio.run(main())
