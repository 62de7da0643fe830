"""An answer that shows another batch, as a cache on the way may send it: nothing is concluded from it."""

from __future__ import annotations

import json
from typing import Any, Final

import httpx
import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker import providers
from batchling_worker.errors import MaybeDone, TemporaryError
from batchling_worker.provider import Account, Ended, Running

from .conftest import KEY
from .desk import Desk, credential
from .wire import Wire, answer

ARN: Final = "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job"
JOBS: Final = "projects/p/locations/us-central1/batchPredictionJobs"
METADATA: Final = {"batchling": "batchling-default-other"}
SHOWN: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    **dict.fromkeys(
        ("openai", "groq", "doubleword", "azure"),
        ("batch_1", {"id": "batch_2", "status": "completed", "output_file_id": "f", "metadata": METADATA}),
    ),
    "mistral": ("job-1", {"id": "job-2", "status": "SUCCESS", "output_file": "f", "metadata": METADATA}),
    "together": ("b-1", {"id": "b-2", "status": "COMPLETED", "input_file_id": "f", "output_file_id": "g"}),
    "anthropic": ("msgbatch_1", {"id": "msgbatch_2", "processing_status": "ended"}),
    "sference": ("b_1", {"id": "b_2", "status": "completed"}),
    "xai": ("b_1", {"batch_id": "b_2", "name": "x", "state": {"num_requests": 1, "num_success": 1}}),
    "gemini": (
        "batches/1",
        {"name": "batches/2", "done": True, "metadata": {"state": "BATCH_STATE_SUCCEEDED"}},
    ),
    "vertex": (f"{JOBS}/1", {"name": f"{JOBS}/2", "state": "JOB_STATE_SUCCEEDED"}),
    "bedrock": (f"{ARN}/1", {"jobArn": f"{ARN}/2", "status": "Completed"}),
}


@pytest.fixture(params=SHOWN)
def desk(request: pytest.FixtureRequest, wire: Wire, http: httpx.AsyncClient) -> Desk:
    name: str = request.param
    account = Account(base_url=wire.url, headers=credential(name, KEY), http=http, digest="a" * 20)
    return Desk(provider=providers.load(name), account=account)


async def test_a_look_says_that_it_shows_another_batch(wire: Wire, desk: Desk) -> None:
    one, body = SHOWN[desk.provider.facts.name]
    wire.reply = lambda seen: answer(json.dumps(body).encode(), headers="Content-Type: application/json\r\n")
    look = await desk.look(ProviderBatchId(one))
    assert isinstance(look, Running | Ended)
    assert look.other is not None
    assert look.other.provider_batch_id.endswith("2")
    assert not look.other.is_of("batchling-test-1", ["file-1"])


async def test_a_batch_that_shows_its_own_id_is_not_another(wire: Wire, desk: Desk) -> None:
    one, body = SHOWN[desk.provider.facts.name]
    own = json.dumps(body).replace(json.dumps(one[:-1] + "2"), json.dumps(one))
    wire.reply = lambda seen: answer(own.encode(), headers="Content-Type: application/json\r\n")
    look = await desk.look(ProviderBatchId(one))
    assert isinstance(look, Running | Ended)
    assert look.other is None


@pytest.mark.parametrize(
    "shown",
    [{"id": "x", "metadata": {"batchling": "batchling-test-1"}}, {"id": "x", "input_file_id": "file-1"}],
)
async def test_a_gateway_that_names_a_batch_anew_is_believed(
    wire: Wire, http: httpx.AsyncClient, shown: dict[str, Any]
) -> None:
    account = Account(base_url=wire.url, headers=credential("openai", KEY), http=http, digest="a" * 20)
    desk = Desk(provider=providers.load("openai"), account=account)
    wire.reply = lambda seen: answer(json.dumps({"status": "in_progress", **shown}).encode())
    look = await desk.look(ProviderBatchId("bGl0ZWxsbTtiYXRjaF8x"))
    assert isinstance(look, Running)
    assert look.other is not None
    assert look.other.is_of("batchling-test-1", ["file-1"])


async def test_a_create_that_shows_another_batchs_label_may_have_made_one(
    wire: Wire, http: httpx.AsyncClient
) -> None:
    account = Account(base_url=wire.url, headers=credential("openai", KEY), http=http, digest="a" * 20)
    desk = Desk(provider=providers.load("openai"), account=account)
    wire.reply = lambda seen: answer(json.dumps(SHOWN["openai"][1]).encode())
    with pytest.raises(MaybeDone, match="batchling-default-other"):
        await desk.create("file-1")


async def test_a_gateways_own_label_denies_nothing(wire: Wire, http: httpx.AsyncClient) -> None:
    account = Account(base_url=wire.url, headers=credential("openai", KEY), http=http, digest="a" * 20)
    desk = Desk(provider=providers.load("openai"), account=account)
    for label in ("team-blue", "", "BATCHLING_TEST_1", "batchling-te", "team: batchling-test-1"):
        wire.reply = lambda seen, label=label: answer(  # type: ignore[misc]
            json.dumps({"id": "batch_2", "status": "validating", "metadata": {"batchling": label}}).encode()
        )
        assert await desk.create("file-1") == "batch_2"


async def test_an_upload_that_shows_another_batchs_file_is_made_again(
    wire: Wire, http: httpx.AsyncClient
) -> None:
    account = Account(base_url=wire.url, headers=credential("openai", KEY), http=http, digest="a" * 20)
    desk = Desk(provider=providers.load("openai"), account=account)
    wire.reply = lambda seen: answer(b'{"id":"file-2","filename":"batchling-default-other.jsonl"}')
    with pytest.raises(TemporaryError, match="batchling-default-other"):
        await desk.upload()
