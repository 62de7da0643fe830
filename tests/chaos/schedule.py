"""When which blow falls and when which fault is armed: pure functions of the seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from batchling_worker.sandbox.world import faults
from batchling_worker.sandbox.world.faults import AnyFault

Kind: TypeAlias = Literal[
    "kill worker",
    "kill worker's main",
    "kill pool child",
    "stop worker",
    "roll worker",
    "kill redis",
    "kill client",
    "cut queue",
    "cut provider",
]
WORKER_KILLS: Final[tuple[Kind, ...]] = (
    "kill worker",
    "kill worker",
    "kill worker's main",
    "kill pool child",
)
QUIET_AT_START_S: Final = 3.0
GUST_EVERY_S: Final = 0.7

GUSTS: Final[tuple[Callable[[], AnyFault], ...]] = (
    faults.DropCreateAnswer,
    faults.DropCreateAnswer,
    faults.DropCreateRequest,
    lambda: faults.FailCreateAnswer(status=502),
    lambda: faults.RefuseCreate(status=429, retry_after="1"),
    lambda: faults.RefuseCreate(status=503),
    faults.DropUploadAnswer,
    lambda: faults.RefuseUpload(status=500),
    lambda: faults.SlowUpload(seconds=0.7),
    lambda: faults.SlowUpload(seconds=1.0),
    lambda: faults.SlowUpload(seconds=1.5),
    lambda: faults.SlowUpload(seconds=2.5),
    lambda: faults.HideFile(seconds=0.5),
    lambda: faults.RefusePoll(status=500),
    lambda: faults.RefusePoll(status=429),
    faults.DropPollAnswer,
    lambda: faults.RefuseCancel(status=500),
    lambda: faults.HideBatch(seconds=1.5),
    lambda: faults.LagList(seconds=1.5),
    lambda: faults.ExpireBatch(done=0.5),
    lambda: faults.StickBatch(state="finalizing", seconds=2.0),
    lambda: faults.RepeatRows(n=3),
    lambda: faults.StrayRows(n=2),
    lambda: faults.FailRows(n=2, status=500),
    lambda: faults.FailRows(n=1, status=429),
    faults.KeepOrder,
    faults.BlankFileIds,
    faults.EmptyFiles,
    lambda: faults.LateFileIds(seconds=1.0),
    lambda: faults.HideOutput(seconds=1.0),
    lambda: faults.RefuseDownload(status=500),
    lambda: faults.TruncateDownload(sent=0.5),
    lambda: faults.SlowDownload(bytes_per_second=4_000),
    lambda: faults.StaleList(seconds=4.0),
    lambda: faults.StaleList(seconds=None),
    faults.ListWithOtherIds,
    faults.ListWithoutFileIds,
    faults.EmptyPage,
    lambda: faults.EmptyPage(cursor=False),
    lambda: faults.GarbleDownload(what="html"),
    lambda: faults.GarbleDownload(what="error"),
    lambda: faults.GarbleDownload(what="nothing"),
    lambda: faults.GarbleDownload(what="half"),
    lambda: faults.GarbleDownload(what="half the lines"),
    lambda: faults.RefuseErrorFile(status=404, seconds=4.0),
    lambda: faults.RefuseErrorFile(status=500, seconds=4.0),
    lambda: faults.FailBatch(code="server_error", message="The server had an error."),
    lambda: faults.SayStatus(word="complete"),
    lambda: faults.SayStatus(word="preparing", when="running"),
    lambda: faults.StickCancel(seconds=3.0),
    lambda: faults.JunkRows(what="echo"),
    lambda: faults.JunkRows(what="error"),
    lambda: faults.JunkRows(what="text"),
    lambda: faults.VllmRows(status=500, what="object"),
    lambda: faults.RedirectCall(call="upload"),
    lambda: faults.RedirectCall(call="create"),
    lambda: faults.RedirectCall(call="look"),
    lambda: faults.RedirectCall(call="download"),
    lambda: faults.RefusePoll(status=200),
)
"""Faults with which the provider loses no answered row, so that nothing may be billed twice."""
WRONG_CLOCKS: Final = (
    faults.SkewClock(provider="groq", seconds=-60.0),
    faults.SkewClock(provider="openai", seconds=20.0),
)
"""Both providers' clocks are wrong, from the start to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """One blow to the world; `target` is an index modulo the number of candidates, `lasts_s` is for stops."""

    at_s: float
    kind: Kind
    target: int
    lasts_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many blows of each kind a run has."""

    kills: int
    redis_kills: int
    client_kills: int
    stops: int
    rolls: int
    cuts: int


def blows(seed: int, seconds: float, counts: Counts, longest_stop_s: float) -> list[Blow]:
    """Return every blow in order of time; each kind is spread over the run with jitter."""
    rng = random.Random(f"{seed}:blows")
    found: list[Blow] = []

    def spread(n: int, make: Callable[[float], Blow]) -> None:
        span = (seconds - QUIET_AT_START_S) / max(1, n)
        found.extend(make(QUIET_AT_START_S + span * (i + rng.random())) for i in range(n))

    def worker_kill(at_s: float) -> Blow:
        return Blow(at_s=at_s, kind=rng.choice(WORKER_KILLS), target=rng.randrange(1000))

    def redis_kill(at_s: float) -> Blow:
        away_s = rng.choice((0.0, 0.0, rng.uniform(1.0, 3.0)))
        return Blow(at_s=at_s, kind="kill redis", target=0, lasts_s=away_s)

    def stop(at_s: float) -> Blow:
        lasts_s = rng.uniform(longest_stop_s / 2, longest_stop_s)
        return Blow(at_s=at_s, kind="stop worker", target=rng.randrange(1000), lasts_s=lasts_s)

    spread(counts.kills, worker_kill)
    spread(counts.redis_kills, redis_kill)
    spread(counts.stops, stop)
    spread(counts.client_kills, lambda at_s: Blow(at_s=at_s, kind="kill client", target=rng.randrange(1000)))
    spread(counts.rolls, lambda at_s: Blow(at_s=at_s, kind="roll worker", target=rng.randrange(1000)))
    spread(counts.cuts, lambda at_s: Blow(at_s=at_s, kind="cut queue", target=rng.randrange(1000)))
    spread(counts.cuts, lambda at_s: Blow(at_s=at_s, kind="cut provider", target=rng.randrange(1000)))
    return sorted(found, key=lambda blow: blow.at_s)


def gusts(seed: int, seconds: float) -> list[tuple[float, AnyFault]]:
    """Return every fault with the second at which it is armed."""
    rng = random.Random(f"{seed}:gusts")
    found: list[tuple[float, AnyFault]] = []
    at_s = 0.0
    while at_s < seconds:
        found.append((at_s, rng.choice(GUSTS)()))
        at_s += rng.uniform(0.0, 2 * GUST_EVERY_S)
    return found
