"""Result lines of Google's batches: bytes in, one answer a readable line out, bodies as they came."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from batchling_client.wire import answer_shape, error_words

from ...provider import Answer
from .. import lenient_json
from ..result_lines import Fields
from ..row_answers import JSON_HEADERS, answer_or_lost
from ..row_errors import EMPTY_BODIES, RowError, stated_in
from . import rpc_status

logger = logging.getLogger("batchling.worker")

CANCELLED: Final = 499


def answered(custom_id: str, body: bytes) -> Answer:
    """Return the answer of a row without an error; a row that has no answer either was lost."""
    return answer_or_lost(custom_id, answer_shape.unpacked(body))


def told(custom_id: str, body: bytes, error: object) -> Answer:
    """Return the answer of a row with a body, an error or both; beside a body, an error is a warning or status 0."""
    if error and not answer_shape.is_plausible(answer_shape.unpacked(body)):
        return failed(custom_id, error)
    return answered(custom_id, body)


def failed(custom_id: str, error: object) -> Answer:
    """Return the answer of a row that failed, in the shape of a realtime call's answer; a cancelled row never ran."""
    said = rpc_status.failure(error)
    origin = "batch_cancelled" if said.status == CANCELLED else "provider"
    return Answer(
        custom_id=custom_id, status=said.status, body=said.body, headers=JSON_HEADERS, origin=origin
    )


def stated(row: Fields) -> object:
    """Return the error of a row without a response, wherever the row states it; None if it has a response or no error.

    A number beside its words is an HTTP status or a code of google.rpc; without one the row is taken for refused.
    """
    if row.get("response", b"null").strip() not in EMPTY_BODIES:
        return None
    error = RowError.read(stated_in(row))
    if error is None:
        return None
    code = int(error.code) if error.code.isdigit() else error.status or error_words.UNPROCESSABLE
    return {"code": code, "message": error.message}


def part_name(custom_id: str, at: int, n: int) -> str:
    """Return the key of a part of a request that goes out as n lines."""
    return f"{custom_id}.{at}.{n}"


@dataclass(slots=True)
class Parts:
    """Puts requests together again that went out as several lines; what waits for the rest waits on disk."""

    member: str
    """The field of a part's answer that the whole lists."""
    whole: str
    """The name of that list."""
    _file: BinaryIO | None = None
    _places: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def taken(self, answer: Answer) -> Answer | None:
        """Return the answer of the whole call after its last or first failed part; None for the other parts."""
        custom_id, _, numbers = answer.custom_id.partition(".")
        at, _, n = numbers.partition(".")
        if not (at.isdigit() and n.isdigit()):
            return answer
        if custom_id in self._told:
            return None
        member = _member(answer, self.member)
        if member is None:
            return self._tell(custom_id, answer.status, answer.body, answer.origin)
        if int(n) > 1:
            places = self._places.setdefault(custom_id, {})
            places[int(at)] = self._put(member)
            if len(places) < int(n):
                return None
            member = b",".join(self._get(*places[one]) for one in sorted(places))
        return self._tell(custom_id, 200, b'{"%b":[%b]}' % (self.whole.encode(), member), answer.origin)

    def close(self) -> None:
        """Free the disk space."""
        if self._file is not None:
            self._file.close()

    def _tell(self, custom_id: str, status: int, body: bytes, origin: str) -> Answer:
        self._places.pop(custom_id, None)
        self._told.add(custom_id)
        return Answer(custom_id=custom_id, status=status, body=body, headers=JSON_HEADERS, origin=origin)

    def _put(self, member: bytes) -> tuple[int, int]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="batchling-parts-")  # noqa: SIM115 - closed by `close`
        start = self._file.seek(0, 2)
        self._file.write(member)
        return start, len(member)

    def _get(self, start: int, size: int) -> bytes:
        if self._file is None:
            return b""
        self._file.seek(start)
        return self._file.read(size)


def _member(answer: Answer, name: str) -> bytes | None:
    if answer.status != 200:
        return None
    try:
        return lenient_json.fields_of(answer.body).get(name)
    except (ValueError, TypeError, RecursionError):
        return None
