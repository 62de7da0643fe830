"""A form is read correctly however its bytes arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from batchling_worker.sandbox import Sandbox

from .caller import Caller

HEAD = b'--XX\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--XX\r\n'
FILE = 'Content-Disposition: form-data; name="file"; filename="zwölf.jsonl"\r\nX-More: 1\r\n\r\n'.encode()
TYPE = {"Content-Type": "multipart/form-data; boundary=XX"}


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]
        await asyncio.sleep(0)


async def send(caller: Caller, body: bytes, size: int = 1 << 16) -> httpx.Response:
    return await caller.http.post("/files", content=pieces(body, size), headers=TYPE)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1 << 16])
@pytest.mark.parametrize(
    "content", [b"", b"{}\n", b"a\r\n", b"\r\n--X\r\n--XY\r\n--\r\n", b"\r\n" * 40, bytes(range(256))]
)
async def test_content_survives_any_split(caller: Caller, content: bytes, size: int) -> None:
    sent = await send(caller, HEAD + FILE + content + b"\r\n--XX--\r\n", size)
    file = sent.raise_for_status().json()
    assert (file["filename"], file["bytes"]) == ("zwölf.jsonl", len(content))
    assert (await caller.http.get(f"/files/{file['id']}/content")).content == content


async def test_file_may_come_before_its_purpose(caller: Caller) -> None:
    purpose = HEAD.removesuffix(b"--XX\r\n")
    sent = await send(caller, b"--XX\r\n" + FILE + b"{}\n\r\n" + purpose + b"--XX--\r\n")
    assert sent.raise_for_status().json()["purpose"] == "batch"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        HEAD,
        HEAD + FILE + b"{}\n",
        HEAD.removesuffix(b"--XX\r\n") + b"--XX--\r\n",
        b"--XX\r\n" + b"x" * 20_000,
        b"--XX\r\n" + FILE + b"{}\n\r\n--XX--\r\n",
    ],
)
async def test_broken_form_is_refused_and_stores_nothing(
    sandbox: Sandbox, caller: Caller, body: bytes
) -> None:
    assert (await send(caller, body)).status_code == 400
    assert not (await caller.http.get("/files")).json()["data"]


async def test_body_that_is_not_a_form_is_refused(caller: Caller) -> None:
    assert (await caller.http.post("/files", json={"purpose": "batch"})).status_code == 400
