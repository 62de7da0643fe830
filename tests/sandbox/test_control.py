"""The control plane offers over HTTP what a test does in its own process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from batchling_worker.sandbox import Sandbox

from .caller import CHAT, Caller, line, lines


@pytest.fixture
async def control(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{sandbox.url}/_sandbox") as client:
        yield client


async def test_clock_is_moved_and_frozen(sandbox: Sandbox, control: httpx.AsyncClient) -> None:
    before = sandbox.clock.now()
    assert (await control.post("/clock", json={"advance": 60})).json() == {"now": before + 60, "frozen": True}
    assert (await control.post("/clock", json={"frozen": False})).json()["frozen"] is False
    assert (await control.post("/clock", json={"frozen": True, "reset": True})).json()["frozen"] is True
    assert (await control.get("/clock")).json()["now"] < before + 60


async def test_faults_are_armed_and_disarmed(control: httpx.AsyncClient, caller: Caller) -> None:
    armed = await control.post("/faults", json=[{"fault": "refuse-poll", "status": 503, "times": None}])
    assert [fault["fault"] for fault in armed.json()] == ["refuse-poll"]
    assert (await caller.http.get("/batches")).status_code == 503
    await control.delete("/faults")
    assert (await control.get("/faults")).json() == []
    assert (await caller.http.get("/batches")).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/faults", [{"fault": "no-such-fault"}]),
        ("/faults", [{"fault": "refuse-poll", "statuss": 3}]),
        ("/clock", {"advance": -1}),
        ("/clock", {"rewind": 1}),
        ("/limits", {"max_rowz": 1}),
        ("/limits", [1]),
        ("/speeds", {"m": "fast"}),
    ],
)
async def test_invalid_calls_are_refused_with_a_reason(
    control: httpx.AsyncClient, path: str, body: Any
) -> None:
    answer = await control.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_speeds_and_limits_can_be_changed(
    sandbox: Sandbox, control: httpx.AsyncClient, caller: Caller
) -> None:
    assert (await control.post("/speeds", json={"m": 100, "*": 50})).json() == {"m": 100, "*": 50}
    batch_id = await caller.create(lines(1, "m"))
    sandbox.clock.advance(60)
    assert (await caller.batch(batch_id))["status"] == "in_progress"
    assert (await control.post("/limits", json={"max_rows": 1})).json()["max_rows"] == 1
    assert (await caller.finish(lines(2)))["status"] == "failed"


async def test_ledger_is_complete_though_nobody_polled(
    sandbox: Sandbox, control: httpx.AsyncClient, caller: Caller
) -> None:
    await caller.create([line("a"), line("b", "fault:400")])
    sandbox.clock.advance(10)
    ledger = (await control.get("/ledger")).json()
    assert ledger["totals"]["n_batches"] == 1
    assert {row["custom_id"]: row["cost_usd"] > 0 for row in ledger["rows"]} == {"a": True, "b": False}
    [batch] = ledger["batches"]
    assert (batch["provider"], batch["endpoint"], batch["n_executed"]) == (caller.provider, CHAT, 2)
    assert "key" not in batch["owner"]
    assert ledger["calls"][f"{caller.provider} POST /batches"] == 1
    assert (await control.get("/ledger?rows=0")).json()["rows"] == []


async def test_row_run_in_two_batches_is_billed_twice(sandbox: Sandbox, caller: Caller) -> None:
    rows = lines(3)
    await caller.finish(rows)
    assert sandbox.ledger().totals.n_billed_twice == 0
    await caller.finish(rows[:1])
    assert sandbox.ledger().totals.n_billed_twice == 1
    assert sandbox.ledger().billed()["id-0"] == 2


async def test_batches_of_every_provider_are_shown(
    sandbox: Sandbox, control: httpx.AsyncClient, caller: Caller
) -> None:
    batch_id = await caller.create(lines(1))
    [batch] = (await control.get("/batches")).json()
    assert (batch["provider"], batch["id"], batch["status"]) == (caller.provider, batch_id, "validating")
    assert sandbox.batches() == [batch]


async def test_reset_forgets_everything(sandbox: Sandbox, control: httpx.AsyncClient, caller: Caller) -> None:
    batch_id = await caller.create(lines(1))
    await control.post("/faults", json={"fault": "refuse-create"})
    assert (await control.post("/reset")).status_code == 200
    assert (await caller.http.get(f"/batches/{batch_id}")).status_code == 404
    assert not (await caller.http.get("/files")).json()["data"]
    assert sandbox.ledger().totals.n_batches == 0
    assert not sandbox.faults.armed()
    assert not sandbox.clock.frozen


@pytest.mark.parametrize(
    "host", ["attacker.example", "localhost.attacker.example", "127.0.0.1.attacker.example", "["]
)
async def test_a_foreign_name_for_this_machine_gets_no_answer(control: httpx.AsyncClient, host: str) -> None:
    for path in ("/_sandbox/ledger", "/openai/v1/models", "/nothing"):
        answer = await control.get(f"{control.base_url.copy_with(path=path)}", headers={"Host": host})
        assert answer.status_code == 421, path
    assert (await control.post("/reset", headers={"Host": host})).status_code == 421


@pytest.mark.parametrize(
    "origin", ["http://attacker.example", "https://127.0.0.1.attacker.example", "null", "http://["]
)
async def test_a_page_of_another_site_cannot_reset_it(
    control: httpx.AsyncClient, caller: Caller, origin: str
) -> None:
    batch_id = await caller.create(lines(1))

    assert (await control.post("/reset", headers={"Origin": origin})).status_code == 403
    assert (await caller.batch(batch_id))["id"] == batch_id


async def test_a_page_of_this_machine_may_reset_it(control: httpx.AsyncClient) -> None:
    for host in ("localhost", "LOCALHOST:80", "[::1]:7"):
        answer = await control.post("/reset", headers={"Host": host, "Origin": f"http://{host}"})
        assert answer.is_success, host
