"""AWS and Cloud Storage that answer a byte at a time: the call ends, whatever their libraries' timeouts say."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator

import httpx
import pytest

from batchling_worker.dialects import aws
from batchling_worker.dialects.google.cloud_storage import Found, Objects, Place
from batchling_worker.dialects.http_errors import CallInfo
from batchling_worker.errors import MaybeDone, TemporaryError
from batchling_worker.provider import Account
from tests.waiting import wait_until

from .wire import Wire

KEYS = aws.Keys(access_key_id="AKIAIOSFODNN7EXAMPLE", secret_access_key="secret-0123456789")
SILENCE_S = 0.2


# A call that is given up leaves its connection to be closed by its library, or with it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


async def drops(n_promised: int, over: asyncio.Event) -> AsyncIterator[bytes]:
    yield (
        b'HTTP/1.1 200 Fine\r\nContent-Type: text/plain\r\nETag: "1"\r\nContent-Length: %d\r\n\r\n'
        % n_promised
    )
    while not over.is_set():
        yield b" "
        await asyncio.sleep(0.02)


@pytest.fixture
async def account(wire: Wire) -> AsyncIterator[Account]:
    over = asyncio.Event()
    wire.reply = lambda seen: drops(1_000_000, over)
    async with httpx.AsyncClient(timeout=httpx.Timeout(SILENCE_S)) as http:
        yield Account(base_url=wire.url, headers={}, http=http, digest="a" * 20, staging_url=wire.url)
    over.set()
    await wait_until(lambda: threads() == 0, description="each thread ends with its connection")
    gc.collect()


def threads() -> int:
    return sum(one.name == "batchling-call" for one in threading.enumerate())


async def test_an_object_of_s3_ends_with_its_thread_and_is_not_asked_for_again(
    wire: Wire, account: Account
) -> None:
    s3 = aws.client("s3", "us-east-1", wire.url, KEYS, SILENCE_S)
    with pytest.raises(TemporaryError, match="next to nothing came"):
        _ = [
            one
            async for one in aws.pieces(
                account, CallInfo(provider="bedrock", does="read results"), s3, "b", "k"
            )
        ]
    assert len(wire.seen) == 1
    await wait_until(lambda: threads() == 0, description="the reading was broken off")


@pytest.mark.parametrize("paid", [False, True])
async def test_an_answer_of_aws_ends(wire: Wire, account: Account, paid: bool) -> None:
    bedrock = aws.client("bedrock", "us-east-1", wire.url, KEYS, SILENCE_S)
    call_info = CallInfo(provider="bedrock", does="look at a batch", paid=paid)
    with pytest.raises(TemporaryError) as caught:
        await aws.call(account, call_info, bedrock.list_model_invocation_jobs)
    assert isinstance(caught.value, MaybeDone) is paid
    assert account.calls.error is caught.value


async def test_an_object_of_cloud_storage_ends(account: Account) -> None:
    objects = Objects(account, "vertex", "ya29.token")
    with pytest.raises(TemporaryError):
        await objects.below(Place("bucket", "output"))
    with pytest.raises(TemporaryError):
        _ = [one async for one in objects.pieces(Found(bucket="b", name="n", generation=1, size=1_000_000))]
