"""Faults of a provider, as a table of small records that tests and rehearsals arm.

A fault strikes `times` matching occasions (None = until cleared) after letting the first `after` of them
through; `provider` and `model` narrow it. Over HTTP a fault is its fields plus `"fault"`, its class name in
kebab case. A fault with a model strikes only where the model is known: not on uploads and lists.
Faults of a batch are assigned when the batch is created, faults of a call when the call comes in.
A single row is made to fail by a marker anywhere in its text, see `batchling_worker.sandbox.world.markers`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Literal, TypeVar, get_args

import msgspec

from .fault import FailingFault, Fault, RefusingFault, RowsFault
from .lies import (
    BareErrors,
    DatedShape,
    EmptyPage,
    FailInErrorFile,
    GarbleDownload,
    JunkRows,
    ListWithOtherIds,
    ListWithoutFileIds,
    OutOfMoney,
    RedirectCall,
    RefuseErrorFile,
    SayStatus,
    SkewClock,
    StaleList,
    StickCancel,
    VllmRows,
)

__all__ = (
    "KINDS",
    "AnyFault",
    "BareErrors",
    "BlankFileIds",
    "BreakRows",
    "CutCreateAnswer",
    "DatedShape",
    "DoubleCreate",
    "DropCreateAnswer",
    "DropCreateRequest",
    "DropMetadata",
    "DropPollAnswer",
    "DropUploadAnswer",
    "EmptyFiles",
    "EmptyPage",
    "ExpireBatch",
    "F",
    "FailBatch",
    "FailCreateAnswer",
    "FailInErrorFile",
    "FailRows",
    "FailingFault",
    "Fault",
    "FaultTable",
    "ForgetDoneOnCancel",
    "GarbleDownload",
    "HealRows",
    "HideBatch",
    "HideFile",
    "HideInputFileId",
    "HideOutput",
    "HoldFilePending",
    "JunkRows",
    "KeepOrder",
    "LagList",
    "LateFileIds",
    "LieInCounts",
    "ListWithOtherIds",
    "ListWithoutFileIds",
    "ListWithoutLabels",
    "LoseBatch",
    "LoseRows",
    "OutOfMoney",
    "RedirectCall",
    "RefuseCancel",
    "RefuseCreate",
    "RefuseDownload",
    "RefuseErrorFile",
    "RefuseKey",
    "RefusePoll",
    "RefuseRealtime",
    "RefuseUpload",
    "RefusingFault",
    "RepeatRows",
    "RowsFault",
    "SayStatus",
    "SilenceKey",
    "SkewClock",
    "SlowCreate",
    "SlowDownload",
    "SlowUpload",
    "SpoilRows",
    "StaleList",
    "StickBatch",
    "StickCancel",
    "StrayRows",
    "TruncateDownload",
    "VllmRows",
    "ZeroRows",
    "decode_faults",
)


class DropCreateAnswer(Fault):
    """The batch is created, and the connection closes before the answer."""


class DropCreateRequest(Fault):
    """The connection closes before anything is created."""


class FailCreateAnswer(RefusingFault):
    """The batch is created, and the answer is an error all the same."""


class CutCreateAnswer(Fault):
    """The batch is created, and the connection closes in the middle of the answer's body."""


class DoubleCreate(Fault):
    """A gateway hands the call on twice: two batches are created, and the answer speaks of the second."""


class DropMetadata(Fault):
    """The batch shows no metadata, anywhere and for ever."""


class HideInputFileId(Fault):
    """The batch does not show its input file, anywhere and for ever."""


class ListWithoutLabels(Fault):
    """In lists the batch shows neither metadata nor its input file; asked for by its id it does."""


class SlowCreate(Fault):
    """The batch is created, and the answer comes `seconds` of real time late."""

    seconds: float = 1.0


class RefuseCreate(RefusingFault):
    """Creating a batch is refused; nothing is created."""


class DropUploadAnswer(Fault):
    """The file is stored, and the connection closes before the answer."""


class RefuseUpload(RefusingFault):
    """Uploading a file is refused; nothing is stored."""


class SlowUpload(Fault):
    """The answer to an upload comes `seconds` of real time late."""

    seconds: float = 1.0


class HideFile(Fault):
    """An uploaded file cannot be found, by anybody, for its first `seconds`."""

    seconds: float = 5.0


class HoldFilePending(Fault):
    """An uploaded file is not processed for its first `seconds`, at providers that say so."""

    seconds: float = 5.0


class RefusePoll(RefusingFault):
    """Looking at one batch or at the list of batches is refused."""


class DropPollAnswer(Fault):
    """Looking at one batch or at the list ends in a closed connection."""


class RefuseCancel(RefusingFault):
    """Cancelling a batch is refused; it runs on."""


class HideBatch(Fault):
    """A new batch answers 404 and is in no list for its first `seconds`."""

    seconds: float = 5.0


class LoseBatch(Fault):
    """A batch is found for its first `seconds`, and is 404 for ever after."""

    seconds: float = 0.0


class LagList(Fault):
    """A new batch is missing from lists for its first `seconds`, but is found by its id."""

    seconds: float = 5.0


class FailBatch(Fault):
    """The whole batch fails validation `seconds` after its creation, with one error."""

    code: str = "token_limit_exceeded"
    message: str = (
        "Enqueued token limit reached. Please try again once some in_progress batches have been completed."
    )
    line: int | None = None
    lines: tuple[int, ...] = ()
    """An error for each of these lines, instead of `line`."""
    param: str | None = None
    seconds: float = 0.0


class ExpireBatch(Fault):
    """The batch ends as expired with the share `done` of its rows answered."""

    done: float = 0.5


class StickBatch(Fault):
    """The batch stays in `state` for `seconds` (None = for ever); `done` is the share answered meanwhile."""

    state: Literal["validating", "in_progress", "finalizing"] = "finalizing"
    seconds: float | None = None
    done: float = 1.0


class ForgetDoneOnCancel(Fault):
    """Rows that were answered and billed before a cancel are in no result file, and counts go back to 0."""


class LoseRows(RowsFault):
    """`n` rows are answered and billed and are in no result file."""


class RepeatRows(RowsFault):
    """`n` rows are in the result files twice."""


class StrayRows(RowsFault):
    """The output file has `n` rows more, with custom_ids nobody sent."""


class BreakRows(RowsFault):
    """`n` result lines are cut in half and are no JSON."""


class ZeroRows(RowsFault):
    """`n` rows are in the error file with status_code 0 and no body, while the counts call them completed."""


class SpoilRows(RowsFault):
    """`n` rows have `lines` in `file` in place of their own line, or before it where that stays."""

    lines: tuple[str, ...] = ()
    """`CUSTOM_ID` in them becomes the row's own id; letters are bytes (Latin-1), so that any bytes can be had."""
    file: Literal["output", "error"] = "output"
    stays: bool = False


class LieInCounts(Fault):
    """Once the batch has ended, its counts are these, of whatever type."""

    counts: dict[str, object] | None = None


class FailRows(FailingFault):
    """`n` rows (None = all) fail with `status`."""


class HealRows(FailingFault):
    """`n` rows (None = all) fail with `status` while the batch runs, and have succeeded when it has ended."""


class KeepOrder(Fault):
    """Result rows stand in the order of the input instead of a shuffled one."""


class BlankFileIds(Fault):
    """A result file that does not exist has this id instead of null; Groq is said to show an empty object."""

    value: str | dict[str, str] = ""


class EmptyFiles(Fault):
    """A result file without rows exists and has 0 bytes."""


class LateFileIds(Fault):
    """The ids of the result files are null for the first `seconds` after the end."""

    seconds: float = 5.0


class HideOutput(Fault):
    """The result files answer 404 for the first `seconds` after the end."""

    seconds: float = 5.0


class RefuseDownload(RefusingFault):
    """Reading a file's content is refused."""


class TruncateDownload(Fault):
    """The connection closes after the share `sent` of a file's content."""

    sent: float = 0.5


class SlowDownload(Fault):
    """A file's content comes at `bytes_per_second` of real time."""

    bytes_per_second: int = 100_000


class RefuseKey(RefusingFault):
    """Every call with an API key that starts with `key` is refused."""

    key: str = ""


class SilenceKey(Fault):
    """A call with an API key that starts with `key` is taken in full, and has no answer for `seconds` of real time."""

    key: str = ""
    seconds: float = 60.0


class RefuseRealtime(RefusingFault):
    """A realtime call is refused."""


AnyFault = (
    DropCreateAnswer
    | DropCreateRequest
    | FailCreateAnswer
    | CutCreateAnswer
    | DoubleCreate
    | DropMetadata
    | HideInputFileId
    | ListWithoutLabels
    | SlowCreate
    | RefuseCreate
    | DropUploadAnswer
    | RefuseUpload
    | SlowUpload
    | HideFile
    | HoldFilePending
    | RefusePoll
    | DropPollAnswer
    | RefuseCancel
    | HideBatch
    | LoseBatch
    | LagList
    | FailBatch
    | ExpireBatch
    | StickBatch
    | ForgetDoneOnCancel
    | LoseRows
    | RepeatRows
    | StrayRows
    | BreakRows
    | ZeroRows
    | SpoilRows
    | LieInCounts
    | FailRows
    | HealRows
    | KeepOrder
    | BlankFileIds
    | EmptyFiles
    | LateFileIds
    | HideOutput
    | RefuseDownload
    | TruncateDownload
    | SlowDownload
    | RefuseKey
    | SilenceKey
    | RefuseRealtime
    | StaleList
    | BareErrors
    | DatedShape
    | ListWithOtherIds
    | ListWithoutFileIds
    | EmptyPage
    | GarbleDownload
    | RefuseErrorFile
    | FailInErrorFile
    | SayStatus
    | StickCancel
    | JunkRows
    | VllmRows
    | RedirectCall
    | OutOfMoney
    | SkewClock
)

KINDS: tuple[type[Fault], ...] = get_args(AnyFault)
"""Every fault there is."""

_decoder = msgspec.json.Decoder(list[AnyFault] | AnyFault)

F = TypeVar("F", bound=Fault)


def decode_faults(payload: bytes) -> list[AnyFault]:
    """Return the faults of a JSON object or array; msgspec.DecodeError says what is wrong with it."""
    decoded = _decoder.decode(payload)
    return decoded if isinstance(decoded, list) else [decoded]


class _Armed:
    __slots__ = ("fault", "left", "let_through", "n_struck")

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.n_struck = 0
        self.let_through = fault.after
        self.left = fault.times

    def strikes(self, kind: type[Fault], provider: str, model: str | None, key: str, call: str) -> bool:
        fault = self.fault
        if type(fault) is not kind or self.left == 0:
            return False
        if isinstance(fault, RefuseKey | SilenceKey) and not key.startswith(fault.key):
            return False
        if isinstance(fault, RedirectCall | OutOfMoney) and fault.call != call:
            return False
        if fault.provider not in (None, provider) or fault.model not in (None, model):
            return False
        if self.let_through > 0:
            self.let_through -= 1
            return False
        if self.left is not None:
            self.left -= 1
        self.n_struck += 1
        return True


class FaultTable:
    """The armed faults, in order; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []
        self._unable: dict[str, frozenset[type[Fault]]] = {}

    def spare(self, provider: str, kinds: Iterable[type[Fault]]) -> None:
        """Keep faults of these kinds from a provider whose API cannot show them."""
        self._unable[provider] = frozenset(kinds)

    def add(self, *faults: Fault) -> None:
        """Arm faults after those already armed."""
        with self._lock:
            self._armed.extend(_Armed(fault) for fault in faults)

    def take(
        self, kind: type[F], provider: str, model: str | None = None, key: str = "", call: str = ""
    ) -> F | None:
        """Return the first armed fault of this kind that matches, and use up one of its strikes."""
        if kind in self._unable.get(provider, ()):
            return None
        with self._lock:
            for armed in self._armed:
                if armed.strikes(kind, provider, model, key, call) and isinstance(armed.fault, kind):
                    return armed.fault
        return None

    def standing(self, kind: type[F], provider: str) -> F | None:
        """Return the first armed fault of this kind that matches, without using up a strike: it lasts until cleared."""
        with self._lock:
            for armed in self._armed:
                fault = armed.fault
                if isinstance(fault, kind) and fault.provider in (None, provider):
                    armed.n_struck += 1
                    return fault
        return None

    def n_struck(self, kind: type[Fault]) -> int:
        """Return how often faults of this kind have struck since they were armed."""
        with self._lock:
            return sum(armed.n_struck for armed in self._armed if type(armed.fault) is kind)

    def armed(self) -> list[Fault]:
        """Return the faults that can still strike."""
        with self._lock:
            return [armed.fault for armed in self._armed if armed.left != 0]

    def clear(self) -> None:
        """Disarm every fault."""
        with self._lock:
            self._armed.clear()
