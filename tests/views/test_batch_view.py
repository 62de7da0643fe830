"""The status of a batch, the reason for it and what happens next, from its record alone."""

from __future__ import annotations

import dataclasses
import datetime as dt

import msgspec
import pytest

from batchling_client.views.batch_detail import console_of
from batchling_client.views.batch_view import NEED_YOU, BatchView, Status, timeline_of, view_of
from batchling_client.views.spelling import as_json, schema
from batchling_client.wire.records.account import Circuit
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import LaneSpec

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
NOW_MS = int(NOW.timestamp() * 1000)
HOUR_MS = 3_600_000
SPEC = LaneSpec(
    provider="groq",
    host="api.groq.com",
    endpoint="/v1/chat/completions",
    model="m",
    fingerprint="f" * 20,
    completion_window="24h",
)


def record(state: str, **fields: object) -> Batch:
    stored = {
        "id": "b1",
        "lane": SPEC.lane_id,
        "state": state,
        "created_at": NOW_MS - 75_000,
        "n_requests": 10,
    }
    packed = {name.encode(): str(value).encode() for name, value in {**stored, **fields}.items()}
    return Batch.decode({**packed, b"spec": SPEC.encode()})


def seen(state: str, circuit: Circuit | None = None, **fields: object) -> BatchView:
    look = NOW + dt.timedelta(seconds=10)
    return view_of(record(state, **fields), now=NOW, next_look_at=look, circuit=circuit, version=1)


PARKED = Circuit(until=NOW, why="groq answered 401", status=401, n_failures=0, n_refused=1)
OPEN = Circuit(until=NOW, why="groq answered 503", status=0, n_failures=3, n_refused=0)


@pytest.mark.parametrize(
    ("state", "fields", "status"),
    [
        ("open", {}, Status.COLLECTING),
        ("sealed", {}, Status.QUEUED),
        ("sealed", {"error": "the quota is full"}, Status.WAITING),
        ("submitting", {}, Status.SENDING),
        ("submitting", {"silence": "groq has not answered for 5 s"}, Status.WAITING),
        ("submitted", {"submitted_at": NOW_MS}, Status.RUNNING),
        ("submitted", {"submitted_at": NOW_MS - 24 * HOUR_MS}, Status.RUNNING),
        ("submitted", {"submitted_at": NOW_MS - 25 * HOUR_MS}, Status.OVERDUE),
        ("submitted", {"cancel_requested": 1}, Status.CANCELLING),
        ("submitted", {"quarantined_at": NOW_MS, "cancel_requested": 1}, Status.QUARANTINED),
        ("ended", {}, Status.READING),
        ("ended", {"held_since": NOW_MS, "error": "403"}, Status.HELD),
        ("ended", {"error": "the provider reports it as failed", "n_failed": 10}, Status.READING),
        ("settled", {"n_succeeded": 10}, Status.DONE),
        ("settled", {"n_succeeded": 9, "n_failed": 1}, Status.DONE_WITH_FAILURES),
        ("failed", {"n_requeued": 10, "moved_to": "b2"}, Status.MOVED_ON),
        ("failed", {"n_requeued": 8, "n_dropped": 2, "moved_to": "b2"}, Status.MOVED_ON),
        ("failed", {"n_failed": 10}, Status.FAILED),
        ("cancelled", {"n_failed": 10}, Status.CANCELLED),
    ],
)
def test_a_batch_has_the_status_that_a_person_would_give_it(
    state: str, fields: dict[str, object], status: Status
) -> None:
    assert seen(state, None, **fields).status is status


def test_a_refused_key_needs_a_person_and_a_circuit_of_failures_does_not() -> None:
    refused, failing = seen("submitted", PARKED), seen("submitted", OPEN)

    assert (refused.status, refused.why) == (Status.REFUSED, "groq answered 401")
    assert refused.needs_you
    assert failing.status is Status.RUNNING
    assert not failing.needs_you


def test_a_batch_that_is_over_has_nothing_next_and_any_other_has() -> None:
    for state in ("open", "sealed", "submitting", "submitted", "ended"):
        assert seen(state).next
    for state in ("settled", "failed", "cancelled"):
        assert seen(state).next is None


def test_a_batch_that_waits_for_a_person_says_so() -> None:
    assert all(status.value for status in NEED_YOU)
    assert seen("sealed", quarantined_at=NOW_MS).next == "nothing, until you retry or cancel it"


def test_requests_that_moved_on_are_neither_open_nor_waiting() -> None:
    view = seen("ended", n_succeeded=3, n_failed=1, n_requeued=2, n_dropped=1)

    assert (view.n_waiting, view.n_live) == (3, 7)


def test_a_timeline_is_read_as_far_as_it_is_whole() -> None:
    text = "1732360000000 opened\nnonsense\n99999999999999999999 later\n1732360001000 sealed: full"

    assert [entry.what for entry in timeline_of(record("sealed", timeline=text))] == [
        "opened",
        "sealed: full",
    ]


def test_the_schema_has_every_field_that_is_printed_and_says_what_it_means() -> None:
    described = schema(BatchView)["$defs"]["BatchView"]["properties"]

    assert as_json(seen("open")).keys() == described.keys()
    assert all(field.get("description") for field in described.values())


def test_a_batch_leads_to_its_providers_console_from_its_own_host_alone() -> None:
    def console(provider: str, host: str, provider_batch_id: str = "batch_1/../x") -> str | None:
        spec = msgspec.structs.replace(SPEC, provider=provider, host=host)
        one = record("submitted", provider_batch_id=provider_batch_id)
        return console_of(dataclasses.replace(one, spec=spec))

    assert console("openai", "api.openai.com") == "https://platform.openai.com/batches/batch_1%2F..%2Fx"
    assert console("anthropic", "api.anthropic.com") == (
        "https://platform.claude.com/settings/workspaces/default/batches"
    )
    assert console("openai", "gateway.example.com") is None
    assert console("groq", "api.groq.com") is None
    assert console("openai", "api.openai.com", "") is None
