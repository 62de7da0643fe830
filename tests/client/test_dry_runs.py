"""Dry runs: what their report says of requests that are too few for a batch of their provider."""

from typing import Any

import pytest

from batchling_client import batchify
from batchling_client.block.dry_run import Rehearsal
from batchling_client.errors import DryRun
from batchling_client.session.calls import Calls, Request
from batchling_client.session.lanes import Terms
from batchling_client.wire.deployment.provider_settings import EndpointSettings, routes_of
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.routes import ROUTES, Routes

from .asking import a_call, ask

BEDROCK: dict[str, Any] = {
    "host": "bedrock-runtime.us-east-1.amazonaws.com",
    "path": "/model/amazon.nova-lite-v1:0/converse",
    "key": None,
    "headers": {
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIAXYZ/20261130/us-east-1/bedrock/aws4_request"
    },
}
LEAST = 100


def report(n: int, routes: Routes, *, batch_size: int | None = None) -> str:
    """Return the report on that many calls of Bedrock."""
    calls = Calls(Terms(run_id=new_run_id(), run_name="", batch_size=batch_size), routes)
    rehearsal = Rehearsal()
    for number in range(n):
        request = calls.read(a_call(f"prompt {number}", **BEDROCK))
        assert isinstance(request, Request)
        rehearsal.count(request)
    return rehearsal.report()


@pytest.mark.parametrize(
    ("n", "batch_size", "n_too_few"),
    [(1, None, 1), (99, None, 99), (100, None, 0), (250, 100, 50), (120, 40, 120), (350, 150, 50)],
)
def test_requests_in_batches_that_are_too_small_are_reported(
    n: int, batch_size: int | None, n_too_few: int
) -> None:
    said = report(n, Routes(), batch_size=batch_size)

    needed = f"Batches of bedrock hold at least {LEAST} requests"
    assert (needed in said) == bool(n_too_few)
    assert not n_too_few or f"{needed}: {n_too_few} for amazon.nova-lite-v1:0 would fail" in said


def test_fewer_rows_that_settings_allow_count_too() -> None:
    assert "120 for amazon.nova-lite-v1:0 would fail" in report(
        120, routes_of({"bedrock": EndpointSettings(max_rows=60)})
    )


@pytest.mark.parametrize(
    ("on_too_few", "outcome"),
    [("error", "would fail; send more at once, or set on_too_few='realtime'"), ("realtime", "at full price")],
)
async def test_a_dry_block_says_what_becomes_of_too_few_requests(
    on_too_few: Any, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchling_client.block.dry_run.QUIET_S", 0.1)
    with pytest.raises(DryRun):
        async with batchify(dry_run=True, on_too_few=on_too_few) as run:
            await ask(run, **BEDROCK)

    assert outcome in run.summary()
    assert "1 for amazon.nova-lite-v1:0" in run.summary()


def test_other_providers_take_a_batch_of_one() -> None:
    assert {route.provider for route in ROUTES if route.min_rows > 1} == {"bedrock"}


VERTEX = [
    ("us-central1", "us-central1-aiplatform.googleapis.com"),
    ("global", "aiplatform.googleapis.com"),
    ("us", "aiplatform.us.rep.googleapis.com"),
    ("eu", "aiplatform.eu.rep.googleapis.com"),
]


def of_vertex(location: str, host: str) -> dict[str, Any]:
    path = f"/v1/projects/p/locations/{location}/publishers/google/models/gemini-2.5-flash:generateContent"
    return {"host": host, "path": path, "body": b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'}


@pytest.mark.parametrize(("location", "host"), VERTEX)
async def test_calls_of_vertex_are_counted_in_every_multi_region(location: str, host: str) -> None:
    with pytest.raises(DryRun):
        async with batchify(dry_run=True, live_display=False, vertex_gcs_prefix="gs://bucket/prefix") as run:
            await ask(run, **of_vertex(location, host))
    assert "vertex/gemini-2.5-flash" in run.summary()
    assert run.progress.n_requests == 1


@pytest.mark.parametrize(("location", "host"), VERTEX)
async def test_a_call_that_gets_an_error_instead_is_named(location: str, host: str) -> None:
    """Batches of Vertex need a place in Cloud Storage."""
    async with batchify(dry_run=True, live_display=False) as run:
        assert (await ask(run, **of_vertex(location, host))).status == 400
    assert run.summary() == (
        "Dry run, nothing was queued or sent: no call could be batched. 1 call got an error instead, which says why."
    )
