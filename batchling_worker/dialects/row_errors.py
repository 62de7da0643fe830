"""What is wrong with a row that has no answer, wherever the row says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from batchling_client.wire import error_words

from ..provider import error_body
from . import bounds, lenient_json

LONGEST_WORDS: Final = 1000
LONGEST_STATED: Final = 64 * 1024
"""A field of a row that is longer is none of an error's."""
EMPTY_BODIES: Final = frozenset({b"", b"{}", b"null", b'""'})
NOTHING: Final = EMPTY_BODIES | {b"[]", b"false", b"0"}
_ERROR_FIELDS: Final = ("error", "errors", "fault")
_BESIDE: Final = (*error_words.VOICES, *error_words.STATUS_FIELDS, "type", "param")
"""Fields of an error that stand in the row itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """The `error` of a row: `body` is an HTTP body with its text, `status` is 0 if the row states none."""

    code: str
    message: str
    status: int
    body: bytes
    guessed: bool = False
    """Whether the status follows from the words, and no number names it."""

    @classmethod
    def read(cls, raw: bytes) -> RowError | None:
        """Read an error that is an object, a string or anything else; None if it says nothing."""
        try:
            said = lenient_json.decoded(raw, object) if raw else None
        except (ValueError, RecursionError):
            said = raw[:LONGEST_WORDS].decode(errors="replace")
        said = _first_of(said)
        if isinstance(said, dict) and isinstance(said.get("error"), dict | str):
            said = said["error"]
        words = error_words.words_in(said, LONGEST_WORDS)
        if not isinstance(said, dict):
            message = words or (raw[:LONGEST_WORDS].decode(errors="replace") if said else "")
            status = error_words.UNPROCESSABLE if error_words.is_list_of_flaws(said) else 0
            return (
                cls(code="", message=message, status=status, body=error_body(None, message))
                if message
                else None
            )
        code = said.get("code")
        if code is None and not words and not said.get("type"):
            return None
        named = error_words.named_in(said)
        return cls(
            code=code if isinstance(code, str) else str(bounds.count(code) or ""),
            message=words or msgspec.json.encode(said).decode()[:LONGEST_WORDS],
            status=named or error_words.status_in(said),
            body=msgspec.json.encode({"error": error_words.as_error(said)}),
            guessed=not named,
        )


def stated_in(row: Mapping[str, bytes]) -> bytes:
    """Return the error that a row without an answer states, in JSON; b"" for none.

    Most servers put it in `error`; some in `errors`, or put its message and status beside the row's own fields. If
    there are several errors, the first is returned.
    """
    for name in _ERROR_FIELDS:
        if row.get(name, b"").strip() not in NOTHING:
            return _reduced(row[name])
    beside = {name: row[name] for name in _BESIDE if 0 < len(row.get(name, b"")) <= LONGEST_STATED}
    values: dict[str, object] = {}
    for name, raw in beside.items():
        try:
            values[name] = lenient_json.decoded(raw, object)
        except (ValueError, RecursionError):
            continue
    if not (error_words.words_in(values) or error_words.named_in(values)):
        return b""
    return msgspec.json.encode(values)


def _reduced(raw: bytes) -> bytes:
    """Return the error as it is spelt; the first if it is a list."""
    if not raw.lstrip().startswith((b"[", b'{"data"', b'{"object"')):
        return raw
    try:
        said = lenient_json.decoded(raw, object)
    except (ValueError, RecursionError):
        return raw
    first = _first_of(said)
    return raw if first is said else msgspec.json.encode(first)


def _first_of(said: object) -> object:
    """Return the first of several errors, as lists of OpenAI and JSON:API hold them; other values as they are."""
    if isinstance(said, dict) and isinstance(said.get("data"), list) and not error_words.words_in(said):
        said = said["data"]
    if (
        isinstance(said, list)
        and said
        and isinstance(said[0], dict)
        and not error_words.is_list_of_flaws(said)
    ):
        return said[0]
    return said
