"""The answer of a result row, from what its provider shows of it: a status and a body, an error, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from batchling_client.wire import answer_shape, error_words

from ..provider import ROW_LOST, Answer, error_body
from . import bounds
from .lenient_json import as_text
from .row_errors import EMPTY_BODIES, LONGEST_WORDS

JSON_TYPE: Final = "application/json"
UNRUN: Final = {"batch_expired": (504, "batch_expired"), "batch_cancelled": (499, "batch_cancelled")}
"""Codes of rows that never ran -> the status and origin of their answer."""
UNRUN_OTHERWISE: Final = (500, "provider")
"""Status and origin of a row that the provider could not run for a reason of its own."""
JSON_HEADERS: Final = {"content-type": JSON_TYPE}


def told_by(code: str) -> tuple[int, str]:
    """Return the status and origin of a row that has an error and no response, from the error's code."""
    status = error_words.status_of(code)
    return UNRUN.get(code, (status, "provider") if status else UNRUN_OTHERWISE)


def answer_of(
    custom_id: str,
    said: object,
    body: bytes,
    request_id: object = None,
    id_header: str = "x-request-id",
) -> Answer:
    """Return the answer of a row with a status and a body.

    A success whose body holds no answer stays a success here: `answer_check` makes it a failure that is never run
    again, because the provider has counted it as done. A row with neither a status nor a body was lost.
    """
    status = bounds.http_status(said)
    if status < 200:
        if body in EMPTY_BODIES:
            return lost(custom_id)
        # Whatever the status was to be, the body says how the request went, and `answer_check` reads it.
        status = 200
    body = as_text(body)
    if 300 <= status < 400:
        return _redirected(custom_id, status, body)
    headers = JSON_HEADERS
    # It becomes the value of an HTTP header: a provider must not be able to end one there.
    if isinstance(request_id, str) and request_id and request_id.isascii() and request_id.isprintable():
        headers = {"content-type": JSON_TYPE, id_header: request_id}
    return Answer(custom_id=custom_id, status=status, body=body, headers=headers)


def answer_or_lost(custom_id: str, body: bytes) -> Answer:
    """Return the answer of a row whose provider names no status: a row without an answer and an error was lost."""
    return lost(custom_id) if body in (b"", b"null") else answer_of(custom_id, 200, body)


def _redirected(custom_id: str, status: int, body: bytes) -> Answer:
    """Return the error for a row that holds a redirect: the place that it names was not asked."""
    quote = body[:LONGEST_WORDS].decode(errors="replace")
    message = f"The provider answered this request with a redirect ({status}): {quote}".rstrip(": ")
    failure = error_body(answer_shape.UNFIT, message)
    return Answer(
        custom_id=custom_id,
        status=answer_shape.UNFIT_STATUS,
        body=failure,
        headers=JSON_HEADERS,
        origin=answer_shape.UNFIT,
    )


def unrun(
    custom_id: str, code: str, message: str = "", told: Callable[[str], tuple[int, str]] = told_by
) -> Answer:
    """Return the answer of a row that never ran; `code` is one of `UNRUN`, or the provider's own."""
    status, origin = told(code)
    message = message or f"The provider did not run this request ({code})."
    body = error_body(code or None, message, chosen_status=status if origin == "provider" else None)
    return Answer(custom_id=custom_id, status=status, body=body, headers=JSON_HEADERS, origin=origin)


def lost(custom_id: str) -> Answer:
    """Return the answer of a row that the provider names without a result."""
    body = error_body(ROW_LOST, "The provider's results name this request and hold no answer to it.")
    return Answer(custom_id=custom_id, status=503, body=body, headers=JSON_HEADERS, origin=ROW_LOST)
