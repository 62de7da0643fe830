"""How each fault of the sandbox is run against an adapter, and what must come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.states import Outcome
from batchling_worker.errors import MaybeDone, WorkerError
from batchling_worker.pipeline.answer_check import checked
from batchling_worker.provider import Answer, Ended, Look, NotFound, Running
from batchling_worker.sandbox import Sandbox, emulator
from batchling_worker.sandbox.world import faults
from tests.form import Ability

from .desk import Desk, said
from .test_conformance import LONG_S, since

T = TypeVar("T")
N_ROWS: Final = 4
TRIES: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What came of one batch, from its upload to its results."""

    batch: ProviderBatchId
    look: Look
    answers: list[Answer] = field(default_factory=list)
    n_troubles: int = 0
    n_waits: int = 0
    """How often it was looked at before its results were there."""

    @property
    def outcome(self) -> Outcome | None:
        return self.look.outcome if isinstance(self.look, Ended) else None

    @property
    def good(self) -> set[str]:
        """The custom_ids of the requests of our own that were answered."""
        return {one.custom_id for one in self.answers if one.status == 200 and one.custom_id.startswith("r")}


class Troubled:
    """Makes a call until it comes through, with time going by."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.n_troubles = 0

    async def again(self, call: Callable[[], Awaitable[T]]) -> T:
        for _ in range(TRIES):
            try:
                return await call()
            except WorkerError:
                self.n_troubles += 1
                self._sandbox.clock.advance(10.0)
        return await call()


async def live(desk: Desk, sandbox: Sandbox, *, cancels: bool = False) -> Life:
    rows, began, troubled = desk.requests(N_ROWS), since(sandbox), Troubled(sandbox)
    file = await troubled.again(lambda: desk.upload(rows))

    async def create() -> ProviderBatchId:
        try:
            return await desk.create(file, requests=rows)
        except MaybeDone:
            sandbox.clock.advance(LONG_S)
            found = await desk.find(files=[file] if file else [], since=began, ours=rows)
            if not found:
                raise
            troubled.n_troubles += 1
            return found[0]

    batch = await troubled.again(create)
    for files in ([file] if file else [], []):
        # A search reads lists, and where these show too little it waits for the end.
        try:
            assert len(await desk.find(files=files, since=began, ours=rows)) <= 2
        except WorkerError:
            troubled.n_troubles += 1
    if cancels:
        sandbox.clock.advance(1.0)
        await troubled.again(lambda: desk.look(batch))
        await troubled.again(lambda: desk.provider.cancel(desk.account, batch))
    look, answers, n_waits = await _read_on(desk, sandbox, batch, troubled)
    answers = [checked(one, desk.form.endpoint) for one in answers]
    return Life(batch=batch, look=look, answers=answers, n_troubles=troubled.n_troubles, n_waits=n_waits)


async def _read_on(
    desk: Desk, sandbox: Sandbox, batch: ProviderBatchId, troubled: Troubled
) -> tuple[Look, list[Answer], int]:
    """Look and read until the batch has ended and its results are as many as it counts, for some hours at most."""
    answers: list[Answer] = []
    for n_waits in range(TRIES):
        sandbox.clock.advance(LONG_S * 3**n_waits)
        look = await troubled.again(lambda: desk.look(batch))
        if isinstance(look, Ended):
            answers = await troubled.again(partial(desk.answers, look.ending))
            if answers or not look.n_done:
                break
    return look, answers, n_waits


Check = Callable[[Life, Desk], None]


def all_good(life: Life, desk: Desk) -> None:
    assert life.outcome is Outcome.COMPLETED
    assert life.good == set(desk.requests(N_ROWS))
    assert len(life.answers) == N_ROWS
    for one in life.answers:
        assert f"Question {one.custom_id[1:]}?" in desk.form.text(said(one)), "answers are never mixed"


def troubled_and_good(life: Life, desk: Desk) -> None:
    assert life.n_troubles > 0, "the fault shows"
    all_good(life, desk)


def waited_and_good(life: Life, desk: Desk) -> None:
    assert life.n_troubles + life.n_waits > 0, "the fault shows"
    all_good(life, desk)


def in_order(life: Life, desk: Desk) -> None:
    all_good(life, desk)
    assert [one.custom_id for one in life.answers] == list(desk.requests(N_ROWS))


def one_row_less(life: Life, desk: Desk) -> None:
    assert len(life.good) == N_ROWS - 1


def one_row_failed(life: Life, desk: Desk) -> None:
    one_row_less(life, desk)
    [failed] = [one for one in life.answers if one.status != 200]
    if desk.form.can(Ability.ROW_STATUSES):
        assert failed.status in (400, 500, 502, 503)


def one_answer_more(life: Life, desk: Desk) -> None:
    assert len(life.answers) == N_ROWS + 1
    assert life.good == set(desk.requests(N_ROWS))


def none_good(life: Life, desk: Desk) -> None:
    assert isinstance(life.look, Ended)
    assert life.good == set()


def failed(life: Life, desk: Desk) -> None:
    assert life.outcome is Outcome.FAILED
    assert isinstance(life.look, Ended)
    assert life.look.ending.complaints or not desk.form.can(Ability.WHOLE_FAILURE)
    assert life.good == set()


def half_done(life: Life, desk: Desk) -> None:
    assert life.outcome in (Outcome.EXPIRED, Outcome.FAILED), "some have no word of their own for it"
    assert len(life.good) in (0, N_ROWS // 2), "some hand out nothing of it"


def never_ends(life: Life, desk: Desk) -> None:
    assert isinstance(life.look, Running)


def is_lost(life: Life, desk: Desk) -> None:
    assert isinstance(life.look, NotFound)


def is_over_in_the_end(life: Life, desk: Desk) -> None:
    assert life.n_troubles > 0
    assert life.outcome in (Outcome.CANCELLED, Outcome.COMPLETED)


def is_told(life: Life, desk: Desk) -> None:
    """An end under a word that nobody knows is not taken for a loss, and nothing is made up."""
    assert isinstance(life.look, Ended | Running)


def counts_are_no_answers(life: Life, desk: Desk) -> None:
    assert isinstance(life.look, Ended | Running)
    assert life.look.n_done != N_ROWS, "the lie shows, or no counts do"
    assert life.good == set(desk.requests(N_ROWS))


def is_found_or_missed(life: Life, desk: Desk) -> None:
    """A create that names a hidden file is refused, or its batch fails."""
    assert life.outcome in (Outcome.COMPLETED, Outcome.FAILED)
    assert life.good in (set(), set(desk.requests(N_ROWS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How a fault is run, and what must come of it."""

    fault: faults.Fault
    check: Check = all_good
    cancels: bool = False
    beside: faults.Fault | None = None
    """Another one, without which it does not show."""


def refusing(kind: type[faults.RefusingFault], **more: Any) -> Case:
    return Case(fault=kind(status=503, retry_after="1", **more), check=troubled_and_good)


CASES: Final[dict[type[faults.Fault], Case]] = {
    faults.DropCreateAnswer: Case(fault=faults.DropCreateAnswer(), check=troubled_and_good),
    faults.DropCreateRequest: Case(fault=faults.DropCreateRequest(), check=troubled_and_good),
    faults.FailCreateAnswer: Case(fault=faults.FailCreateAnswer(status=500), check=troubled_and_good),
    faults.CutCreateAnswer: Case(fault=faults.CutCreateAnswer(), check=troubled_and_good),
    faults.DoubleCreate: Case(fault=faults.DoubleCreate()),
    faults.DropMetadata: Case(fault=faults.DropMetadata()),
    faults.HideInputFileId: Case(fault=faults.HideInputFileId()),
    faults.ListWithoutLabels: Case(fault=faults.ListWithoutLabels()),
    faults.SlowCreate: Case(fault=faults.SlowCreate(seconds=0.05)),
    faults.RefuseCreate: refusing(faults.RefuseCreate),
    faults.DropUploadAnswer: Case(fault=faults.DropUploadAnswer(), check=troubled_and_good),
    faults.RefuseUpload: refusing(faults.RefuseUpload),
    faults.SlowUpload: Case(fault=faults.SlowUpload(seconds=0.05)),
    faults.HideFile: Case(fault=faults.HideFile(seconds=5.0), check=is_found_or_missed),
    faults.HoldFilePending: Case(fault=faults.HoldFilePending(seconds=5.0), check=troubled_and_good),
    faults.RefusePoll: refusing(faults.RefusePoll),
    faults.DropPollAnswer: Case(fault=faults.DropPollAnswer(), check=troubled_and_good),
    faults.RefuseCancel: Case(fault=faults.RefuseCancel(status=503), cancels=True, check=is_over_in_the_end),
    faults.HideBatch: Case(fault=faults.HideBatch(seconds=70.0), check=waited_and_good),
    faults.LoseBatch: Case(fault=faults.LoseBatch(), check=is_lost),
    faults.LagList: Case(fault=faults.LagList(seconds=30.0)),
    faults.FailBatch: Case(fault=faults.FailBatch(), check=failed),
    faults.ExpireBatch: Case(fault=faults.ExpireBatch(), check=half_done),
    faults.StickBatch: Case(fault=faults.StickBatch(), check=never_ends),
    faults.ForgetDoneOnCancel: Case(fault=faults.ForgetDoneOnCancel(), cancels=True, check=none_good),
    faults.LoseRows: Case(fault=faults.LoseRows(), check=one_row_less),
    faults.RepeatRows: Case(fault=faults.RepeatRows(), check=one_answer_more),
    faults.StrayRows: Case(fault=faults.StrayRows(), check=one_answer_more),
    faults.BreakRows: Case(fault=faults.BreakRows(), check=one_row_less),
    faults.ZeroRows: Case(fault=faults.ZeroRows(), check=one_row_failed),
    faults.SpoilRows: Case(fault=faults.SpoilRows(lines=('{"custom_id": 7}',)), check=one_row_less),
    faults.LieInCounts: Case(
        fault=faults.LieInCounts(counts={"total": 9, "completed": 9, "failed": 0}),
        check=counts_are_no_answers,
    ),
    faults.FailRows: Case(fault=faults.FailRows(status=400), check=one_row_failed),
    faults.HealRows: Case(fault=faults.HealRows()),
    faults.KeepOrder: Case(fault=faults.KeepOrder(), check=in_order),
    faults.BlankFileIds: Case(fault=faults.BlankFileIds(value={})),
    faults.EmptyFiles: Case(fault=faults.EmptyFiles()),
    faults.LateFileIds: Case(fault=faults.LateFileIds(seconds=70.0), check=waited_and_good),
    faults.HideOutput: Case(fault=faults.HideOutput(seconds=75.0), check=troubled_and_good),
    faults.RefuseDownload: refusing(faults.RefuseDownload),
    faults.TruncateDownload: Case(fault=faults.TruncateDownload()),
    faults.SlowDownload: Case(fault=faults.SlowDownload(bytes_per_second=1_000_000)),
    faults.RefuseKey: Case(fault=faults.RefuseKey(status=401, after=2), check=all_good),
    faults.SilenceKey: Case(fault=faults.SilenceKey(seconds=0.05)),
    faults.StaleList: Case(fault=faults.StaleList()),
    faults.BareErrors: Case(fault=faults.BareErrors(), beside=faults.FailBatch(), check=failed),
    faults.DatedShape: Case(fault=faults.DatedShape()),
    faults.ListWithOtherIds: Case(fault=faults.ListWithOtherIds()),
    faults.ListWithoutFileIds: Case(fault=faults.ListWithoutFileIds()),
    faults.EmptyPage: Case(fault=faults.EmptyPage()),
    faults.GarbleDownload: Case(fault=faults.GarbleDownload(), check=troubled_and_good),
    faults.RefuseErrorFile: Case(fault=faults.RefuseErrorFile(seconds=75.0), check=troubled_and_good),
    faults.FailInErrorFile: Case(fault=faults.FailInErrorFile(n=None), check=none_good),
    faults.SayStatus: Case(fault=faults.SayStatus(), check=is_told),
    faults.StickCancel: Case(fault=faults.StickCancel(), cancels=True, check=never_ends),
    faults.JunkRows: Case(fault=faults.JunkRows(), check=one_row_less),
    faults.VllmRows: Case(
        # A batch that has just ended may yet name its error file; this one has ended long ago.
        fault=faults.VllmRows(),
        beside=faults.SkewClock(seconds=-600.0),
        check=one_row_failed,
    ),
    faults.RedirectCall: Case(fault=faults.RedirectCall(call="look")),
    faults.OutOfMoney: Case(fault=faults.OutOfMoney(call="look"), check=troubled_and_good),
    faults.SkewClock: Case(fault=faults.SkewClock(seconds=-60.0)),
}

OTHERWISE: Final[dict[type[faults.Fault], str]] = {
    faults.RefuseRealtime: "No adapter makes realtime calls: tests/sandbox/test_realtime.py runs it.",
}
"""Faults that no batch of an adapter meets, each with the test that runs it."""


def impossible(name: str) -> dict[type[faults.Fault], str]:
    with Sandbox() as sandbox:
        [found] = [dict(one.traits.unable) for one in sandbox.emulators if one.name == name]
    return found


UNABLE: Final = {name: impossible(name) for name in emulator.names()}
