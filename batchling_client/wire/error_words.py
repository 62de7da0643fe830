"""What the codes and types of providers' errors are in HTTP, for errors that come without a status."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

LEAST_ERROR: Final = 400
MOST_STATUS: Final = 599
LONGEST_WORD: Final = 100
STATUS_FIELDS: Final = ("status_code", "status", "code", "raw_status_code", "http_status")

_STATUSES: Final = tuple(
    (re.compile(words), status)
    for words, status in (
        (r"^(?:insufficient_(?:user_)?quota|rate_?limit.*|resource_?exhausted|too_?many_requests)$", 429),
        (r"^throttl(?:ing|ed)(?:_?error)?$", 429),
        (r"^(?:invalid_api_key|authentication_?error|unauthenticated|unauthorized)$", 401),
        (r"^billing_error$", 402),
        (r"^(?:permission_?(?:error|denied)(?:_?error)?|access_?denied(?:_?error)?|forbidden)$", 403),
        (r"^(?:.*_)?not_?found(?:_?error)?$", 404),
        (r"^(?:request|payload|entity)_too_large(?:_?error)?$", 413),
        (r"^(?:unprocessable_?entity(?:_?error)?)$", 422),
        (r"^(?:.*_)?time_?d?_?out(?:_?error)?$|^deadline_?exceeded$", 504),
        (
            r"^(?:service_?)?(?:temporarily_)?unavailable(?:_?error)?$|^(?:server_)?overloaded(?:_?error)?$",
            503,
        ),
        (r"^bad_?gateway(?:_?error)?$", 502),
        (r"^(?:internal(?:_?server)?|server|api|system|unknown|unexpected|engine)(?:_?error)?$", 500),
        (r"^internal.*error$|^batch_processing_error$|^data_loss$", 500),
        (r"^(?:bad_?request|invalid_?argument|failed_?precondition|out_?of_?range)(?:_?error)?$", 400),
        (r"^(?:invalid|unsupported|missing|malformed)_.*$|^(?:validation|value|type)_?error$", 400),
        (
            r"^(?:context_length_exceeded|content_filter|content_policy_violation|string_above_max_length)$",
            400,
        ),
    )
)
_FAULT: Final = re.compile(
    r"internal (?:server )?error|(?:temporar|service|currently)\w* (?:is )?unavailable|overloaded|bad gateway"
    r"|(?:server|system) (?:had an )?error|something went wrong|(?:please )?(?:try|retry)[^.]{0,30} (?:again|later)"
    r"|gateway time-?out|\b(?:http|error|status)[ :]*(?:code)?[ :]*5\d\d\b",
    re.IGNORECASE,
)
_EXCEPTION: Final = re.compile("_exception$")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def status_of(*words: str) -> int:
    """Return the HTTP status that the first known word stands for, or that a word spells; 0 where none does."""
    for word in words:
        number = number_of(word)
        if number:
            return number
        plain = _HUMP.sub("_", word[:LONGEST_WORD].strip()).lower().replace("-", "_").replace(" ", "_")
        # AWS spells `namespace#InternalServerException`.
        plain = _EXCEPTION.sub("_error", plain.rpartition("#")[2])
        for known, status in _STATUSES:
            if known.match(plain):
                return status
    return 0


def number_of(said: object) -> int:
    """Return an error's HTTP status that is a number or spelt as one; 0 for anything else."""
    if isinstance(said, str):
        said = int(said) if len(said) == len("400") and said.isascii() and said.isdigit() else 0
    if isinstance(said, float) and said.is_integer():
        said = int(said) if LEAST_ERROR <= said <= MOST_STATUS else 0
    return said if isinstance(said, int) and LEAST_ERROR <= said <= MOST_STATUS else 0


def named_in(error: Mapping[str, object]) -> int:
    """Return the HTTP status that a number in an error object names; 0 where none does."""
    return next((number for name in STATUS_FIELDS if (number := number_of(error.get(name)))), 0)


def status_in(error: Mapping[str, object]) -> int:
    """Return the HTTP status that an error object names, or that its words stand for; 0 where it tells none."""
    return named_in(error) or status_of(
        *(word for name in ("code", "type", "status", "__type") if isinstance(word := error.get(name), str))
    )


def is_fault(code: str, message: str) -> bool:
    """Return whether an error is the server's own, so that the same request may well succeed later."""
    status = status_of(code)
    return status >= 500 or (not status and _FAULT.search(message) is not None)
