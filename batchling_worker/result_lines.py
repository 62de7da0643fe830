"""Result files of OpenAI-like providers: bytes in, one answer a readable line out, bodies as they came."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from .provider import ROW_LOST, Answer, error_body

T = TypeVar("T")

LONGEST_LINE: Final = 256 * 1024 * 1024
"""A longer line is left out: a file without newlines must not fill the memory."""
JSON_TYPE: Final = "application/json"
UNRUN: Final = {"batch_expired": (504, "batch_expired"), "batch_cancelled": (499, "batch_cancelled")}
"""Codes of rows that never ran -> the status and origin of their answer."""
UNRUN_OTHERWISE: Final = (500, "provider")
"""A row that the provider could not run for a reason of its own is as good as a 500."""
EMPTY_BODIES: Final = frozenset({b"", b"{}", b"null", b'""'})

_JSON_HEADERS: Final = {"content-type": JSON_TYPE}


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw = msgspec.Raw()
    request_id: str | None = None


class _RowError(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Row(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _RowError | None = None


class _OddResponse(msgspec.Struct):
    status_code: object = None
    body: msgspec.Raw = msgspec.Raw()
    request_id: object = None


class _OddRow(msgspec.Struct):
    """A row in which only the custom_id can be relied on."""

    custom_id: str
    response: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_decode_row = msgspec.json.Decoder(_Row).decode
_decode_odd_row = msgspec.json.Decoder(_OddRow).decode


@dataclass(slots=True)
class LineSplitter:
    """Cuts pieces of any size at newlines; holds no more than one unfinished line."""

    n_too_long: int = 0
    _parts: list[bytes] | None = None
    _size: int = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that this piece completes, without their newlines."""
        lines = piece.split(b"\n")
        if len(lines) == 1:
            self._keep(piece)
            return []
        lines[0] = self._finish(lines[0])
        self._keep(lines.pop())
        return lines

    def rest(self) -> bytes:
        """The last line, where no newline stands at its end."""
        return self._finish(b"")

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > LONGEST_LINE:
            self._parts = None
        elif self._parts is None:
            self._parts = [part]
        else:
            self._parts.append(part)

    def _finish(self, part: bytes) -> bytes:
        too_long = self._size + len(part) > LONGEST_LINE
        parts, self._parts, self._size = self._parts, None, 0
        if too_long:
            self.n_too_long += 1
            return b""
        return b"".join((*parts, part)) if parts else part


@dataclass(slots=True)
class RowReader:
    """Makes answers of lines and counts those that it cannot."""

    n_broken: int = 0
    """Lines that are no JSON object with a custom_id."""

    def answers(self, lines: list[bytes]) -> Iterator[Answer]:
        """An answer for each readable line; empty lines are skipped."""
        for line in lines:
            try:
                row = _decode_row(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                odd = self._odd(line)
                if odd is not None:
                    yield odd
                continue
            response = row.response
            if response is None:
                yield _unrun(row.custom_id, row.error)
            else:
                yield _answer(row.custom_id, response.status_code, bytes(response.body), response.request_id)

    def _odd(self, line: bytes) -> Answer | None:
        """The answer of a row whose fields have types that nobody documented."""
        if not line.strip():
            return None
        try:
            row = _decode_odd_row(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.n_broken += 1
            return None
        response = _converted(row.response, _OddResponse)
        if response is not None:
            return _answer(row.custom_id, response.status_code, bytes(response.body), response.request_id)
        error = _converted(row.error, _RowError)
        if error is None and bytes(row.error) not in EMPTY_BODIES:
            error = _RowError(message=bytes(row.error)[:1000].decode(errors="replace").strip('"'))
        return _unrun(row.custom_id, error)


def _converted(raw: msgspec.Raw, shape: type[T]) -> T | None:
    try:
        return msgspec.json.decode(raw, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _answer(custom_id: str, status: object, body: bytes, request_id: object) -> Answer:
    if not isinstance(status, int) or not 100 <= status <= 599:
        return _lost(custom_id)
    if status < 400 and len(body) <= 4 and body in EMPTY_BODIES:
        return _lost(custom_id)
    headers = _JSON_HEADERS
    # It becomes the value of an HTTP header: a provider must not be able to end one there.
    if isinstance(request_id, str) and request_id and request_id.isascii() and request_id.isprintable():
        headers = {"content-type": JSON_TYPE, "x-request-id": request_id}
    return Answer(custom_id=custom_id, status=status, body=body, headers=headers)


def _unrun(custom_id: str, error: _RowError | None) -> Answer:
    if error is None or (error.code is None and error.message is None):
        return _lost(custom_id)
    status, origin = UNRUN.get(error.code or "", UNRUN_OTHERWISE)
    message = error.message or f"The provider did not run this request ({error.code})."
    body = error_body(error.code, message)
    return Answer(custom_id=custom_id, status=status, body=body, headers=_JSON_HEADERS, origin=origin)


def _lost(custom_id: str) -> Answer:
    body = error_body(ROW_LOST, "The provider's results name this request and hold no answer to it.")
    return Answer(custom_id=custom_id, status=503, body=body, headers=_JSON_HEADERS, origin=ROW_LOST)
