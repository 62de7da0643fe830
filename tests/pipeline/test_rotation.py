"""Seal keys are changed while requests are under way: nothing is stranded, and no key is dropped that is needed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from batchling_client.operate import seal_keys
from batchling_client.operate.seal_keys import KeysInUse
from batchling_client.views.inspection import Inspection
from batchling_client.wire import sealing
from batchling_client.wire.deployment import keyring, seal_key_files
from batchling_client.wire.keys import credential_name
from batchling_client.wire.records.row_and_result import WorkerPresence
from batchling_client.wire.roots import Root
from batchling_client.wire.states import BatchState

from ..cli.command import batchling
from ..deployment import CANARY, SLOW_MODEL, Deployment, kill
from ..sealed import root_of, sealed
from ..waiting import wait_until

ROOT = Root(b"r" * 32, named=False)
OLD_CALLER = {"authorization": f"Bearer {CANARY}-old-caller"}


async def store(deployment: Deployment, headers: dict[str, str], public: str) -> str:
    """Store a credential as a caller does that has this public key; return its key in Redis."""
    root = await root_of(deployment.redis, deployment.keys, headers)
    place = deployment.keys.credential(credential_name(root.fingerprint, "groq", "api.groq.com"))
    use = sealed(root, headers, public, provider="groq", host="api.groq.com")
    await deployment.redis.execute_command("SET", place, use, "EX", 3600)
    return place


async def live(deployment: Deployment, name: str, *opens: str) -> None:
    presence = WorkerPresence(
        name=name, pid=1, version="1", pool="threads", seal_public_key=opens[0], opens=opens
    )
    await deployment.redis.execute_command("ZADD", deployment.keys.workers, 1, name)
    await deployment.redis.execute_command("SET", deployment.keys.worker(name), presence.encode())


@pytest.mark.long
async def test_keys_rotate_under_load_and_nothing_is_stranded(deployment: Deployment) -> None:
    old_public, _ = seal_key_files.stored_pair(deployment.home)
    worker = deployment.worker()
    inspection = Inspection(deployment.redis, deployment.keys)

    async def lives() -> bool:
        return bool(await inspection.workers())

    await wait_until(lives, description="a worker is alive", within_s=60)
    ids = await deployment.ask(3, model=SLOW_MODEL)

    async def submitted() -> bool:
        return any(batch.state is BatchState.SUBMITTED for batch in await deployment.batches())

    await wait_until(submitted, description="a batch is at the provider", within_s=60)
    ids += await deployment.ask(2, linger_ms=4_000)

    rotated = await batchling("keys", "rotate", "--json", env=deployment.env)

    assert rotated.code == 0, rotated.err
    new_public, new = seal_key_files.stored_pair(deployment.home)
    assert json.loads(rotated.out)["seal_for"] == sealing.digest(new_public) != sealing.digest(old_public)
    assert new not in rotated.out
    [presence] = await inspection.workers()
    assert presence.can_open(sealing.digest(old_public))
    assert presence.can_open(sealing.digest(new_public))
    ids += await deployment.ask(2, model="llama-3.3-70b-versatile")
    # A program that was started before the rotation keeps the old public key.
    late = await deployment.ask(2, headers=OLD_CALLER)
    await store(deployment, OLD_CALLER, old_public)

    async def reported() -> bool:
        [presence] = await inspection.workers()
        return presence.seal_public_key == sealing.digest(new_public)

    await wait_until(reported, description="the worker's heartbeat names the new key", within_s=30)
    kill(worker)
    deployment.worker()

    answers = await deployment.answered([*ids, *late], within_s=120)
    assert {answer.status for answer in answers} == {200}
    assert set(deployment.billed().values()) == {1}
    refused = await batchling("keys", "retire", env=deployment.env)
    assert refused.code != 0
    assert "--reseal" in refused.err
    retired = await batchling("keys", "retire", "--reseal", "--json", env=deployment.env)
    assert retired.code == 0, retired.err
    assert json.loads(retired.out)["dropped"] == [sealing.digest(old_public)]
    again = await deployment.ask(1, headers=OLD_CALLER, prompts=["another question"])
    assert (await deployment.answered(again, within_s=60))[0].status == 200
    assert CANARY not in deployment.worker_logs() + retired.out + refused.err


async def test_nothing_changes_if_a_live_worker_does_not_take_the_new_key_up(deployment: Deployment) -> None:
    before = seal_key_files.stored_pair(deployment.home)
    await live(deployment, "w@elsewhere", sealing.digest(before[0]))
    inspection = Inspection(deployment.redis, deployment.keys)

    with pytest.raises(KeysInUse, match="w@elsewhere"):
        await seal_keys.rotate(deployment.home, inspection, within_s=0.1)

    assert seal_keys.stored(deployment.home) == (before[1],)


async def test_callers_seal_for_the_new_key_only_once_every_worker_opens_it(deployment: Deployment) -> None:
    before = seal_key_files.stored_pair(deployment.home)
    digests = [sealing.digest(before[0])]
    await live(deployment, "w@here", *digests)
    ring = keyring.Keyring(None, None, deployment.home)
    rotation = asyncio.create_task(
        seal_keys.rotate(deployment.home, Inspection(deployment.redis, deployment.keys))
    )

    await wait_until(lambda: len(ring.digests()) == 2, description="the worker sees the new key")
    assert seal_key_files.stored_pair(deployment.home) == before
    with pytest.raises(KeysInUse, match="Another process"):
        await seal_keys.rotate(deployment.home, None)
    await live(deployment, "w@here", *ring.digests())
    rotated = await rotation

    public, private = seal_key_files.stored_pair(deployment.home)
    assert rotated.seal_for == sealing.digest(public)
    assert seal_keys.stored(deployment.home) == (private, before[1])
    assert (deployment.home / "keys" / seal_key_files.PRIVATE_FILE).stat().st_mode & 0o077 == 0


async def test_a_rotation_that_is_interrupted_leaves_the_keys_as_they_were(deployment: Deployment) -> None:
    before = seal_key_files.stored_pair(deployment.home)
    await live(deployment, "w@here", sealing.digest(before[0]))
    rotation = asyncio.create_task(
        seal_keys.rotate(deployment.home, Inspection(deployment.redis, deployment.keys))
    )
    await wait_until(
        lambda: len(seal_keys.stored(deployment.home)) == 2, description="the new key is stored behind"
    )

    rotation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rotation

    assert seal_keys.stored(deployment.home) == (before[1],)


async def test_a_key_that_a_stored_credential_needs_is_not_dropped(deployment: Deployment) -> None:
    old_public, old = seal_key_files.stored_pair(deployment.home)
    place = await store(deployment, OLD_CALLER, old_public)
    stranger, _ = sealing.new_pair()
    await deployment.redis.set(deployment.keys.credential("f" * 20), sealed(ROOT, OLD_CALLER, stranger))
    await seal_keys.rotate(deployment.home, None)
    held = seal_keys.stored(deployment.home)

    with pytest.raises(KeysInUse, match="1 stored credential "):
        await seal_keys.retire(deployment.redis, [deployment.keys], held, deployment.home, reseal=False)
    assert seal_keys.stored(deployment.home) == held == (held[0], old)

    done = await seal_keys.retire(deployment.redis, [deployment.keys], held, deployment.home, reseal=True)

    assert (done.n_sealed_anew, done.n_unreadable, done.dropped) == (1, 1, (sealing.digest(old_public),))
    assert seal_keys.stored(deployment.home) == held[:1]
    kept = await deployment.redis.get(place)
    assert isinstance(kept, bytes)
    assert sealing.unseal(kept, held[:1]).headers == OLD_CALLER
    assert 3_500_000 < await deployment.redis.pttl(place) <= 3_600_000


async def test_keys_in_settings_are_printed_with_the_order_of_steps_and_nothing_is_changed(
    deployment: Deployment, tmp_path: Path
) -> None:
    public, private = sealing.new_pair()
    file = tmp_path / "seal_key"
    file.write_text(private, encoding="ascii")
    env = {
        **deployment.env,
        "BATCHLING_SEAL_PUBLIC_KEY": public,
        "BATCHLING_SEAL_PRIVATE_KEY_FILE": str(file),
    }

    done = await batchling("keys", "rotate", "--json", env=env)

    printed = json.loads(done.out)
    new, kept = printed["private_keys"].split(",")
    assert kept == private
    assert sealing.public_half(new) == printed["public_key"]
    assert "worker" in printed["steps"][0]
    assert "callers" in printed["steps"][1]
    assert file.read_text(encoding="ascii") == private
    assert not (deployment.home / "keys").exists()
