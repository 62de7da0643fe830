"""Damaged and foreign values in Redis: callers of a damaged batch get an error, and every other batch continues."""

from __future__ import annotations

import asyncio
import enum
import json
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
import pytest

from batchling_client import batchify, errors
from batchling_client.wire.deployment import seal_key_files
from batchling_client.wire.keys import BatchId, RequestId, credential_name
from batchling_client.wire.records.row_and_result import CorruptRecord, LaneSpec
from batchling_client.wire.states import BatchState, Verdict
from tests.cli.command import batchling
from tests.client.asking import ask, error_of
from tests.client.test_answers import shorten_the_drain
from tests.deployment import Deployment
from tests.sealed import root_of, sealed
from tests.waiting import wait_until

from .hand import Hand

GARBAGE: Final = b"\xff\x00\x01 garbage |,{}\n"


class Fate(enum.Enum):
    """What becomes of a request of a damaged batch."""

    ANSWERED = "by the provider, as if nothing had been"
    UNREADABLE = "told that the record of its batch is damaged"
    REFUSED = "told what was damaged of it; it was not sent"
    STRANDED = "its client finds out that it may be asked again"
    DOUBTED = "its client finds out that its batch is damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """A batch to be damaged; its lane and its credential are its own."""

    deployment: Deployment
    model: str
    batch_id: BatchId
    ids: list[RequestId]
    spec: LaneSpec

    @property
    def credential(self) -> dict[str, str]:
        return {"authorization": f"Bearer gsk-of-{self.model}"}

    @property
    def key(self) -> dict[str, str]:
        """The names of the keys that concern it."""
        keys = self.deployment.keys
        return {
            "batch": keys.batch(self.batch_id),
            "rows": keys.rows(self.batch_id),
            "request": keys.request(self.ids[0]),
            "result": keys.result(self.ids[0]),
            "credential": keys.credential(
                credential_name(self.spec.fingerprint, self.spec.provider, self.spec.host)
            ),
        }

    async def do(self, *words: Any) -> Any:
        return await self.deployment.redis.execute_command(*words)

    async def hget(self, name: str) -> bytes:
        found: bytes = await self.do("HGET", self.key["batch"], name)
        return found


Damage: TypeAlias = Callable[[Harm], Awaitable[object]]


def field(name: str, value: bytes | str = GARBAGE) -> Damage:
    return lambda h: h.do("HSET", h.key["batch"], name, value)


def value(kind: str, raw: bytes) -> Damage:
    return lambda h: h.do("SET", h.key[kind], raw, "EX", 3600)


def gone(kind: str) -> Damage:
    return lambda h: h.do("UNLINK", h.key[kind])


def first_row(make: Callable[[RequestId], bytes]) -> Damage:
    return lambda h: h.do("LSET", h.key["rows"], 0, make(h.ids[0]))


def of_another_type(kind: str) -> Damage:
    async def damage(h: Harm) -> None:
        await h.do("UNLINK", h.key[kind])
        await h.do("SADD", h.key[kind], "foreign")
        await h.do("EXPIRE", h.key[kind], 3600)

    return damage


async def another_lanes_spec(h: Harm) -> None:
    """It names another credential: sent with that, another would pay."""
    spec = LaneSpec.decode(await h.hget("spec"))
    await field("spec", msgspec.structs.replace(spec, fingerprint="0" * 20).encode())(h)


async def anothers_credential(h: Harm) -> None:
    public, _ = seal_key_files.stored_pair(h.deployment.home)
    headers = {"authorization": "Bearer gsk-of-another"}
    root = await root_of(h.deployment.redis, h.deployment.keys, headers)
    use = sealed(root, headers, public, provider=h.spec.provider, host=h.spec.host)
    await value("credential", use)(h)


async def another_batchs_id(h: Harm) -> None:
    """Its rows would be sent in this one's name as well."""
    [other] = await h.do("ZRANGE", h.deployment.keys.batches, 0, 0)
    await field("id", other)(h)


async def lane_of_another_type(h: Harm) -> None:
    lane = h.deployment.keys.lane((await h.hget("lane")).decode())
    await h.do("UNLINK", lane)
    await h.do("SET", lane, "foreign", "EX", 3600)


async def circuit_of_another_type(h: Harm) -> None:
    circuit = h.deployment.keys.circuit((await h.hget("lane")).decode())
    await h.do("SET", circuit, "foreign", "EX", 3600)


async def settled_by_a_stranger(h: Harm) -> None:
    await field("state", "settled")(h)
    await h.do("ZREM", h.deployment.keys.schedule, h.batch_id)


def packed(request_id: str, body: bytes, *, squeezed: bool = False) -> bytes:
    return msgspec.msgpack.encode((request_id, "r", 1, squeezed, body))


CUT_OFF: Final = zlib.compress(b"{}" * 1000)[:9]
TWO_LINES: Final = json.dumps({"model": "first_row_of_two_lines"}).encode() + b'\n{"custom_id":"x"}'

NEEDED: Final = ("id", "lane", "spec", "state", "n_failed", "label")
REPLACED: Final = ("token", "missed", "starts", "linger_ms")

WHOLE: dict[str, tuple[Damage, Fate]] = {
    # Fields without which no step can work on the batch.
    **{f"field_{name}": (field(name), Fate.UNREADABLE) for name in NEEDED},
    "field_state_foreign": (field("state", "paused"), Fate.UNREADABLE),
    "field_poll_ms_negative": (field("poll_ms", "-5000"), Fate.UNREADABLE),
    "field_created_at_huge": (field("created_at", "9" * 40), Fate.UNREADABLE),
    "field_spec_of_the_future": (field("spec", b'{"provider":"groq","zone":"moon"}'), Fate.UNREADABLE),
    "another_lanes_spec": (another_lanes_spec, Fate.UNREADABLE),
    "another_batchs_id": (another_batchs_id, Fate.UNREADABLE),
    # ... and what can be made anew.
    **{
        f"field_{name}": (field(name), Fate.ANSWERED)
        for name in (
            "token",
            "missed",
            "starts",
            "begun",
            "begun_by",
            "n_creates",
            "linger_ms",
            "longest_ms",
            "updated_at",
            "unknown",
        )
    },
    "field_error_huge": (field("error", b"x" * 2_000_000), Fate.ANSWERED),
    "lane_of_another_type": (lane_of_another_type, Fate.ANSWERED),
    "circuit_of_another_type": (circuit_of_another_type, Fate.ANSWERED),
    "credential_garbage": (value("credential", GARBAGE), Fate.REFUSED),
    "credential_of_another_type": (of_another_type("credential"), Fate.REFUSED),
    "credential_of_another": (anothers_credential, Fate.REFUSED),
    "rows_of_another_type": (of_another_type("rows"), Fate.DOUBTED),
    "rows_gone": (gone("rows"), Fate.STRANDED),
    "batch_of_another_type": (of_another_type("batch"), Fate.DOUBTED),
    "batch_gone": (gone("batch"), Fate.STRANDED),
    "settled_by_a_stranger": (settled_by_a_stranger, Fate.STRANDED),
}
"""Damage, and what becomes of each request of the batch."""

FIRST: dict[str, tuple[Damage, Fate]] = {
    "row_garbage": (first_row(lambda _: GARBAGE), Fate.STRANDED),
    "row_of_a_stranger": (first_row(lambda _: packed("../../x|y", b"{}")), Fate.STRANDED),
    "row_of_the_future": (first_row(lambda one: msgspec.msgpack.encode([one, {"v": 2}])), Fate.STRANDED),
    "row_cut_off": (first_row(lambda one: packed(one, CUT_OFF, squeezed=True)), Fate.REFUSED),
    "row_of_two_lines": (first_row(lambda one: packed(one, TWO_LINES)), Fate.REFUSED),
    "result_garbage": (value("result", GARBAGE), Fate.ANSWERED),
    "result_of_another_type": (of_another_type("result"), Fate.ANSWERED),
}
"""Damage to the first request of a batch and what becomes of that one; the others are answered."""

AFTERWARDS: dict[str, tuple[Damage, Fate]] = {
    "ending_garbage": (field("ending"), Fate.UNREADABLE),
    "ending_of_another_type": (field("ending", b'{"results":[{"id":1}]}'), Fate.UNREADABLE),
    "collected_at_garbage": (field("collected_at"), Fate.UNREADABLE),
    "rows_of_another_type_at_the_end": (of_another_type("rows"), Fate.ANSWERED),
    "counters_garbage_at_the_end": (field("n_total"), Fate.ANSWERED),
}
"""Damage to a batch that has ended, its results not yet collected."""


async def harmed(deployment: Deployment, name: str, damage: Damage, *, hand: Hand | None = None) -> Harm:
    model = f"harmed-{name}"
    headers = {"authorization": f"Bearer gsk-of-{model}"}
    ids = await deployment.ask(2, model=model, headers=headers)
    place: bytes = await deployment.redis.execute_command("GET", deployment.keys.request(ids[0]))
    batch_id = BatchId(place.decode().partition("|")[0])
    spec = await deployment.redis.execute_command("HGET", deployment.keys.batch(batch_id), "spec")
    harm = Harm(deployment=deployment, model=model, batch_id=batch_id, ids=ids, spec=LaneSpec.decode(spec))
    if hand is not None:
        await hand.bring(harm.batch_id, BatchState.ENDED)
    await damage(harm)
    return harm


async def fate_of(deployment: Deployment, request_id: RequestId, batch_id: BatchId) -> Fate | None:
    """How a request stands; None = nothing is known yet."""
    try:
        [result] = await deployment.results([request_id])
    except CorruptRecord:
        return None
    if result is not None:
        if result.status == 200:
            return Fate.ANSWERED
        return Fate.UNREADABLE if result.origin == "batch_unreadable" else Fate.REFUSED
    match await deployment.scripts.forget(request_id=request_id, batch_id=batch_id):
        case Verdict.OK:
            return Fate.STRANDED
        case Verdict.UNREADABLE:
            return Fate.DOUBTED
        case _:
            return None


OF_NEED: Final = {name: case for name, case in WHOLE.items() if case[1] is Fate.UNREADABLE}
OF_REST: Final = {name: case for name, case in WHOLE.items() if name not in OF_NEED}


@pytest.mark.parametrize("cases", [OF_NEED, OF_REST, {**FIRST, **AFTERWARDS}], ids=["need", "rest", "late"])
async def test_callers_of_a_damaged_batch_get_an_error_and_other_batches_continue(
    deployment: Deployment, cases: dict[str, tuple[Damage, Fate]]
) -> None:
    expected: dict[str, tuple[RequestId, BatchId, Fate]] = {}
    await deployment.ask(1)
    async with Hand(deployment) as hand:
        for name, (damage, fate) in cases.items():
            harm = await harmed(deployment, name, damage, hand=hand if name in AFTERWARDS else None)
            rest = Fate.ANSWERED if name in FIRST else fate
            expected[f"{name} 0"] = (harm.ids[0], harm.batch_id, fate)
            expected[f"{name} 1"] = (harm.ids[1], harm.batch_id, rest)
    await deployment.redis.execute_command("ZADD", deployment.keys.schedule, 0, GARBAGE, 0, "no-such-batch")

    deployment.worker()
    healthy = await deployment.ask(20)
    assert {result.status for result in await deployment.answered(healthy)} == {200}

    seen: dict[str, Fate] = {}

    async def all_known() -> bool:
        for name, (request_id, batch_id, _) in expected.items():
            if name not in seen and (fate := await fate_of(deployment, request_id, batch_id)) is not None:
                seen[name] = fate
        return len(seen) == len(expected)

    try:
        await wait_until(all_known, description="the fate of every request is known", within_s=30)
    finally:
        wrong = {n: (seen.get(n), fate) for n, (_, _, fate) in expected.items() if seen.get(n) is not fate}
        assert wrong == {}
    assert {result.status for result in await deployment.answered(await deployment.ask(5))} == {200}
    log = deployment.worker_logs()
    assert "tick_failed" not in log
    assert "raised unexpected" not in log
    assert max(log.count(f"batch_unreadable batch_id={b}") for _, b, _ in expected.values()) < 60


CALLERS: Final[dict[str, tuple[Damage | None, int]]] = {
    "whole": (None, 200),
    "row_garbage": (FIRST["row_garbage"][0], 200),
    "request_garbage": (value("request", GARBAGE), 200),
    "request_of_another_type": (of_another_type("request"), 200),
    "request_of_no_batch": (value("request", b"b0nosuchbatch|1|x"), 200),
    "batch_gone": (gone("batch"), 200),
    "settled_by_a_stranger": (settled_by_a_stranger, 200),
    "batch_of_another_type": (of_another_type("batch"), 502),
    "field_spec": (field("spec"), 502),
}
"""Damage below a waiting caller, and the status of what it gets in the end."""


async def test_a_caller_asks_again_or_gets_an_error_whatever_key_is_damaged(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REDIS_URL", "HOME"):
        monkeypatch.setenv(f"BATCHLING_{name}", deployment.env[f"BATCHLING_{name}"])
    shorten_the_drain(monkeypatch)
    run: Any = deployment.redis.execute_command
    for listing in (deployment.keys.batches, deployment.keys.lanes, deployment.keys.runs):
        await run("SET", listing, "foreign", "EX", 3600)
    await run("SET", deployment.keys.workers, "foreign", "EX", 3600)
    async with batchify(batch_window_seconds=0.5, live_display=False) as block:
        asked = {name: asyncio.create_task(ask(block, "hello", model=name)) for name in CALLERS}
        for mailbox in await _placed(deployment, len(asked)):
            await run("SET", deployment.keys.mailbox(mailbox), "foreign", "EX", 3600)
        for harm in await _harms(deployment):
            damage = CALLERS[harm.model][0]
            if damage is not None:
                await damage(harm)
        await run("SET", deployment.keys.run(block.id), "foreign", "EX", 3600)
        deployment.worker()
        replies = {name: await task for name, task in asked.items()}

    assert {name: reply.status for name, reply in replies.items()} == {n: s for n, (_, s) in CALLERS.items()}
    told = [reply for reply in replies.values() if reply.status == 502]
    assert all("damaged" in error_of(reply)["message"] for reply in told)
    assert {reply.headers[errors.HEADER] for reply in told} == {"answer_unreadable", "batch_unreadable"}
    assert "raised unexpected" not in deployment.worker_logs()


async def _placed(deployment: Deployment, n: int) -> set[str]:
    """Waits until so many requests are in flight, and tells who waits for them."""
    places: list[bytes] = []

    async def all_placed() -> bool:
        nonlocal places
        names = [key async for key in deployment.redis.scan_iter(match=deployment.keys.prefix + "request:*")]
        places = [await deployment.redis.execute_command("GET", name) for name in names]
        return len(places) == n

    await wait_until(all_placed, description=f"{n} requests are in flight")
    return {place.decode().rpartition("|")[2] for place in places}


async def _harms(deployment: Deployment) -> list[Harm]:
    found = []
    async for name in deployment.redis.scan_iter(match=deployment.keys.prefix + "request:*"):
        place: bytes = await deployment.redis.execute_command("GET", name)
        batch_id = BatchId(place.decode().partition("|")[0])
        spec = await deployment.redis.execute_command("HGET", deployment.keys.batch(batch_id), "spec")
        request_id = RequestId(name.decode().rpartition(":")[2])
        found.append(
            Harm(
                deployment=deployment,
                model=LaneSpec.decode(spec).model,
                batch_id=batch_id,
                ids=[request_id],
                spec=LaneSpec.decode(spec),
            )
        )
    return found


async def test_listings_go_on_and_name_what_is_damaged(deployment: Deployment) -> None:
    await deployment.ask(1)
    whole = await harmed(deployment, "whole", field("error", "none"))
    batch = await harmed(deployment, "batch", field("n_requests"))
    typed = await harmed(deployment, "typed", of_another_type("batch"))
    lane = deployment.keys.lane((await batch.hget("lane")).decode())
    await deployment.redis.execute_command("HSET", lane, "spec", GARBAGE, "open", GARBAGE)
    [run, *_] = await deployment.redis.execute_command("ZRANGE", deployment.keys.runs, 0, -1)
    await deployment.redis.execute_command("HSET", deployment.keys.run(run.decode()), "started_at", GARBAGE)

    async def look(*words: str, code: int = 0) -> tuple[Any, str]:
        seen = await batchling(*words, "--json", env=deployment.env)
        assert seen.code == code, seen.err
        assert "Traceback" not in seen.err
        return json.loads(seen.out or "null"), seen.err

    batches, said = await look("batches")
    assert whole.batch_id in {one["batch_id"] for one in batches}
    assert {batch.batch_id, typed.batch_id}.isdisjoint(one["batch_id"] for one in batches)
    assert batch.batch_id in said
    assert typed.batch_id in said
    runs, said = await look("runs")
    assert len(runs) == 3
    assert run.decode() in said
    lanes, said = await look("lanes")
    assert len(lanes) == 3
    assert lane.rpartition(":")[2] in said
    for damaged in (batch, typed):
        assert f"Batch {damaged.batch_id} cannot be read" in (await look("show", damaged.batch_id, code=2))[1]
