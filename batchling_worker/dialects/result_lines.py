"""Result files of OpenAI-like providers: bytes in, one answer a readable line out, bodies as they came."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from batchling_client.wire import answer_shape, error_words

from ..provider import ROW_LOST, Answer, error_body
from . import bounds
from .lenient_json import UNREADABLE, elements_of, fields_of, objects_in, text_in
from .row_errors import EMPTY_BODIES, LONGEST_WORDS, NOTHING, RowError, stated_in

LONGEST_LINE: Final = 256 * 1024 * 1024
"""A longer line is left out: a file without newlines must not fill the memory."""
LONGEST_GLUED: Final = 64 * 1024 * 1024
"""A longer line is not searched for several rows, which takes some times its memory."""
_ENCODINGS: Final = (
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"{\0", "utf-16-le"),
    (b"\0{", "utf-16-be"),
)
"""How a file begins -> its encoding, where that is not UTF-8."""
JSON_TYPE: Final = "application/json"
UNRUN: Final = {"batch_expired": (504, "batch_expired"), "batch_cancelled": (499, "batch_cancelled")}
"""Codes of rows that never ran -> the status and origin of their answer."""
UNRUN_OTHERWISE: Final = (500, "provider")
"""Status and origin of a row that the provider could not run for a reason of its own."""

_GLUES: Final = (b'}{"', b"}\r{", b"},{", b"}\0")
"""What may be between two rows in one line; the same in one row costs time and nothing else."""
_JSON_HEADERS: Final = {"content-type": JSON_TYPE}


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw = msgspec.Raw()
    request_id: str | None = None
    error: msgspec.Raw = msgspec.Raw()


class _Row(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: msgspec.Raw = msgspec.Raw()


_decode_row = msgspec.json.Decoder(_Row).decode


@dataclass(slots=True)
class FieldReader:
    """Makes answers of lines that are JSON objects with a custom_id, and counts those that are not."""

    read: Callable[[str, Mapping[str, bytes]], Answer]
    """The answer of a row from its custom_id and its fields, each in JSON."""
    n_broken: int = 0

    def answers(self, lines: list[bytes]) -> Iterator[Answer]:
        """Yield an answer for each readable line; empty lines are skipped."""
        for line in lines:
            answer = self._answer(line) if line.strip() else None
            if answer is not None:
                yield answer

    def _answer(self, line: bytes) -> Answer | None:
        try:
            fields = fields_of(line)
            custom_id = text_in(fields.get("custom_id", b""))
            if custom_id:
                return self.read(custom_id, fields)
        except Exception:  # noqa: BLE001, S110 - whatever one line brings out must not cost the others
            pass
        self.n_broken += 1
        return None


@dataclass(slots=True)
class LineSplitter:
    """Cuts pieces of any size at newlines, and between the rows of one line; holds no more than one unfinished line."""

    n_too_long: int = 0
    _parts: list[bytes] | None = None
    _size: int = 0
    _head: bytes | None = b""
    """The first bytes, until there are enough of them to tell their encoding."""
    _decoder: codecs.IncrementalDecoder | None = None

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the lines that this piece completes, one row each, in UTF-8 and without newlines."""
        if self._head is not None:
            piece = self._begun(self._head + piece)
        if self._decoder is not None:
            piece = self._decoder.decode(piece).encode(errors="replace")
        return self._cut(piece)

    def _begun(self, head: bytes) -> bytes:
        """Keep the first bytes until they tell their encoding; return those that are to be read now."""
        if not head or (len(head) == 1 and any(start.startswith(head) for start, _ in _ENCODINGS)):
            self._head = head
            return b""
        self._head = None
        encoding = next((name for start, name in _ENCODINGS if head.startswith(start)), "")
        if encoding:
            self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        return head

    def _cut(self, piece: bytes) -> list[bytes]:
        lines = piece.split(b"\n")
        if len(lines) == 1:
            self._keep(piece)
            return []
        lines[0] = self._finish(lines[0])
        self._keep(lines.pop())
        return [row for line in lines for row in _rows_in(line)]

    def rest(self) -> list[bytes]:
        """Return what is left if the last line has no newline, one row each."""
        head, self._head = self._head or b"", None
        if self._decoder is not None:
            head = self._decoder.decode(b"", final=True).encode(errors="replace")
        return _rows_in(self._finish(head))

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


def _rows_in(line: bytes) -> list[bytes]:
    """Return the rows of a line: the line itself, but where it surely is not one JSON object."""
    said = line.strip()
    is_one = said.startswith(b"{") and said.endswith(b"}") and not any(glue in said for glue in _GLUES)
    return [line] if is_one or not said or len(line) > LONGEST_GLUED else objects_in(line)


def told_by(code: str) -> tuple[int, str]:
    """Return the status and origin of a row that has an error and no response, from the error's code."""
    status = error_words.status_of(code)
    return UNRUN.get(code, (status, "provider") if status else UNRUN_OTHERWISE)


@dataclass(slots=True)
class RowReader:
    """Makes answers of lines and counts those that it cannot."""

    unrun: Callable[[str], tuple[int, str]] = told_by
    """Status and origin of a row without a response, by its error's code."""
    n_broken: int = 0
    """Lines that are no JSON object with a custom_id."""

    def answers(self, lines: list[bytes]) -> Iterator[Answer]:
        """Yield an answer for each readable line; empty lines are skipped."""
        for line in lines:
            answer: Answer | None
            try:
                answer = self._read(line)
            except UNREADABLE:
                answer = self._salvaged(line)
            if answer is not None:
                yield answer

    def _read(self, line: bytes) -> Answer:
        row = _decode_row(line)
        response, error = row.response, bytes(row.error)
        if response is None:
            return self._bare(row.custom_id, fields_of(line))
        status, body = response.status_code, bytes(response.body)
        return self._answered(
            row.custom_id, status, body, response.request_id, error or bytes(response.error)
        )

    def _bare(self, custom_id: str, row: Mapping[str, bytes]) -> Answer:
        """Return the answer of a row without a response: its error, or an answer at the top level of the row."""
        if row.get("body", b"null") not in EMPTY_BODIES and "status_code" in row:
            status, request_id = _number_in(row["status_code"]), text_in(row.get("request_id", b""))
            return self._answered(custom_id, status, row["body"], request_id, row.get("error", b""))
        stated, response = stated_in(row), row.get("response", b"").strip()
        if not stated and response not in NOTHING:
            # It was run, whatever this is: `answer_check` makes a failed row of it.
            return answer_of(custom_id, 200, response)
        return self._unrun(custom_id, stated)

    def _answered(
        self, custom_id: str, status: object, body: bytes, request_id: object, error: bytes
    ) -> Answer:
        """Return the answer of a row with a response; an error beside it counts only without an answer."""
        body = answer_shape.unpacked(body)
        if error in EMPTY_BODIES or error == b"false":
            return answer_of(custom_id, status, body, request_id)
        number = error_words.number_of(status)
        if body in EMPTY_BODIES or (not number and not answer_shape.is_plausible(body)):
            return self._unrun(custom_id, error, number)
        return answer_of(custom_id, status, body, request_id)

    def _unrun(self, custom_id: str, raw: bytes, status: int = 0) -> Answer:
        """Return the answer of a row with an error and without an answer; `status` is its response's, 0 for none."""
        error = RowError.read(raw)
        if error is None:
            return lost(custom_id)
        # What an adapter knows of its provider's codes goes before what their words suggest.
        is_known = error.code in UNRUN or (error.guessed and error.code and self.unrun is not told_by)
        if not status and is_known:
            return unrun(custom_id, error.code, error.message, self.unrun)
        status = status or error.status
        if not status:
            return unrun(custom_id, error.code, error.message, self.unrun)
        return Answer(custom_id=custom_id, status=status, body=error.body, headers=_JSON_HEADERS)

    def _salvaged(self, line: bytes) -> Answer | None:
        try:
            return self._odd(line)
        except Exception:  # noqa: BLE001 - a defect of ours that one line brings out must not cost the others
            self.n_broken += 1
            return None

    def _odd(self, line: bytes) -> Answer | None:
        """Return the answer of a row whose fields have undocumented types or hold JSON that only Python parses."""
        if not line.strip():
            return None
        try:
            row = fields_of(line if line.isascii() else _as_text(line))
        except (ValueError, TypeError, RecursionError):
            row = {}
        custom_id = text_in(row.get("custom_id", b""))
        if not custom_id:
            self.n_broken += 1
            return None
        raw = _alone(row.get("response", b""))
        response = _object_in(raw)
        if not response:
            return self._bare(custom_id, {**row, "response": raw})
        status, body = _number_in(response.get("status_code", b"")), response.get("body", b"")
        if "status_code" not in response and "body" not in response and answer_shape.is_plausible(raw):
            # The answer itself stands where its status and body should be.
            body = raw
        error = row.get("error", b"") or response.get("error", b"")
        return self._answered(custom_id, status, body, text_in(response.get("request_id", b"")), error)


def _alone(raw: bytes) -> bytes:
    """Return the one response in a list or in a text; anything else as it is."""
    raw = answer_shape.unpacked(raw.strip())
    if not raw.startswith(b"["):
        return raw
    try:
        said = [one.strip() for one in elements_of(raw) if one.strip() not in NOTHING]
    except (ValueError, RecursionError):
        return raw
    if not said:
        return b"null"
    is_one = len(said) == 1 and (
        not _object_in(said[0]).keys().isdisjoint(("status_code", "body"))
        or answer_shape.is_plausible(said[0])
    )
    return said[0] if is_one else raw


def _object_in(raw: bytes) -> Mapping[str, bytes]:
    """Return the fields of a JSON object; empty for anything else."""
    try:
        return fields_of(raw) if raw.lstrip().startswith(b"{") else {}
    except (ValueError, TypeError, RecursionError):
        return {}


def _number_in(raw: bytes) -> object:
    """Return a status as JSON has it: a number or a string."""
    return text_in(raw) or raw.decode(errors="replace")


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
    body = _as_text(body)
    if 300 <= status < 400:
        return _redirected(custom_id, status, body)
    headers = _JSON_HEADERS
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
        headers=_JSON_HEADERS,
        origin=answer_shape.UNFIT,
    )


def _as_text(body: bytes) -> bytes:
    """Return the body with U+FFFD for each byte that is not UTF-8: the rest of it was paid for."""
    return body if body.isascii() else body.decode(errors="replace").encode()


def unrun(
    custom_id: str, code: str, message: str = "", told: Callable[[str], tuple[int, str]] = told_by
) -> Answer:
    """Return the answer of a row that never ran; `code` is one of `UNRUN`, or the provider's own."""
    status, origin = told(code)
    message = message or f"The provider did not run this request ({code})."
    body = error_body(code or None, message, chosen_status=status if origin == "provider" else None)
    return Answer(custom_id=custom_id, status=status, body=body, headers=_JSON_HEADERS, origin=origin)


def lost(custom_id: str) -> Answer:
    """Return the answer of a row that the provider names without a result."""
    body = error_body(ROW_LOST, "The provider's results name this request and hold no answer to it.")
    return Answer(custom_id=custom_id, status=503, body=body, headers=_JSON_HEADERS, origin=ROW_LOST)
