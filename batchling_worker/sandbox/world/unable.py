"""Reasons why an API cannot show a fault, shared by several providers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from . import faults
from .fault import Fault

Reasons: TypeAlias = Mapping[type[Fault], str]

NOT_PENDING: Final[Reasons] = {
    faults.HoldFilePending: "Its files are processed as soon as they are uploaded."
}
OWN_LINES: Final[Reasons] = {faults.VllmRows: "Its result lines have a shape of their own, not OpenAI's."}
ONE_RESULT_FILE: Final[Reasons] = dict.fromkeys(
    (faults.RefuseErrorFile, faults.FailInErrorFile, faults.BlankFileIds, faults.EmptyFiles),
    "Rows that failed are where those that succeeded are: there is no error file.",
)
NO_RESULT_IDS: Final[Reasons] = dict.fromkeys(
    (faults.ListWithOtherIds, faults.ListWithoutFileIds),
    "Its batches do not name where their results are.",
)
OWN_ERRORS: Final[Reasons] = {faults.BareErrors: "Its errors have a shape of their own."}
ONE_SHAPE: Final[Reasons] = {faults.DatedShape: "Its batches look the same in every version of its API."}
NO_PAGES: Final[Reasons] = {faults.EmptyPage: "Its list has no pages."}
NO_STATUS: Final[Reasons] = {faults.SayStatus: "No word says how a batch stands: its counts do."}
NO_UPLOADS: Final[Reasons] = dict.fromkeys(
    (faults.RefuseUpload, faults.DropUploadAnswer, faults.SlowUpload, faults.HideFile),
    "A batch's requests are in its create call.",
)
NO_METADATA: Final[Reasons] = dict.fromkeys(
    (faults.DropMetadata, faults.HideInputFileId, faults.ListWithoutLabels),
    "Its batches show neither metadata nor an input file.",
)
OBJECT_STORE: Final[Reasons] = {
    faults.HideFile: "Its input lies in an object store, which shows an object as soon as it is written.",
    faults.HideOutput: "Its results lie in an object store, which lists an object as soon as it can be read.",
}
