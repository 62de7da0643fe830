"""The rows of the result files of OpenAI-like providers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from batchling_client.wire import answer_shape, error_words

from ...provider import Answer
from ..lenient_json import elements_of, object_in, text_in
from ..result_lines import Fields, LineReader
from ..row_answers import JSON_HEADERS, UNRUN, answer_of, lost, told_by, unrun
from ..row_errors import EMPTY_BODIES, NOTHING, RowError, stated_in


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


def openai_rows(unrun: Callable[[str], tuple[int, str]] = told_by) -> LineReader:
    """Return a reader of result files; `unrun` makes status and origin of the error code of a row that was not run."""
    rows = _Rows(unrun)
    return LineReader(read=rows.read, strict=rows.strict)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What rows with a `response` and an `error` mean."""

    unrun: Callable[[str], tuple[int, str]]

    def strict(self, line: bytes) -> Answer | None:
        """Return the answer of a row that was run, from a line as documented."""
        row = _decode_row(line)
        response = row.response
        if response is None or not row.custom_id:
            return None
        error = bytes(row.error) or bytes(response.error)
        return self._answered(
            row.custom_id, response.status_code, bytes(response.body), response.request_id, error
        )

    def read(self, custom_id: str, row: Fields) -> Answer:
        """Return the answer of a row whose fields may be absent or of undocumented types."""
        raw = _alone(row.get("response", b""))
        response = object_in(raw)
        if not response:
            return self._bare(custom_id, {**row, "response": raw})
        status, body = _number_in(response.get("status_code", b"")), response.get("body", b"")
        if "status_code" not in response and "body" not in response and answer_shape.is_plausible(raw):
            # The answer itself stands where its status and body should be.
            body = raw
        error = row.get("error", b"") or response.get("error", b"")
        return self._answered(custom_id, status, body, text_in(response.get("request_id", b"")), error)

    def _bare(self, custom_id: str, row: Fields) -> Answer:
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
        status = status or (0 if is_known else error.status)
        if not status:
            return unrun(custom_id, error.code, error.message, self.unrun)
        return Answer(custom_id=custom_id, status=status, body=error.body, headers=JSON_HEADERS)


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
        not object_in(said[0]).keys().isdisjoint(("status_code", "body"))
        or answer_shape.is_plausible(said[0])
    )
    return said[0] if is_one else raw


def _number_in(raw: bytes) -> object:
    """Return a status as JSON has it: a number or a string."""
    return text_in(raw) or raw.decode(errors="replace")
