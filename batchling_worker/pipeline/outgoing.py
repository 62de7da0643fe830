"""Makes the row that is delivered: the packed result, and what is counted of it for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from batchling_client.wire.keys import RequestId
from batchling_client.wire.records.row_and_result import PROVIDER, Result
from batchling_client.wire.records.usage_and_failure import NO_CODE, spelled_failure
from batchling_client.wire.row_cipher import RowCipher
from batchling_client.wire.scripts import RowOut
from batchling_client.wire.states import RowKind

from ..dialects.usage import tokens_of

LONGEST_ERROR: Final = 64 * 1024
"""So much of an error is read for what people are shown of it."""


def outgoing(
    request_id: RequestId,
    kind: RowKind,
    *,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    origin: str = PROVIDER,
    cipher: RowCipher | None,
) -> RowOut:
    """Return the row of an answer, or of an error in the place of one, encrypted as its request was."""
    packed = Result.pack(
        kind=kind,
        status=status,
        headers=headers,
        body=body,
        origin=origin,
        request_id=request_id,
        cipher=cipher,
    )
    about = tokens_of(body).spelled() if kind is RowKind.SUCCESS else _reason(status, body, origin)
    return RowOut(request_id=request_id, kind=kind, packed=packed, about=about)


def refusal(
    request_id: RequestId, *, status: int, body: bytes, origin: str, cipher: RowCipher | None
) -> RowOut:
    """Return the row of an error that batchling itself makes; without a cipher it is not encrypted."""
    headers = {"content-type": "application/json"}
    return outgoing(
        request_id,
        RowKind.FAILURE,
        status=status,
        headers=headers,
        body=body,
        origin=origin,
        cipher=cipher,
    )


def _reason(status: int, body: bytes, origin: str) -> str:
    said: Any
    body = body[:LONGEST_ERROR]
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = body.decode(errors="replace")
    error = said.get("error", said) if isinstance(said, dict) else said
    return spelled_failure(status, origin if origin != PROVIDER else _code_in(error))


def _code_in(error: object) -> str:
    if not isinstance(error, dict):
        return NO_CODE
    named = (error.get(name) for name in ("code", "type", "status"))
    return next((str(one) for one in named if isinstance(one, str) and one), NO_CODE)
