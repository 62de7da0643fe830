"""Golden bytes: what version 1 wrote is read by this release, and this release still writes it so."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from batchling_client.views.inspection import Inspection
from batchling_client.wire import version_1
from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import KEYSPACE, Keys
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import LaneSpec, Result, Row, WorkerPresence
from batchling_client.wire.states import BatchState
from tests.scripts.conftest import redis_url

from . import golden

__all__ = ["redis_url"]

GOLDEN = golden.load()
DEPLOYMENT: dict[str, dict[str, Any]] = GOLDEN["deployment"]
OF_THE_MOMENT = {"token", "begun", "begun_by", "missed", "starts"}
"""Fields of a batch that differ from one writing to the next, beside its times."""


def fields(name: str) -> dict[bytes, bytes]:
    return {golden.raw(k): golden.raw(v) for k, v in DEPLOYMENT[name]["value"].items()}


def packed(name: str) -> bytes:
    return golden.raw(GOLDEN["records"][name])


def test_every_record_is_still_written_byte_for_byte() -> None:
    """Compressed bodies apart: another build of zlib may pack them otherwise, and reads these."""
    today = golden.records()
    assert today.keys() >= GOLDEN["records"].keys()
    for name in GOLDEN["records"]:
        if name == "presence":
            assert json.loads(today[name]).items() >= json.loads(packed(name)).items()
        elif name == "row_squeezed":
            old, new = Row.decode(packed(name)), Row.decode(today[name])
            assert (old.request_id, old.run_id, old.attempt, old.squeezed, old.body()) == (
                new.request_id,
                new.run_id,
                new.attempt,
                True,
                new.body(),
            )
        elif name == "result_squeezed":
            before, now = Result.decode(packed(name)), Result.decode(today[name])
            assert packed(name)[:1] == today[name][:1] == b"+"
            assert (before.status, before.headers, before.body, before.squeezed) == (
                now.status,
                now.headers,
                now.body,
                True,
            )
        else:
            assert today[name] == packed(name), name


def test_every_record_is_still_read() -> None:
    assert LaneSpec.decode(packed("lane_spec")) == golden.SPEC
    assert LaneSpec.decode(packed("lane_spec_with_headers")) == golden.PROJECT_SPEC
    assert Row.decode(packed("row")).body() == b'{"model":"m"}'
    assert Row.decode(packed("row_next_attempt")).attempt == 2
    assert Row.decode(packed("row_squeezed")).body() == golden.CANONICAL * 100
    failure = Result.decode(packed("result_failure"))
    assert (failure.status, failure.origin, failure.body) == (504, "batch_expired", b'{"error":{}}')
    presence = WorkerPresence.decode(packed("presence"))
    assert (presence.name, presence.seal_public_key) == (golden.PRESENCE.name, "ab" * 8)


def test_every_key_has_the_name_it_had() -> None:
    assert golden.key_names(golden.VERSION) == GOLDEN["key_names"]
    assert {kind.word for kind in KEYSPACE} >= {
        name.partition("}:")[2].partition(":")[0] for name in GOLDEN["key_names"].values()
    } - {"notice"}


def test_the_credential_is_still_opened() -> None:
    sealed = golden.raw(DEPLOYMENT[f"credential:{golden.SPEC.fingerprint}"]["value"])
    assert version_1.unseal(sealed, [golden.PRIVATE_KEY]) == golden.CREDENTIAL


@pytest.mark.parametrize("state", list(BatchState))
def test_a_batch_of_every_state_is_still_read(state: BatchState) -> None:
    batch = Batch.decode(fields(f"batch:{golden.batch_of(state)}"))
    assert (batch.batch_id, batch.state, batch.n_requests) == (golden.batch_of(state), state, golden.N_ROWS)
    assert batch.spec == golden.SPEC
    assert batch.lane_id == golden.SPEC.lane_id
    rows = DEPLOYMENT.get(f"rows:{batch.batch_id}", {"value": []})["value"]
    held = [Row.decode(golden.raw(one)) for one in rows]
    asked = [] if state.terminal else golden.requests_of(state)
    assert [(row.request_id, row.body()) for row in held] == [(one, golden.body(one)) for one in asked]


@pytest.fixture
async def keys(redis_url: str) -> AsyncIterator[tuple[Any, Keys]]:
    redis = connect(redis_url)
    yield redis, Keys(f"g-{secrets.token_hex(6)}", golden.VERSION)
    await redis.aclose()


async def test_the_scripts_still_write_what_they_wrote(keys: tuple[Any, Keys]) -> None:
    """More fields and keys may have come; none may be gone or mean something else."""
    redis, names = keys
    await golden.Builder(redis, names).build()
    today = await golden.dump(redis, names)

    for name, held in DEPLOYMENT.items():
        assert today[name]["type"] == held["type"], name
        _same(name, held["value"], today[name]["value"])


def _same(name: str, then: Any, now: Any) -> None:
    match name.partition(":")[0]:
        case "run":
            # A request that a run asks for twice is counted once since; the golden run asks for one batch's twice.
            counted = {**now, "n_requests": str(int(now["n_requests"]) + golden.N_ROWS)}
            assert _lasting(counted).items() >= _lasting(then).items(), name
        case "batch" | "lane":
            assert _lasting(now).items() >= _lasting(then).items(), name
            assert now.keys() >= then.keys(), name
        case "rows":
            for old, new in zip(then, now, strict=True):
                before, after = Row.decode(golden.raw(old)), Row.decode(golden.raw(new))
                assert (before.request_id, before.attempt, before.body()) == (
                    after.request_id,
                    after.attempt,
                    after.body(),
                )
        case "schedule" | "batches" | "runs" | "lanes" | "workers":
            assert now.keys() == then.keys(), name
        case "credential":
            assert version_1.unseal(golden.raw(now), [golden.PRIVATE_KEY]) == golden.CREDENTIAL
        case "request":
            # Runs have come, behind the mailboxes: a worker of that time takes them for mailboxes that nobody reads.
            assert now.partition(":")[0] == then, name
        case "worker":
            assert json.loads(now).items() >= json.loads(then).items()
        case _:
            assert now == then, name


def _lasting(fields: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in fields.items()
        if not name.endswith("_at") and name not in OF_THE_MOMENT
    }


async def test_a_loaded_deployment_is_listed_whole(keys: tuple[Any, Keys]) -> None:
    redis, names = keys
    await golden.restore(redis, names.prefix, DEPLOYMENT)
    inspection = Inspection(redis, names)

    assert {batch.state for batch in await inspection.batches(100)} == set(BatchState)
    [run] = await inspection.runs(100)
    assert (run.name, run.n_requests) == ("golden", golden.N_ROWS * (len(BatchState) + 1))
    [lane] = await inspection.lanes(100)
    assert lane.open_batch is not None
    assert [worker.name for worker in await inspection.workers()] == [golden.PRESENCE.name]
