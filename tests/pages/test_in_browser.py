"""The pages in a real Chromium: they stay up to date while somebody reads, on a phone, in the dark, by keyboard."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from batchling_client.wire.states import BatchState
from tests.deployment import SLOW_MODEL, Deployment
from tests.redis_server import free_port, redis_server
from tests.scripts.byhand import ByHand, ids
from tests.waiting import wait_until

from .browser import Browser, running_flower

CHROMIUM: Final = shutil.which("chromium")
PATHS: Final = ("batchling", "batches?state=all", "lanes", "runs")
PATIENCE_MS: Final = 40_000

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH"),
]


@pytest.fixture
async def chromium() -> AsyncIterator[Any]:
    api = pytest.importorskip("playwright.async_api", reason="the extra `browser` is not installed")
    async with api.async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        await started.close()


async def opened(chromium: Any, url: str, **options: Any) -> Any:
    """Return a tab on that page; the test fails with what its console complains of."""
    context = await chromium.new_context(**{"viewport": {"width": 1280, "height": 700}} | options)
    context.set_default_timeout(PATIENCE_MS)
    tab = await context.new_page()
    await tab.goto(url)
    return tab


async def test_two_batches_finish_while_somebody_reads(
    there: ByHand, browser: Browser, chromium: Any
) -> None:
    still = [await there.sealed(ids(1)) for _ in range(40)]
    url = f"http://127.0.0.1:{browser.port}/batches?state=all&model={there.spec.model}&sort=oldest"
    tab = await opened(chromium, url)
    await tab.locator(f'a[href="/batch/{still[30]}"]').focus()
    await tab.evaluate("window.scrollTo(0, 900)")
    at = await tab.evaluate("window.scrollY")

    finished = [await there.in_state(BatchState.SETTLED, ids(1)) for _ in range(2)]
    for one in finished:
        row = tab.locator("tr", has=tab.locator(f'a[href="/batch/{one}"]'))
        await row.get_by_text("done", exact=True).wait_for(state="attached")

    assert await tab.evaluate("window.scrollY") == at
    assert await tab.evaluate("document.activeElement.getAttribute('href')") == f"/batch/{still[30]}"


async def test_two_batches_of_a_real_worker_finish_while_somebody_watches(
    deployment: Deployment, tmp_path: Path, chromium: Any
) -> None:
    with running_flower(deployment.url, "default", tmp_path, **deployment.env) as port:
        tab = await opened(chromium, f"http://127.0.0.1:{port}/batches?state=all&sort=oldest")
        waiting = [*await deployment.ask(5), *await deployment.ask(5, model=SLOW_MODEL)]
        await tab.locator("tbody tr").nth(1).wait_for()
        assert await tab.get_by_text("done", exact=True).count() == 0

        deployment.worker()

        await tab.locator("tbody .badge", has_text="done").nth(1).wait_for()
        assert await tab.locator("tbody tr").count() == 2
        await deployment.answered(waiting)


async def test_a_phone_in_the_dark_shows_every_page_whole(
    there: ByHand, browser: Browser, chromium: Any
) -> None:
    await there.in_state(BatchState.SUBMITTED, ids(1))
    paths = (*PATHS, f"batch/{await there.sealed(ids(1))}")
    phone = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
    for path in paths:
        tab = await opened(chromium, f"http://127.0.0.1:{browser.port}/{path}", **phone)
        wide, theme = (
            await tab.evaluate("document.documentElement.scrollWidth"),
            await tab.evaluate("document.documentElement.dataset.bsTheme"),
        )
        assert (wide, theme) == (390, "dark"), path
        await tab.context.close()


async def test_a_batch_is_found_and_cancelled_by_keyboard(
    there: ByHand, browser: Browser, chromium: Any
) -> None:
    first, second = [await there.sealed(ids(1)) for _ in range(2)]
    tab = await opened(
        chromium, f"http://127.0.0.1:{browser.port}/batches?model={there.spec.model}&sort=oldest"
    )

    await tab.keyboard.press("j")
    await tab.keyboard.press("j")
    await tab.keyboard.press("Enter")
    await tab.wait_for_url(f"**/batch/{max(first, second)}")
    await tab.keyboard.press("/")
    await tab.keyboard.type(first)
    await tab.keyboard.press("Enter")
    await tab.wait_for_url(f"**/batch/{first}")
    await tab.get_by_role("link", name="Cancel…").focus()
    await tab.keyboard.press("Enter")
    await tab.wait_for_url(f"**/batch/{first}/cancel")
    await tab.locator("button:focus", has_text="Cancel it").wait_for()
    await tab.keyboard.press("Enter")
    await tab.wait_for_url("**done=cancelled")

    assert (await there.batch(first)).cancel_requested


async def test_the_pages_work_without_javascript(there: ByHand, browser: Browser, chromium: Any) -> None:
    batch_id = await there.sealed(ids(1))
    url = f"http://127.0.0.1:{browser.port}/batches?model={there.spec.model}"
    tab = await opened(chromium, url, java_script_enabled=False)

    await tab.get_by_role("link", name="Cancel these…").click()
    await tab.get_by_label("Type the number of batches").fill("1")
    await tab.get_by_role("button", name="Cancel them").click()
    await tab.get_by_text("1 batch is being cancelled.").wait_for()

    assert (await there.batch(batch_id)).cancel_requested


async def test_a_redis_that_goes_away_is_a_sentence_and_its_return_an_update(
    tmp_path_factory: pytest.TempPathFactory, chromium: Any
) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    with redis_server(port=port) as _:
        flower = running_flower(url, "away", tmp_path_factory.mktemp("flower"))
        flower_port = flower.__enter__()
        try:
            tab = await opened(chromium, f"http://127.0.0.1:{flower_port}/batchling")
            await tab.get_by_text("Nothing needs you.").wait_for()
        except BaseException:
            flower.__exit__(None, None, None)
            raise
    try:
        await tab.get_by_text("Not updated since").wait_for()
        assert "cannot be reached" in await tab.locator("#bl-stale").inner_text()
        page = Browser(flower_port).get("/batches")
        assert (page.status, "cannot be reached" in page.text) == (503, True)

        with redis_server(port=port):
            await wait_until(
                lambda: Browser(flower_port).get("/batches").status == 200, description="the pages are back"
            )
            await tab.locator("#bl-stale").wait_for(state="hidden")
    finally:
        flower.__exit__(None, None, None)
