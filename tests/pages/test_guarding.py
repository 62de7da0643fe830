"""Who is let in, by which name, from which page: a foreign page can neither read nor change anything."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker.pages.install import OPEN, is_open
from tests.redis_server import free_port, redis_server
from tests.scripts.byhand import ByHand, ids
from tests.waiting import wait_until

from .browser import Browser, environment, running_flower

FOREIGN: Final[tuple[dict[str, str], ...]] = (
    {},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Origin": "http://elsewhere.example"},
    {"Origin": "null"},
)


async def test_a_form_of_another_page_changes_nothing(there: ByHand, browser: Browser) -> None:
    batch_id = await there.sealed(ids(1))
    path = f"/batch/{batch_id}/cancel"
    fields = browser.get(path).fields

    for headers in FOREIGN:
        sent = fields if headers else {}
        assert browser.post(path, sent, **headers).status == 403, headers
    assert browser.post("/batches/cancel", {"ids": batch_id, "n": "1"}).status == 403
    assert Browser(browser.port).post(path, fields).status == 403
    assert (await there.batch(batch_id)).state is BatchState.SEALED

    assert browser.post(path, fields, Origin=f"http://127.0.0.1:{browser.port}").status == 303


def test_a_foreign_name_for_this_address_is_refused(browser: Browser) -> None:
    for host in ("elsewhere.example", "localhost.elsewhere.example", "127.0.0.1.example:80", "[", ""):
        page = browser.get("/batches", Host=host)
        assert page.status == 403, host
        assert "BATCHLING_FLOWER_HOSTS" in page.body, host
    for host in (f"localhost:{browser.port}", "[::1]", "LOCALHOST"):
        assert browser.get("/batches", Host=host).status == 200, host


def test_a_foreign_name_reaches_no_page_of_flower_itself(browser: Browser) -> None:
    for path in (
        "/workers",
        "/tasks",
        "/broker",
        "/metrics",
        "/api/workers",
        "/static/js/flower.js",
        "/nothing",
    ):
        page = browser.get(path, Host="attacker.example")
        assert (page.status, "BATCHLING_FLOWER_HOSTS" in page.body) == (403, True), path
        assert browser.get(path).status != 403, path
    assert browser.get("/metrics", Host="10.0.0.7:5555").status == 200
    assert browser.get("/batches", Host="10.0.0.7:5555").status == 403


def test_no_page_may_frame_these_or_keep_them(browser: Browser) -> None:
    headers = browser.get("/batchling").headers

    assert "access-control-allow-origin" not in headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "script-src" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "192.0.2.1", "flower.example"])
def test_only_loopback_is_served_without_a_login(address: str) -> None:
    def options(**given: object) -> SimpleNamespace:
        return SimpleNamespace(
            **{"address": address, "basic_auth": None, "auth": "", "unix_socket": ""} | given
        )

    assert is_open(options())
    assert not is_open(options(basic_auth=["ada:secret"]))
    assert not is_open(options(auth=".*@example.com"))
    assert not is_open(options(unix_socket="/run/flower.sock"))
    assert not is_open(options(address="127.0.0.1"))


@pytest.mark.long
async def test_a_redis_that_is_away_is_a_sentence_until_it_is_back(tmp_path: Path) -> None:
    port = free_port()
    with running_flower(f"redis://127.0.0.1:{port}", "away", tmp_path) as flower_port:
        browser = Browser(flower_port)
        for path in (
            "batchling",
            "batches",
            "batches?partial=1",
            "batch/b1",
            "lanes",
            "runs",
            "find?q=b1",
            "failures/b1",
        ):
            page = browser.get(f"/{path}")
            assert (page.status, f"Redis at 127.0.0.1:{port} cannot be reached" in page.text) == (
                503,
                True,
            ), path
        with redis_server(port=port):
            await wait_until(lambda: browser.get("/batches").status == 200, description="the pages are back")


@pytest.mark.long
def test_flower_does_not_start_open_to_other_machines(redis_url: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "batchling_worker", "flower", "--port=0"],
        env=environment(redis_url, "open", tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.returncode == 2
    assert OPEN in ended.stderr


async def test_a_login_a_prefix_and_read_only_hold_for_every_page(
    there: ByHand, redis_url: str, namespace: str, tmp_path: Path
) -> None:
    batch_id = await there.sealed(ids(1))
    words = ("--read-only", "--basic-auth=ada:secret", "--url_prefix=mon")
    paths = (
        f"failures/{batch_id}",
        "batchling",
        "batches",
        f"batch/{batch_id}",
        "lanes",
        "runs",
        "find?q=b",
        f"batch/{batch_id}/cancel",
    )
    settings = {"BATCHLING_FLOWER_HOSTS": "one.example, Two.example"}
    with running_flower(redis_url, namespace, tmp_path, *words, **settings) as port:
        ada = Browser(port, Authorization="Basic " + base64.b64encode(b"ada:secret").decode())
        stranger = Browser(port, Authorization="Basic " + base64.b64encode(b"ada:guess").decode())
        for path in paths:
            assert Browser(port).get(f"/mon/{path}").status == 401, path
            assert stranger.get(f"/mon/{path}").status == 401, path
            assert ada.get(f"/{path}").status == 404, path
        for path in paths[:6]:
            page = ada.get(f"/mon/{path}")
            assert (page.status, set(page.methods) - {"get"}) == (200, set()), path
            assert all(link.startswith(("/mon/", "?", "#", "http")) for link in page.links), path
            assert not [link for link in page.links if re.search("/(cancel|retry|pause|resume)", link)], path
        for host, status in (("two.example", 200), ("one.example:80", 200), ("three.example", 403)):
            assert ada.get("/mon/batches", Host=host).status == status, host
        fields = ada.get("/mon/batches").fields
        for path in (f"batch/{batch_id}/cancel", "batches/retry", "lanes/pause", "lanes/resume"):
            assert ada.get(f"/mon/{path}").status == 405, path
            assert ada.post(f"/mon/{path}", fields).status == 405, path

    assert (await there.batch(batch_id)).state is BatchState.SEALED
