"""Workers against every provider with false answers: nothing is lost, paid twice, or stored as an answer by mistake.

Each lie affects a batch of its own, under a model of its own, all at the same time. What a provider's API cannot
show is declared by its emulator, with the reason: `Traits.unable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
import pytest

from batchling_client.wire.keys import RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import Result
from batchling_client.wire.states import BatchState
from batchling_worker import providers
from batchling_worker.decisions import patience
from batchling_worker.sandbox import Limits, Sandbox
from batchling_worker.sandbox.world import faults
from batchling_worker.sandbox.world.fault import Fault
from tests.deployment import Deployment
from tests.forks import Forks
from tests.form import Ability, Form, form_of, names
from tests.waiting import wait_until

N_ROWS: Final = 3
WITHIN_S: Final = 60.0
WORDS: Final = "This prompt is too long for the model."

Told: TypeAlias = Literal["answered", "one refused", "all refused", "no junk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lie:
    """The false answer, and the result that the callers of its batch get."""

    fault: Fault
    told: Told = "answered"
    status: int = 400
    needs: tuple[Ability, ...] = ()
    beside: tuple[Fault, ...] = ()
    """More false answers about the same batch."""


def _lies() -> Iterator[tuple[str, Lie]]:
    yield "file ids come late", Lie(fault=faults.LateFileIds(seconds=4.0), needs=(Ability.RESULT_FILES,))
    yield "files come late", Lie(fault=faults.HideOutput(seconds=4.0), needs=(Ability.RESULT_FILES,))
    yield "the list stands still", Lie(fault=faults.StaleList())
    yield "the list names other files", Lie(fault=faults.ListWithOtherIds())
    yield "the list names no files", Lie(fault=faults.ListWithoutFileIds())
    for what in ("html", "error", "nothing", "half", "half the lines"):
        yield f"a download is {what}", Lie(fault=faults.GarbleDownload(what=what))
    for status in (404, 500):
        yield f"the error file answers {status}", Lie(fault=faults.RefuseErrorFile(status=status))
    failed = faults.FailBatch(code="server_error", message="The server had an error. Please try again.")
    yield "the batch fails for a fault of the server", Lie(fault=failed, needs=(Ability.WHOLE_FAILURE,))
    yield (
        "the failure for a fault of the server has a word for success",
        Lie(fault=faults.SayStatus(word="complete"), beside=(failed,), needs=(Ability.WHOLE_FAILURE,)),
    )
    refused = faults.FailBatch(code="invalid_request", message=WORDS)
    yield (
        "the errors are a bare list",
        Lie(fault=faults.BareErrors(), beside=(refused,), told="all refused", needs=(Ability.WHOLE_FAILURE,)),
    )
    in_file = faults.FailInErrorFile(message=WORDS, n=None)
    yield "the reasons are in the error file", Lie(fault=in_file, told="all refused")
    yield "the end has another word", Lie(fault=faults.SayStatus(word="complete"))
    yield "running has another word", Lie(fault=faults.SayStatus(word="preparing", when="running"))
    for call in ("create", "look", "download"):
        yield f"a {call} is redirected", Lie(fault=faults.RedirectCall(call=call))
    yield "a look is an error under 200", Lie(fault=faults.RefusePoll(status=200, times=2))
    for junk in ("echo", "error", "text"):
        yield f"a row is {junk}", Lie(fault=faults.JunkRows(what=junk), told="no junk")
    for shape in ("text", "object", "number"):
        vllm = faults.VllmRows(what=shape, message=WORDS)
        yield f"a row fails as vLLM says it, {shape}", Lie(fault=vllm, told="one refused")
    yield "there is no money", Lie(fault=faults.OutOfMoney(times=None), told="all refused", status=0)


LIES: Final = dict(_lies())
OF_CALLS: Final = (
    faults.EmptyPage(times=4),
    faults.RefusePoll(status=200, times=2),
    faults.RedirectCall(call="upload", times=2),
)
"""Told in the list and of uploads, which are for every model."""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(speeds={"*": 0.4}, limits=Limits(min_rows=1, page_size=7)) as running:
        yield running


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as server:
        yield server


@pytest.fixture
async def deployment(sandbox: Sandbox, forks: Forks) -> AsyncIterator[Deployment]:
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        async with Deployment(home=Path(home), sandbox=sandbox, forks=forks) as running:
            yield running


def shown(sandbox: Sandbox, provider: str, lie: Lie) -> bool:
    """Whether the provider's API can show the lie."""
    [unable] = [one.traits.unable for one in sandbox.emulators if one.name == provider]
    return not any(type(fault) in unable for fault in (lie.fault, *lie.beside)) and form_of(provider).can(
        *lie.needs
    )


def wrong(form: Form, lie: Lie, results: Sequence[Result | None], n_runs: Sequence[int]) -> list[str]:
    """What became of a lie's requests and should not have."""
    if None in results:
        return [f"{results.count(None)} of {len(results)} requests have no answer"]
    found = [result for result in results if result is not None]
    statuses = Counter(result.status for result in found)
    said = []
    good = [result for result in found if result.status == 200]
    said += [f"not an answer: {result.body[:80]!r}" for result in good if not _is_answer(form, result)]
    if any(n > 1 for n in n_runs):
        said.append(f"rows were paid {sorted(n_runs)} times")
    bad = [result for result in found if result.status >= 400]
    match lie.told:
        case "answered":
            said += [f"got {dict(statuses)}: {bad[0].body[:200]!r}"] if bad else []
        case "all refused" | "one refused":
            n_bad = len(found) if lie.told == "all refused" else 1
            if len(bad) != n_bad or any(lie.status not in (0, one.status) for one in bad):
                said.append(f"got {dict(statuses)}")
            if lie.status and not all(WORDS.encode() in one.body for one in bad):
                said.append(f"without its words: {bad[0].body[:200]!r}" if bad else "without its words")
        case "no junk":
            pass
    return said


def _is_answer(form: Form, result: Result) -> bool:
    try:
        return "question" in form.text(json.loads(result.body))
    except (KeyError, TypeError, IndexError, ValueError, AttributeError):
        return False


async def told(deployment: Deployment, provider: str, lies: dict[str, Lie]) -> dict[str, list[str]]:
    """Tell each lie to a batch of its own and return, by lie, what went wrong."""
    form = form_of(provider)
    ids: dict[str, list[RequestId]] = {}
    for number, (name, lie) in enumerate(lies.items()):
        model = f"{form.model}-{number}"
        for fault in (lie.fault, *lie.beside):
            deployment.sandbox.faults.add(msgspec.structs.replace(fault, provider=provider, model=model))
        n_rows = max(N_ROWS, providers.load(provider).facts.min_rows)
        ids[name] = await deployment.ask(n_rows, provider=provider, model=model)
    everything = [one for some in ids.values() for one in some]

    async def complete() -> bool:
        await deployment.hurry()
        return None not in await deployment.results(everything)

    # Requests without an answer by then are reported below, with their lie.
    with contextlib.suppress(AssertionError):
        await wait_until(complete, description="all is answered", within_s=WITHIN_S)
    paid = deployment.sandbox.ledger().billed()
    by_lie: dict[str, list[str]] = {}
    for name, lie in lies.items():
        results = await deployment.results(ids[name])
        by_lie[name] = wrong(form, lie, results, [paid[one] for one in ids[name]])
    return {name: said for name, said in by_lie.items() if said}


def _spelled(broken: dict[str, list[str]]) -> str:
    return "\n".join(f"{name}: {'; '.join(said)}" for name, said in broken.items())


@pytest.mark.parametrize("provider", names())
async def test_no_lie_loses_doubles_or_spoils_an_answer(deployment: Deployment, provider: str) -> None:
    sandbox = deployment.sandbox
    lies = {name: lie for name, lie in LIES.items() if shown(sandbox, provider, lie)}
    sandbox.faults.add(*(msgspec.structs.replace(one, provider=provider) for one in OF_CALLS))
    deployment.fork()

    assert _spelled(await told(deployment, provider, lies)) == ""

    for lie in lies.values():
        assert sandbox.faults.n_struck(type(lie.fault)) > 0, f"{type(lie.fault).__name__} never struck"


@pytest.mark.parametrize("seconds", [-60.0, 60.0])
async def test_a_providers_wrong_clock_changes_nothing(deployment: Deployment, seconds: float) -> None:
    deployment.sandbox.faults.add(faults.SkewClock(seconds=seconds))
    deployment.fork()
    late = {"late": LIES["file ids come late"], "stale": LIES["the list stands still"]}

    async def broken(provider: str) -> str:
        able = {name: lie for name, lie in late.items() if shown(deployment.sandbox, provider, lie)}
        return _spelled(await told(deployment, provider, able))

    said = await asyncio.gather(*map(broken, names()))
    assert {provider: words for provider, words in zip(names(), said, strict=True) if words} == {}


@pytest.mark.parametrize("provider", names(Ability.CANCEL))
async def test_a_cancel_that_is_never_confirmed_ends_here_and_nothing_is_created_again(
    deployment: Deployment, provider: str
) -> None:
    deployment.sandbox.faults.add(
        faults.StickBatch(state="in_progress", seconds=None, done=0.0), faults.StickCancel()
    )
    ids = await deployment.ask(max(N_ROWS, providers.load(provider).facts.min_rows), provider=provider)
    deployment.fork()
    batch = await first_batch(deployment, lambda one: one.state is BatchState.SUBMITTED)

    await deployment.scripts.cancel(batch_id=batch.batch_id, lane_id=batch.lane_id, ending=b"{}", error="")
    asked = await first_batch(deployment, lambda one: one.n_cancels > 0)
    assert asked.cancel_at is not None
    long_ago = int((asked.cancel_at - patience.CANCEL_PATIENCE).timestamp() * 1000)
    await deployment.redis.execute_command(
        "HSET", deployment.keys.batch(batch.batch_id), "cancel_at", long_ago
    )
    ended = await first_batch(deployment, lambda one: one.state.terminal)

    assert f"{provider} has not confirmed the cancel" in ended.error
    assert {result.status for result in await deployment.answered(ids)} == {499}
    assert len(await deployment.batches()) == len(deployment.sandbox.ledger().batches) == 1


async def first_batch(deployment: Deployment, is_so: Callable[[Batch], bool]) -> Batch:
    """The one batch there is, once it is so."""
    found: list[Batch] = []

    async def check() -> bool:
        await deployment.hurry()
        found[:] = await deployment.batches()
        return is_so(found[0])

    await wait_until(check, description="the batch is so", within_s=WITHIN_S)
    return found[0]
