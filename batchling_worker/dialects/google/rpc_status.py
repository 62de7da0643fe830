"""What Google's codes (google.rpc.Code) are in HTTP, and its errors in the shape that its SDKs read."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from ...errors import PermanentError, TemporaryError
from ...provider import Complaint, Ending
from .. import bounds


class Code(NamedTuple):
    """A code as HTTP has it, and its name."""

    status: int
    name: str


CODES: Final = {
    1: Code(499, "CANCELLED"),
    2: Code(500, "UNKNOWN"),
    3: Code(400, "INVALID_ARGUMENT"),
    4: Code(504, "DEADLINE_EXCEEDED"),
    5: Code(404, "NOT_FOUND"),
    6: Code(409, "ALREADY_EXISTS"),
    7: Code(403, "PERMISSION_DENIED"),
    8: Code(429, "RESOURCE_EXHAUSTED"),
    9: Code(400, "FAILED_PRECONDITION"),
    10: Code(409, "ABORTED"),
    11: Code(400, "OUT_OF_RANGE"),
    12: Code(501, "UNIMPLEMENTED"),
    13: Code(500, "INTERNAL"),
    14: Code(503, "UNAVAILABLE"),
    15: Code(500, "DATA_LOSS"),
    16: Code(401, "UNAUTHENTICATED"),
}
UNKNOWN: Final = CODES[2]
RESOURCE_EXHAUSTED: Final = 429
OWN_FAULT: Final = 500
"""From this HTTP status on the provider is to blame."""
LONGEST_MESSAGE: Final = 2000

_QUOTA: Final = re.compile(r"answered 429 .*(?:quota|exhausted|enqueued)", re.IGNORECASE | re.DOTALL)
_BY_STATUS: Final = {code.status: code for code in reversed(CODES.values())}


class Failure(NamedTuple):
    """An error of Google's as an HTTP reply."""

    status: int
    name: str
    message: str
    body: bytes


def failure(error: object) -> Failure:
    """Return what an `error` says; its code is one of google.rpc or an HTTP status. The body is a realtime call's."""
    said = error if isinstance(error, dict) else {"message": bounds.text(error)}
    code = _code(said.get("code"))
    name = said.get("status") if isinstance(said.get("status"), str) else code.name
    message = bounds.text(said.get("message"))
    shown: dict[str, object] = {"code": code.status, "message": message, "status": name}
    if said.get("details"):
        shown["details"] = said["details"]
    return Failure(code.status, str(name), str(message), msgspec.json.encode({"error": shown}))


def failed_ending(error: object, results: tuple[str, ...], n_succeeded: int = 0) -> Ending:
    """Return how a batch that failed ended, with the provider's own reason, which names no row.

    A reason for which the provider is to blame goes to no caller where some rows succeeded: the rest is tried again.
    """
    said = failure(error)
    if said.status == RESOURCE_EXHAUSTED:
        full = Complaint(code="token_limit_exceeded", message=said.message)
        return Ending(results=results, complaints=(full,))
    if not said.message:
        return Ending(results=results)
    complaints = (Complaint(code=said.name, message=said.message),)
    if said.status >= OWN_FAULT and n_succeeded:
        return Ending(results=results, complaints=complaints)
    return Ending(results=results, complaints=complaints, status=said.status, body=said.body.decode())


def speaks_of_quota(error: PermanentError | TemporaryError) -> bool:
    """Return whether a create was refused because too much is enqueued; a rate limit has the same code."""
    return isinstance(error, TemporaryError) and _QUOTA.search(str(error)) is not None


def _code(said: object) -> Code:
    number = bounds.count(said)
    if 400 <= number <= 599:
        return _BY_STATUS.get(number, Code(number, UNKNOWN.name))
    return CODES.get(number, UNKNOWN)
