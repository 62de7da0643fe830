"""Gathers the evidence of a run: histories, the provider's ledger and files, Redis, logs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from batchling_client.wire.keys import KEYSPACE, BatchId
from batchling_client.wire.records.batch import Batch
from batchling_worker.sandbox import LedgerPage
from batchling_worker.sandbox.world.ledger import BilledBatch, ExecutedRow

from . import history, plan
from .checker import Evidence
from .demon import Demon
from .history import Event
from .plan import Content, Question
from .recovery import recoveries
from .wiretap import Wiretap
from .world import LEASE_S, TICK_S, World

ROOTS: Final = {"groq": "/groq/openai/v1", "openai": "/openai/v1"}
GRACE_S: Final = 1.0
FILES_AT_ONCE: Final = 8


async def gather(world: World, demon: Demon, wiretap: Wiretap) -> tuple[Evidence, LedgerPage]:
    """Return the evidence of a run that has come to rest."""
    events = {i: history.read(world.home / f"client{i}.jsonl") for i in range(world.n_clients)}
    questions = _questions(world, events)
    demon.begins.read_on()
    page = msgspec.json.decode((await world.http.get("/_sandbox/ledger")).content, type=LedgerPage)
    sent = await _sent(world, page.batches)
    evidence = Evidence(
        questions=questions,
        events={client: _placed(some) for client, some in events.items()},
        paid=page.billed(),
        sent=sent,
        spoilt={sent[row.custom_id] for row in page.rows if row.custom_id in sent and _is_spoilt(row)},
        n_realtime=len(page.realtime),
        leaks=[*_in_files(world), *await _in_redis(world), *wiretap.leaks],
        left=await _left(world),
        quarantined=[
            f"batch {batch.batch_id}: {batch.error}"
            for batch in await batches_of(world)
            if batch.quarantined_at is not None
        ],
        broken=demon.broken,
        recoveries=recoveries(demon.deaths, demon.begins.all, demon.troubles),
        recovery_bound_s=LEASE_S + TICK_S + GRACE_S,
    )
    return evidence, page


def _is_spoilt(row: ExecutedRow) -> bool:
    """Return whether the provider sent something other than an answer for a row, at no cost."""
    return row.status_code == 200 and not row.cost_usd


async def batches_of(world: World) -> list[Batch]:
    """Return every batch in Redis."""
    ids: Any = await world.redis.execute_command("ZRANGE", world.keys.batches, 0, -1)
    found = []
    for batch_id in ids:
        fields: Any = await world.redis.execute_command(
            "HGETALL", world.keys.batch(BatchId(batch_id.decode()))
        )
        found.append(Batch.decode(fields))
    return found


def _questions(world: World, events: Mapping[int, Sequence[Event]]) -> dict[str, Question]:
    questions = {}
    for client, some in events.items():
        for number in {event.round for event in some if event.what == "opened"}:
            asked = plan.the_round(world.seed, client, number, world.n_questions)
            questions.update({question.call: question for question in asked.questions})
    return questions


def _placed(events: Iterable[Event]) -> list[Event]:
    """Return the events with the round of each call filled in."""
    return [
        msgspec.structs.replace(event, round=plan.round_of(event.call)) if event.call else event
        for event in events
    ]


async def _sent(world: World, batches: Sequence[BilledBatch]) -> dict[str, Content]:
    """Return the requests that the provider got, by custom_id, read from its input files."""
    sent: dict[str, Content] = {}
    gate = asyncio.Semaphore(FILES_AT_ONCE)

    async def read(batch: BilledBatch) -> None:
        async with gate:
            for key, secret in enumerate(world.secrets):
                path = f"{ROOTS[batch.provider]}/files/{batch.input_file_id}/content"
                reply = await world.http.get(path, headers={"authorization": f"Bearer {secret}"})
                if not reply.is_success:
                    continue
                for line in reply.content.splitlines():
                    row = json.loads(line)
                    body = row["body"]
                    prompt = body["messages"][-1]["content"]
                    sent[row["custom_id"]] = (batch.provider, key, body["model"], prompt)
                return
        raise LookupError(f"no key opens the input file of {batch.provider_batch_id}")

    await asyncio.gather(*(read(batch) for batch in batches))
    return sent


def _in_files(world: World) -> list[str]:
    """Find files in the world's folder that hold a key in clear: append-only file, logs, histories."""
    wanted = [secret.encode() for secret in world.secrets]
    return [
        f"a key is in {path.relative_to(world.home)}"
        for path in world.home.rglob("*")
        if path.is_file() and _holds(path, wanted)
    ]


def _holds(path: Path, wanted: Sequence[bytes]) -> bool:
    longest = max(map(len, wanted))
    tail = b""
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            text = tail + piece
            if any(secret in text for secret in wanted):
                return True
            tail = text[-longest:]
    return False


async def _in_redis(world: World) -> list[str]:
    """Find Redis keys that contain an API key in clear, in their name or value."""
    found = []
    wanted = [secret.encode() for secret in world.secrets]
    await world.redis.execute_command("CONFIG", "SET", "rdbcompression", "no")
    async for name in world.redis.scan_iter(match="*", count=1000):
        dump: Any = await world.redis.execute_command("DUMP", name)
        if any(secret in name or secret in (dump or b"") for secret in wanted):
            found.append(f"a key is in {name.decode()}")
    return found


async def _left(world: World) -> list[str]:
    """Find state that should be gone once all calls are answered."""
    keys, redis = world.keys, world.redis
    left = [
        f"batch {batch.batch_id} is {batch.state.value}: {batch.error}"
        for batch in await batches_of(world)
        if not batch.state.terminal
    ]
    scheduled: Any = await redis.execute_command("ZRANGE", keys.schedule, 0, -1)
    left += [f"{batch_id.decode()} is still in the schedule" for batch_id in scheduled]
    expiring = {kind.word for kind in KEYSPACE if kind.lifetime.ms}
    known = {kind.word for kind in KEYSPACE}
    async for name in redis.scan_iter(match=f"{keys.prefix}*", count=1000):
        word = name.decode().removeprefix(keys.prefix).partition(":")[0]
        if word not in known:
            left.append(f"{name.decode()} is not in the keyspace")
        elif word in expiring and await redis.pttl(name) < 0:
            left.append(f"{name.decode()} has no TTL")
        elif word == "rows":
            left.append(f"{name.decode()} still holds rows")
        elif word == "request":
            place: Any = await redis.execute_command("GET", name)
            # A request that was withdrawn from an open batch leaves a mark, so that it is not sent twice.
            if place is not None and not place.startswith(b"|"):
                left.append(f"{name.decode()} is in flight: {place.decode()}")
    return left
