"""An answer of success whose body is an error: what can be believed of it, and what it means for the call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from batchling_client.wire import error_words

from ..decisions import money
from ..errors import MaybeDone, PermanentError, TemporaryError
from . import lenient_json
from .http_errors import LONGEST_BODY, CallInfo, may_quote, message_of, of_status, redacted, without_words

SURE: Final = frozenset({401, 402, 403})
"""Refusals that hold whatever status they come under."""
UNKNOWN_THERE: Final = frozenset({404, 410})
SUBJECTS: Final = (
    "id",
    "batch_id",
    "name",
    "data",
    "job",
    "file",
    "batches",
    "operations",
    "results",
    "items",
)
"""Fields that an answer has and an error has not, or has empty."""
UNNAMED_REFUSAL: Final = 400
"""The status of an upload's refusal that names none: nothing is stored, and so nothing is paid for."""
_NAMING: Final = re.compile(r"(?:id|uri|url|arn|name)$", re.IGNORECASE)
"""How a field is called that names something which was made."""


def of_body(call_info: CallInfo, status: int, body: bytes) -> TemporaryError | PermanentError | None:
    """Return the worker's error for a success whose body is an error object and nothing else; None for any other."""
    uploads = call_info.submits and not call_info.paid
    if not (uploads or b'"error' in body or b'"success"' in body):
        return None
    try:
        said = lenient_json.decoded(body, dict[str, object])
    except (ValueError, RecursionError):
        return None
    if not (_is_error(said) or (uploads and _is_refusal(said))):
        return None
    inner = said.get("error")
    told = error_words.status_in(inner if isinstance(inner, dict) else {}) or error_words.status_in(said)
    clean = redacted(call_info, body[:LONGEST_BODY])
    if not told and uploads and not error_words.is_fault("", message_of(clean)):
        told = UNNAMED_REFUSAL
    failure = of_status(call_info, told, {}, clean) if told else None
    if isinstance(failure, MaybeDone) or (isinstance(failure, TemporaryError) and not call_info.paid):
        return failure
    refusal = failure if isinstance(failure, PermanentError) else None
    if refusal is not None and _is_sure(call_info, refusal):
        return refusal
    reason = f"{call_info.provider} answered {status} with an error when asked to {call_info.does}: {message_of(clean)}"
    error = MaybeDone(reason, refusal=refusal) if call_info.paid else TemporaryError(reason)
    if may_quote(call_info, told or UNNAMED_REFUSAL, clean):
        error.recorded = without_words(call_info, status, error_words.codes_in(said))
    return error


def _is_error(said: Mapping[str, object]) -> bool:
    alone = said.get("object") == "error" or not any(said.get(name) for name in SUBJECTS)
    return alone and bool(said.get("error") or said.get("object") == "error" or said.get("success") is False)


def _is_refusal(said: Mapping[str, object]) -> bool:
    """Return whether the answer to an upload says something and names nothing that was made."""
    if any(value for name, value in said.items() if name in SUBJECTS or _NAMING.search(name)):
        return False
    return bool(error_words.words_in(dict(said)))


def _is_sure(call_info: CallInfo, refusal: PermanentError) -> bool:
    """Return whether a refusal that came as a success can be believed.

    A key or an account without money is refused before anything is done, and an upload costs nothing. Of any other call
    the batch may exist: a create may have made it, and what a look is refused for says nothing of it.
    """
    if refusal.status in SURE or money.is_lacking(refusal.status, refusal.body.decode(errors="replace")):
        return True
    if call_info.paid:
        return False
    return call_info.submits or refusal.status in UNKNOWN_THERE
