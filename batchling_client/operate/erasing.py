"""Erases runs, keys and what is old from Redis: prompts, answers, requests, failures, sealed credentials."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from ..errors import BatchlingError
from ..views.inspection import Inspection, RunRecord, pipelined
from ..wire.keys import BatchId, Keys, LaneId, RequestId, RunId
from ..wire.records.batch import Batch
from ..wire.records.row_and_result import CorruptRecord, LaneSpec
from ..wire.records.usage_and_failure import FailedRow
from ..wire.scripts import Scripts
from ..wire.states import Verdict
from ..wire.version_1 import stored_names
from ..wording import counted

T = TypeVar("T")

SHORTEST_PREFIX: Final = 4
ERASED_AT_ONCE: Final = 128
READ_AT_ONCE: Final = 1_000
FILES_S: Final = 20.0
"""How long the workers may take to delete the files of the batches at their providers."""
REWRITE_S: Final = 120.0
LOOK_EVERY_S: Final = 0.2
EVERYTHING: Final = 1_000_000


class NothingToErase(BatchlingError):
    """Nothing here has this name, or something of it is still under way."""

    code = "nothing_to_erase"
    sentence = "Nothing here has this name, or something of it is still under way."


@dataclass(slots=True, kw_only=True)
class Plan:
    """What is to be erased."""

    runs: list[RunId]
    batches: list[BatchId] = field(default_factory=list)
    """Those that no other run has requests in."""
    shared_batches: list[BatchId] = field(default_factory=list)
    """Their records stay, without the erased requests."""
    request_ids: list[RequestId] = field(default_factory=list)
    n_answers: int = 0
    n_shared: int = 0
    """Answers among them that other runs have asked for, too."""
    credentials: list[str] = field(default_factory=list)
    """Fingerprints whose sealed credentials go, too."""
    lanes: list[LaneId] = field(default_factory=list)
    skipped: list[RunId] = field(default_factory=list)
    """Old runs that stay because something of them is under way."""

    @property
    def is_empty(self) -> bool:
        return not (self.runs or self.batches or self.credentials)

    def lines(self) -> list[str]:
        """Say what would be lost, a sentence each."""
        said = (
            []
            if self.is_empty
            else [
                f"{counted(len(self.runs), 'run')}, {counted(len(self.batches), 'batch')}, "
                f"{counted(len(self.request_ids), 'request')} and {counted(self.n_answers, 'answer')}: "
                "a request that is asked for again is paid for again."
            ]
        )
        if self.n_shared:
            said.append(f"{counted(self.n_shared, 'answer')} among them were asked for by other runs, too.")
        if self.shared_batches:
            said.append(
                f"{counted(len(self.shared_batches), 'batch')} stay, as other runs have requests in them."
            )
        if self.credentials:
            said.append(f"The sealed credentials of {', '.join(self.credentials)}.")
        if self.skipped:
            said.append(f"Still under way, and left alone: {', '.join(self.skipped)}.")
        return said


@dataclass(slots=True, kw_only=True)
class Done:
    """What was erased."""

    plan: Plan
    n_answers: int = 0
    n_left: int = 0
    """Requests that were left alone because somebody has asked for them again."""
    files_left: list[BatchId] = field(default_factory=list)
    """Batches whose files at their provider are still to be deleted, and whose records stay until then."""

    def as_json(self) -> dict[str, Any]:
        """Return what `batchling forget --json` prints."""
        plan = self.plan
        return {
            "runs": list(plan.runs),
            "batches": list(plan.batches),
            "shared_batches": list(plan.shared_batches),
            "credentials": list(plan.credentials),
            "skipped": list(plan.skipped),
            "n_requests": len(plan.request_ids),
            "n_answers": self.n_answers,
            "n_shared": plan.n_shared,
            "n_left": self.n_left,
            "files_left": list(self.files_left),
        }


class Eraser:
    """Plans and does what `batchling forget` is asked for, in one keyspace."""

    def __init__(self, inspection: Inspection, scripts: Scripts) -> None:
        self._look = inspection
        self._scripts = scripts
        self._redis: Redis = scripts.redis
        self._keys: Keys = scripts.keys

    async def plan(self, name: str) -> Plan | None:
        """Plan to erase a run, the runs of a name or a key; None if nothing here has the name.

        Raise `NothingToErase` while something of it is under way.
        """
        run_ids = await self._runs_named(name)
        fingerprints = set[str]() if run_ids else await self._keys_named(name)
        if not run_ids and not fingerprints:
            return None
        of_key: list[BatchId] = []
        if fingerprints:
            of_key = [one async for one, spec in self._specs_of_batches() if spec.fingerprint in fingerprints]
            run_ids = await self._runs_in(set(of_key))
        runs = [run for one in run_ids if (run := await self._look.run(one)) is not None]
        batches = {batch.batch_id: batch for run in runs for batch in run.batches}
        batches |= {batch.batch_id: batch for batch in await self._look.batches_named(of_key)}
        unfinished = [batch_id for batch_id, batch in batches.items() if not batch.state.terminal]
        if unfinished:
            raise NothingToErase(
                f"Nothing was erased: {counted(len(unfinished), 'batch')} under way, such as {unfinished[0]}. Wait, or "
                "cancel with `batchling cancel ID`: answers that a provider has begun to make are lost then, though "
                "they may be billed."
            )
        plan = Plan(runs=[run.run_id for run in runs])
        await self._fill(plan, batches, keep_shared=False, fingerprints=fingerprints)
        return plan

    async def plan_older(self, than: dt.timedelta) -> Plan:
        """Plan to erase what began longer ago, but for answers that younger runs have asked for, too."""
        seconds, micros = await self._redis.execute_command("TIME")
        before = dt.datetime.fromtimestamp(int(seconds) + int(micros) / 1e6, dt.UTC) - than
        plan = Plan(runs=[])
        batches: dict[BatchId, Batch] = {}
        for run in await self._look.runs(EVERYTHING):
            if run.started_at >= before:
                continue
            of_run = await self._look.batches_of(run.run_id)
            if all(batch.state.terminal for batch in of_run):
                plan.runs.append(run.run_id)
                batches |= {batch.batch_id: batch for batch in of_run}
            else:
                plan.skipped.append(run.run_id)
        old_ids = await self._redis.execute_command(
            "ZRANGEBYSCORE", self._keys.batches, "-inf", before.timestamp() * 1000
        )
        for batch in await self._look.batches_named(
            [BatchId(one.decode(errors="replace")) for one in old_ids]
        ):
            if batch.state.terminal:
                batches[batch.batch_id] = batch
        await self._fill(plan, batches, keep_shared=True, fingerprints=set())
        return plan

    async def _fill(
        self, plan: Plan, batches: dict[BatchId, Batch], *, keep_shared: bool, fingerprints: set[str]
    ) -> None:
        wanted: dict[RequestId, None] = {}
        for run_id in plan.runs:
            async for ids in self._look.request_ids_of(run_id):
                wanted.update(dict.fromkeys(ids))
        shared, elsewhere = set[RequestId](), set[BatchId]()
        for run in await self._look.runs(EVERYTHING):
            if run.run_id in plan.runs:
                continue
            elsewhere.update(await self._look.batch_ids_of(run.run_id))
            async for ids in self._look.request_ids_of(run.run_id):
                shared.update(one for one in ids if one in wanted)
        plan.request_ids = [one for one in wanted if not (keep_shared and one in shared)]
        plan.n_shared = 0 if keep_shared else len(shared)
        plan.n_answers = await self._n_stored(plan.request_ids)
        plan.batches = sorted(one for one in batches if one not in elsewhere)
        plan.shared_batches = sorted(one for one in batches if one in elsewhere)
        used = {batch.spec.fingerprint for batch in batches.values()} | fingerprints
        gone = {*plan.batches}
        async for batch_id, spec in self._specs_of_batches():
            if batch_id not in gone:
                used.discard(spec.fingerprint)
        # An answer that stays can be opened only as long as what is stored beside the credential stays.
        plan.credentials = [] if keep_shared and shared else sorted(used)
        plan.lanes = sorted(
            [one async for one, spec in self._lane_specs() if spec.fingerprint in plan.credentials]
        )

    async def erase(self, plan: Plan, *, files_s: float = FILES_S) -> Done:
        """Erase what is planned; what is asked for again meanwhile is left alone."""
        done = Done(plan=plan)
        await self._delete_files(plan, files_s)
        gone = [*plan.batches, *plan.shared_batches]
        for some in _chunks(plan.request_ids, ERASED_AT_ONCE):
            erased = await self._scripts.erase(request_ids=some, batch_ids=gone)
            done.n_answers += erased.n_answers
            done.n_left += erased.n_left
        for batch_id in plan.batches:
            verdict = await self._scripts.erase_batch(batch_id=batch_id)
            if verdict is Verdict.BUSY:
                done.files_left.append(batch_id)
        stay = [*plan.shared_batches, *done.files_left]
        await self._erase_failures(stay, {*plan.request_ids})
        for run_id in plan.runs:
            await self._erase_run(run_id)
        for fingerprint in plan.credentials:
            await self._erase_credential(fingerprint)
        for lane_id in plan.lanes:
            await self._erase_lane(lane_id)
        return done

    async def _delete_files(self, plan: Plan, within_s: float) -> None:
        """Have the workers delete the batches' files at their providers now, and wait until they have."""
        spent = self._keys.spent_files
        members = [f"{kind}:{one}" for one in plan.batches for kind in ("inputs", "results")]
        scores = await pipelined(self._redis, [("ZSCORE", spent, member) for member in members])
        waiting = [member for member, score in zip(members, scores, strict=True) if score is not None]
        await pipelined(self._redis, [("ZADD", spent, "XX", "0", member) for member in waiting])
        by = asyncio.get_running_loop().time() + within_s
        while waiting and asyncio.get_running_loop().time() < by:
            await asyncio.sleep(LOOK_EVERY_S)
            scores = await pipelined(self._redis, [("ZSCORE", spent, member) for member in waiting])
            waiting = [member for member, score in zip(waiting, scores, strict=True) if score is not None]

    async def _erase_failures(self, batch_ids: Sequence[BatchId], request_ids: set[RequestId]) -> None:
        """Take the erased requests out of the lists of failed requests of batches that stay."""
        for batch_id in batch_ids:
            place = self._keys.failed_rows(batch_id)
            (raws,) = await pipelined(self._redis, [("LRANGE", place, "0", "-1")])
            rows = [(raw, FailedRow.decode(raw)) for raw in raws or ()]
            theirs = [raw for raw, row in rows if row is None or row.request_id in request_ids]
            await pipelined(self._redis, [("LREM", place, "0", raw) for raw in theirs])
            await pipelined(
                self._redis, [("SREM", self._keys.unanswered(batch_id), one) for one in request_ids]
            )

    async def _erase_run(self, run_id: RunId) -> None:
        keys = self._keys
        places = [keys.mailbox(one) for one in await self._look.mailboxes_of(run_id)]
        lists = (keys.run_batches, keys.run_rows, keys.run_withdrawn, keys.run_requests)
        places += [keys.run(run_id), *(make(run_id) for make in lists)]
        await self._redis.execute_command("UNLINK", *places)
        await self._redis.execute_command("ZREM", keys.runs, run_id)

    async def _erase_credential(self, fingerprint: str) -> None:
        names = {self._keys.key_hint(fingerprint), self._keys.reader(fingerprint)}
        async for _, spec in self._lane_specs():
            if spec.fingerprint == fingerprint:
                named = stored_names(self._keys.version, fingerprint, spec.provider, spec.host)
                names |= {self._keys.credential(one) for one in named}
        await self._redis.execute_command("UNLINK", *names)

    async def _erase_lane(self, lane_id: LaneId) -> None:
        """Erase a lane's record, unless somebody has opened a batch in it meanwhile."""
        (opened,) = await pipelined(self._redis, [("HGET", self._keys.lane(lane_id), "open")])
        if opened is None:
            await self._redis.execute_command("UNLINK", self._keys.lane(lane_id))
            await self._redis.execute_command("ZREM", self._keys.lanes, lane_id)

    async def _runs_named(self, name: str) -> list[RunId]:
        if await self._look.run_alone(RunId(name)) is not None:
            return [RunId(name)]
        called = await self._look.runs_called(name)
        if called or len(name) < SHORTEST_PREFIX:
            return called
        batch_ids, run_ids = await self._look.ids_beginning_with(name)
        if batch_ids and not run_ids:
            raise NothingToErase(
                f"{batch_ids[0]} is a batch: name the run or the key whose requests are to be erased."
            )
        if len(run_ids) > 1:
            raise NothingToErase(f"{len(run_ids)} runs have ids that begin with {name!r}: write more of it.")
        return run_ids

    async def _keys_named(self, name: str) -> set[str]:
        """Return the fingerprint that a name is or begins."""
        if len(name) < SHORTEST_PREFIX:
            return set()
        found = {
            spec.fingerprint async for _, spec in self._lane_specs() if spec.fingerprint.startswith(name)
        }
        if len(found) > 1:
            raise NothingToErase(
                f"{len(found)} keys have fingerprints that begin with {name!r}: write more of it."
            )
        return {str(one) for one in found}

    async def _runs_in(self, batch_ids: set[BatchId]) -> list[RunId]:
        runs: list[RunRecord] = await self._look.runs(EVERYTHING)
        return [
            run.run_id for run in runs if not batch_ids.isdisjoint(await self._look.batch_ids_of(run.run_id))
        ]

    async def _lane_specs(self) -> AsyncIterator[tuple[LaneId, LaneSpec]]:
        ids = [LaneId(one) for one in await self._look.newest(self._keys.lanes, EVERYTHING)]
        async for one, spec in self._specs([(one, self._keys.lane(one)) for one in ids]):
            yield LaneId(one), spec

    async def _specs_of_batches(self) -> AsyncIterator[tuple[BatchId, LaneSpec]]:
        ids = [BatchId(one) for one in await self._look.newest(self._keys.batches, EVERYTHING)]
        async for one, spec in self._specs([(one, self._keys.batch(one)) for one in ids]):
            yield BatchId(one), spec

    async def _specs(self, places: Sequence[tuple[str, str]]) -> AsyncIterator[tuple[str, LaneSpec]]:
        for some in _chunks(places, READ_AT_ONCE):
            raws = await pipelined(self._redis, [("HGET", place, "spec") for _, place in some])
            for (name, _), raw in zip(some, raws, strict=True):
                with contextlib.suppress(CorruptRecord):
                    if raw is not None:
                        yield name, LaneSpec.decode(raw)

    async def _n_stored(self, request_ids: Sequence[RequestId]) -> int:
        n_stored = 0
        for some in _chunks(request_ids, READ_AT_ONCE):
            n_stored += int(await self._redis.execute_command("EXISTS", *map(self._keys.result, some)))
        return n_stored


def _chunks(those: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (those[first : first + size] for first in range(0, len(those), size))


async def rewrite_aof(redis: Redis, *, within_s: float = REWRITE_S) -> str:
    """Have Redis write its append-only file anew, without what was erased; return what came of it, as a sentence."""
    try:
        if not (await _persistence(redis)).get("aof_enabled"):
            return "Redis keeps no append-only file."
        await redis.execute_command("BGREWRITEAOF")
    except NoPermissionError:
        return "The Redis user may not rewrite the append-only file: run BGREWRITEAOF as another user."
    except ResponseError as error:
        if "already in progress" not in str(error):
            return "Redis refused to rewrite its append-only file: run BGREWRITEAOF, or the service's own command."
        await _rewritten(redis, within_s)
        await redis.execute_command("BGREWRITEAOF")
    if not await _rewritten(redis, within_s):
        return "Redis is still rewriting its append-only file: INFO persistence shows when it has done so."
    return "The append-only file was rewritten, without what was erased."


async def kept_by_redis(redis: Redis) -> str:
    """Say where Redis and others may still have what was erased."""
    try:
        facts = await _persistence(redis)
    except ResponseError:
        facts = {"aof_enabled": 1}
    aof = (
        "The append-only file holds what was erased until it is rewritten: --rewrite-aof, or BGREWRITEAOF. "
        if facts.get("aof_enabled")
        else ""
    )
    return f"{aof}Snapshots, replicas' files and backups that were made before keep it: delete them where they are."


async def _rewritten(redis: Redis, within_s: float) -> bool:
    by = asyncio.get_running_loop().time() + within_s
    while asyncio.get_running_loop().time() < by:
        facts = await _persistence(redis)
        if not (facts.get("aof_rewrite_in_progress") or facts.get("aof_rewrite_scheduled")):
            return True
        await asyncio.sleep(LOOK_EVERY_S)
    return False


async def _persistence(redis: Redis) -> dict[str, Any]:
    facts: dict[str, Any] = await redis.info("persistence")
    return facts
