"""Whom a complaint about a batch blames: a row of it, by line, custom_id or index, or all of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..provider import Complaint

ROW_COMPLAINTS: Final = frozenset(
    {
        "invalid_json_line",
        "duplicate_custom_id",
        "missing_required_parameter",
        "streaming_unsupported",
        "invalid_method",
    }
)
"""Validation codes that speak of the named row alone: without it the others are fine."""
QUOTA_COMPLAINTS: Final = frozenset({"token_limit_exceeded", "too_many_tasks"})
BATCH_COMPLAINTS: Final = QUOTA_COMPLAINTS | {
    "model_not_found",
    "mismatched_model",
    "model_mismatch",
    "invalid_url",
    "url_mismatch",
    "invalid_endpoint",
    "empty_file",
    "input_modified",
    "input_no_permissions",
}
"""Codes that come with the first line, and with any other just as well: the rows of a batch share what they name."""
SHARED_PARAMS: Final = frozenset({"model", "body.model", "url", "endpoint"})
ROW_STATUSES: Final = frozenset({400, 413, 422})
"""Statuses with which a provider that validates at once refuses a batch for one of its rows."""

_CUSTOM_ID: Final = re.compile(r"(?<![a-z0-9])[a-z2-7]{26}(?![a-z0-9])")
_LINE: Final = re.compile(
    r"\b(?:line|row)\s*(?:number|no\.?)?\s*[#:]?\s*(\d{1,9})\b(?!\s*,?\s*col)", re.IGNORECASE
)
_INDEX: Final = re.compile(r"\b(?:requests|batch_requests|rows|lines|items|inputs?)(?:\[|\.)(\d{1,9})\b")


@dataclass(frozen=True, slots=True)
class Pointer:
    """What a complaint points at: custom_ids that it spells, else a line, counted from 1."""

    custom_ids: tuple[str, ...] = ()
    line: int | None = None

    def __bool__(self) -> bool:
        return bool(self.custom_ids) or self.line is not None


def pointer(complaint: Complaint) -> Pointer:
    """Return which row a complaint blames; the pointer is falsy if the complaint blames all rows."""
    if _blames_all(complaint):
        return Pointer()
    words = f"{complaint.param or ''} {complaint.message}"
    return Pointer(tuple(_CUSTOM_ID.findall(words)), complaint.line or _line_in(words))


def is_certain(complaint: Complaint) -> bool:
    """Return whether the other rows are sure to be fine without the blamed row."""
    return complaint.code in ROW_COMPLAINTS


def _blames_all(complaint: Complaint) -> bool:
    if complaint.code in ROW_COMPLAINTS:
        return False
    return complaint.code in BATCH_COMPLAINTS or complaint.param in SHARED_PARAMS


def _line_in(words: str) -> int | None:
    index = _INDEX.search(words)
    if index is not None:
        return int(index[1]) + 1
    line = _LINE.search(words)
    return int(line[1]) if line is not None and int(line[1]) > 0 else None
