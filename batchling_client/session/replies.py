"""Replies to callers: stored results as HTTP replies, and batchling's errors in the provider's error shape."""

from __future__ import annotations

from typing import Final

import msgspec

from .. import errors
from ..errors import AnswerUnreadable, BatchlingError, RequestRefused
from ..intercept.interceptor import HttpReply
from ..wire.keys import RequestId
from ..wire.records.row_and_result import PROVIDER, CorruptRecord, Result
from ..wire.row_cipher import RowCipher

_encode: Final = msgspec.json.Encoder().encode


def of_result(request_id: RequestId, packed: bytes, cipher: RowCipher) -> HttpReply:
    """Return the reply of a stored result; for a damaged result, a reply that says so."""
    try:
        result = Result.decode(packed, request_id, cipher)
        body = result.body
    except CorruptRecord:
        return of_error(AnswerUnreadable, status=502)
    headers = {"content-type": "application/json", "x-request-id": request_id, **result.headers}
    if result.status >= 400:
        # Without it an SDK sends a failed row again, and that would be a new request in a new batch.
        headers["x-should-retry"] = "false"
    if result.origin != PROVIDER:
        headers[errors.HEADER] = result.origin
    return HttpReply(status=result.status, headers=headers, body=body)


def refusal(sentence: str, *, code: str, param: str | None = None, status: int = 400) -> HttpReply:
    """Return the reply to a request that cannot be batched as it is."""
    return _reply(sentence, kind=RequestRefused, code=code, param=param, status=status)


def of_error(kind: type[BatchlingError], *, status: int, sentence: str = "") -> HttpReply:
    """Return the reply that carries a batchling error."""
    return _reply(sentence or kind.sentence, kind=kind, code=kind.code, param=None, status=status)


def _reply(
    sentence: str, *, kind: type[BatchlingError], code: str, param: str | None, status: int
) -> HttpReply:
    family = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": sentence, "type": family, "code": code, "param": param}}
    headers = {"content-type": "application/json", "x-should-retry": "false", errors.HEADER: kind.code}
    return HttpReply(status=status, headers=headers, body=_encode(body))
