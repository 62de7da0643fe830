"""A result file that its provider keeps on another host: fetched where the settings name it, without any credential."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker.errors import Denied, TemporaryError
from batchling_worker.provider import Ending

from .desk import Desk
from .wire import Reply, Seen, Wire, answer

IDS: Final = [f"r{number}" for number in range(5)]
FILE: Final = b"".join(
    json.dumps({"custom_id": one, "response": {"status_code": 200, "body": {"id": one}}}).encode() + b"\n"
    for one in IDS
)
SIGNED: Final = "/bucket/batch%2Foutput.jsonl?X-Amz-Credential=AKIACANARY&X-Amz-Signature=5164canary"
OWN: Final = ("authorization", "api-key", "x-api-key", "x-goog-api-key", "x-tenant", "cookie")


@pytest.fixture
async def store() -> AsyncIterator[Wire]:
    """Where the provider keeps its files."""
    async with Wire() as wire:
        wire.reply = lambda seen: answer(FILE)
        yield wire


def moved(wire: Wire, location: str, status: int = 302) -> None:
    """Every call to the provider is redirected, with a cookie for its whole host."""
    headers = f"Location: {location}\r\nSet-Cookie: session=cookie-canary; Path=/\r\n"
    wire.reply = lambda seen: answer(b"", status=status, headers=headers)


def named(desk: Desk, *hosts: str) -> Desk:
    """The same, with these hosts in the settings, and headers and a query that travel with every call."""
    headers = {**desk.account.headers, "x-tenant": "tenant-canary"}
    account = replace(
        desk.account, headers=headers, query=(("tenant", "query-canary"),), download_hosts=hosts
    )
    return replace(desk, account=account)


async def read(desk: Desk) -> list[str]:
    return [one.custom_id for one in await desk.answers(Ending(results=("file-1",)))]


async def failure(desk: Desk) -> str:
    """The error of a download, which waits and is made again, and says nothing that was signed."""
    with pytest.raises(TemporaryError) as caught:
        await read(desk)
    assert not isinstance(caught.value, Denied)
    assert "canary" not in str(caught.value).lower()
    assert "bucket" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_file_on_a_listed_host_is_read_without_any_credential(
    wire: Wire, store: Wire, wired: Desk, status: int
) -> None:
    moved(wire, store.url + SIGNED, status)
    assert await read(named(wired, store.url.removeprefix("http://"))) == IDS
    [asked], [fetched] = wire.seen, store.seen
    assert "tenant-canary" in asked.head
    assert fetched.head.startswith(f"GET {SIGNED} HTTP/1.1\r\n")
    assert "canary" not in fetched.head.replace(SIGNED, "")
    assert all(fetched.header(name) is None for name in OWN)


async def test_a_file_on_a_host_that_is_not_listed_waits_and_its_host_and_setting_are_named(
    wire: Wire, store: Wire, wired: Desk
) -> None:
    moved(wire, store.url + SIGNED)
    site = store.url.removeprefix("http://")
    for hosts in ((), ("files.example",), (site.partition(":")[0],)):
        error = await failure(named(wired, *hosts))
        assert (
            f"name {site} in BATCHLING_PROVIDERS__{wired.provider.facts.name.upper()}__DOWNLOAD_HOSTS"
            in error
        )
        assert "BASE_URL" not in error
    assert not store.seen


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://files.example/bucket?s=canary", "name http://files.example in"),
        ("https://user:canary@127.0.0.1:{port}/bucket", "DOWNLOAD_HOSTS"),
        ("file:/bucket/canary", "BASE_URL"),
        ("http://[oops/bucket/canary", "not a host that"),
    ],
)
async def test_a_place_that_cannot_be_right_is_never_asked(
    wire: Wire, store: Wire, wired: Desk, location: str, words: str
) -> None:
    port = store.url.rpartition(":")[2]
    moved(wire, location.format(port=port))
    assert words in await failure(named(wired, f"127.0.0.1:{port}", "*.example.com"))
    assert not store.seen


LINKS: Final = [
    {"url": "{place}"},
    {"url": "{place}", "expires_at": 1, "method": "GET"},
    {"id": "file-1", "object": "file", "download_url": "{place}"},
    {"signedUrl": "{place}"},
]


def linked(wire: Wire, said: object, place: str) -> None:
    """Every call to the provider is answered with a JSON object instead of a file."""
    body = json.dumps(said).replace("{place}", place).encode()
    wire.reply = lambda seen: answer(body, headers="Content-Type: application/json\r\n")


@pytest.mark.parametrize("said", LINKS, ids=lambda one: next(iter(one)))
async def test_a_file_behind_a_link_in_json_is_read_where_the_settings_name_its_host(
    wire: Wire, store: Wire, wired: Desk, said: object
) -> None:
    linked(wire, said, store.url + SIGNED)
    site = store.url.removeprefix("http://")
    assert f"name {site} in" in await failure(named(wired))
    assert not store.seen
    assert await read(named(wired, site)) == IDS
    [fetched] = store.seen
    assert fetched.head.startswith(f"GET {SIGNED} HTTP/1.1\r\n")
    assert all(fetched.header(name) is None for name in OWN)


async def test_a_link_to_the_same_server_is_followed_with_the_key(wire: Wire, wired: Desk) -> None:
    def reply(seen: Seen) -> Reply:
        link = json.dumps({"url": f"{wire.url}/raw/output.jsonl"}).encode()
        return answer(FILE if seen.target.startswith("/raw/") else link)

    wire.reply = reply
    assert await read(named(wired)) == IDS
    assert wire.seen[-1].header("authorization") == wire.seen[0].header("authorization")


async def test_a_row_that_speaks_of_a_url_is_a_row(wire: Wire, store: Wire, wired: Desk) -> None:
    row = {"custom_id": "r1", "url": store.url, "response": {"status_code": 200, "body": {"id": "r1"}}}
    wire.reply = lambda seen: answer(json.dumps(row).encode() + b"\n")
    assert await read(named(wired, store.url.removeprefix("http://"))) == ["r1"]
    assert not store.seen


@pytest.mark.parametrize(
    "again", ["/bucket/canary", "{provider}/v1/files/file-1/content", "https://evil.example/"]
)
async def test_one_redirect_to_another_host_is_followed_and_no_more(
    wire: Wire, store: Wire, wired: Desk, again: str
) -> None:
    moved(wire, store.url + SIGNED)
    moved(store, again.format(provider=wire.url))
    assert "redirects again (302)" in await failure(named(wired, store.url.removeprefix("http://")))
    assert (len(wire.seen), len(store.seen)) == (1, 1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416, 429, 500])
async def test_a_refusal_of_the_other_host_says_nothing_of_the_key_and_holds_nothing_that_was_signed(
    wire: Wire, store: Wire, wired: Desk, status: int
) -> None:
    moved(wire, store.url + SIGNED)
    told = b"<Error><Code>AccessDenied</Code><StringToSign>GET /bucket AKIACANARY</StringToSign></Error>"
    store.reply = lambda seen: answer(told, status=status)
    error = await failure(named(wired, store.url.removeprefix("http://")))
    assert f"{store.url}, which answered {status}" in error


async def test_a_host_that_cannot_be_reached_is_named(wire: Wire, wired: Desk) -> None:
    moved(wire, "http://127.0.0.1:1" + SIGNED)
    assert "http://127.0.0.1:1, which could not be reached" in await failure(named(wired, "127.0.0.1:1"))


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>signed out</html>\n", b'{"error": {"message": "no"}}', b"[]"]
)
async def test_a_page_in_the_place_of_the_file_is_not_a_result_file(
    wire: Wire, store: Wire, wired: Desk, page: bytes
) -> None:
    moved(wire, store.url + SIGNED)
    store.reply = lambda seen: answer(page)
    await failure(named(wired, store.url.removeprefix("http://")))


async def test_a_file_that_breaks_off_there_is_read_to_its_end_by_a_new_redirect(
    wire: Wire, store: Wire, wired: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchling_worker.dialects.provider_call.RESUME_PAUSE_S", 0.0)
    moved(wire, store.url + SIGNED)

    def in_two_parts(seen: Seen) -> Reply:
        if seen.header("range") is None:
            return answer(FILE[:100], length=len(FILE))
        said = f"Content-Range: bytes 100-{len(FILE) - 1}/{len(FILE)}\r\n"
        return answer(FILE[100:], status=206, headers=said)

    store.reply = in_two_parts
    assert await read(named(wired, store.url.removeprefix("http://"))) == IDS
    assert [seen.header("range") for seen in store.seen] == [None, "bytes=100-"]
    assert len(wire.seen) == 2
    assert all(seen.header(name) is None for seen in store.seen for name in OWN)


async def test_a_look_is_never_followed_to_another_host(wire: Wire, store: Wire, wired: Desk) -> None:
    moved(wire, store.url + SIGNED)
    with pytest.raises(TemporaryError, match="BASE_URL"):
        await named(wired, store.url.removeprefix("http://")).look(ProviderBatchId("batch_1"))
    assert not store.seen
