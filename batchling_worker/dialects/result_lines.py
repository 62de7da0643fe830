"""Lines of result files: bytes in, one answer a readable line out, bodies as they came."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from batchling_client.wire.answer_shape import LONGEST_ANSWER_BYTES

from ..provider import Answer
from .lenient_json import UNREADABLE, as_text, fields_of, objects_in, text_in

Fields: TypeAlias = Mapping[str, bytes]
"""The fields of a row, each as its JSON is spelt."""

TELLING_BYTES: Final = 64 * 1024
"""So much is kept of the beginning and of the end of a line that is too long, to tell whose it is."""
LONGEST_GLUED: Final = 64 * 1024 * 1024
"""A longer line is not searched for several rows, which takes some times its memory."""
_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NOT_UTF8: Final = (b"", b"{", b"\0", codecs.BOM_UTF16_LE[:1], codecs.BOM_UTF16_BE[:1])
"""How a file may begin that is not UTF-8, as far as its first byte tells."""
_TELLING: Final = 4
"""So many bytes tell the encoding: a mark, and the first letter after it."""
_ID: Final = re.compile(
    rb'"(?:custom_id|key|recordId|batch_request_id)"\s*:\s*"([a-z2-7]{26})(?:\.\d+\.\d+)?"'
)
"""The id of a request in a row of any provider."""
_GLUES: Final = (b'}{"', b"}\r{", b"},{", b"}\0")
"""What may be between two rows in one line; the same in one row costs time and nothing else."""


def custom_id_of(fields: Fields) -> str:
    """Return the custom_id of a row, or ''."""
    return text_in(fields.get("custom_id", b""))


@dataclass(slots=True, kw_only=True)
class LineReader:
    """Makes answers of lines that are JSON objects, and counts those that are not rows."""

    read: Callable[[str, Fields], Answer | None]
    """The answer of a row from its custom_id and its fields; None if it is not a row. May raise anything."""
    id_of: Callable[[Fields], str] = custom_id_of
    """The custom_id of a row, or ''."""
    strict: Callable[[bytes], Answer | None] = lambda line: None
    """A faster way for lines that are as documented; None or one of `UNREADABLE` for others."""
    cursors: bool = False
    """Whether the number of the line that was read last is the cursor of an answer."""
    n_lines: int = 0
    """Lines so far, those before the first that is read included."""
    n_broken: int = 0
    """Lines that are not rows."""

    def answers(self, lines: list[bytes]) -> Iterator[Answer]:
        """Yield an answer for each readable line; empty lines are skipped."""
        for line in lines:
            self.n_lines += 1
            answer = self._answer(line)
            if answer is not None:
                yield replace(answer, cursor=str(self.n_lines)) if self.cursors else answer
            elif line.strip():
                self.n_broken += 1

    def _answer(self, line: bytes) -> Answer | None:
        try:
            try:
                answer = self.strict(line)
                if answer is not None:
                    return answer
            except UNREADABLE:
                pass
            fields = fields_of(line if line.isascii() else as_text(line))
            custom_id = self.id_of(fields)
            return self.read(custom_id, fields) if custom_id else None
        except Exception:  # noqa: BLE001 - whatever one line brings out must not cost the others
            return None


@dataclass(slots=True)
class LineSplitter:
    """Cuts pieces of any size at newlines, and between the rows of one line; holds no more than one unfinished line."""

    longest: int = LONGEST_ANSWER_BYTES
    """A longer line is left out: a file without newlines must not fill the memory."""
    n_too_long: int = 0
    too_long: list[str] = field(default_factory=list)
    """The custom_ids of lines that were left out since somebody last looked here."""
    _ends: tuple[bytes, bytes] = (b"", b"")
    """The beginning and the end of the line that is being left out."""
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
        if len(head) < _TELLING and head[:1] in _NOT_UTF8:
            self._head = head
            return b""
        self._head = None
        encoding = _encoding_of(head)
        if encoding:
            self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        return head

    def _cut(self, piece: bytes) -> list[bytes]:
        lines = piece.split(b"\n")
        if len(lines) == 1:
            self._keep(piece)
            return []
        lines[0] = self._finish(lines[0])
        begun = lines.pop()
        if len(piece) > self.longest:
            lines[1:] = map(self._finished, lines[1:])
        self._keep(begun)
        return [row for line in lines for row in _rows_in(line)]

    def _finished(self, line: bytes) -> bytes:
        """Return a line that came in one piece, b"" if it is too long."""
        return line if len(line) <= self.longest else self._too_long(line)

    def rest(self) -> list[bytes]:
        """Return what is left if the last line has no newline, one row each."""
        head, self._head = self._head or b"", None
        if self._decoder is not None:
            head = self._decoder.decode(b"", final=True).encode(errors="replace")
        return _rows_in(self._finish(head))

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self.longest:
            self._leave_out(part)
        elif self._parts is None:
            self._parts = [part]
        else:
            self._parts.append(part)

    def _too_long(self, part: bytes) -> bytes:
        """Leave a line out whose last part this is; return what is read in its place."""
        self._leave_out(part)
        self.n_too_long += 1
        found = _ID.search(self._ends[0]) or _ID.search(self._ends[1])
        self.too_long += [found[1].decode()] if found else []
        self._ends = b"", b""
        return b""

    def _leave_out(self, part: bytes) -> None:
        """Keep only what tells whose line it is."""
        parts, self._parts = self._parts, None
        head, tail = self._ends
        for one in (*(parts or ()), part):
            head += one[: TELLING_BYTES - len(head)]
            tail = (tail + one[-TELLING_BYTES:])[-TELLING_BYTES:]
        self._ends = head, tail

    def _finish(self, part: bytes) -> bytes:
        if self._size + len(part) > self.longest:
            self._size = 0
            return self._too_long(part)
        parts, self._parts, self._size = self._parts, None, 0
        return b"".join((*parts, part)) if parts else part


def _encoding_of(head: bytes) -> str:
    """Return the encoding that the first bytes of a file tell, '' for UTF-8.

    A mark alone does not: the first line may be damaged, and must not cost the others.
    """
    if head[:1] not in _NOT_UTF8:
        return ""
    is_marked = head.startswith(_MARKS)
    first, second = head[2:4] if is_marked else head[:2]
    if (first == 0) == (second == 0) or not (is_marked or b"{" in head[:2]):
        return ""
    if is_marked:
        return "utf-16"
    return "utf-16-be" if first == 0 else "utf-16-le"


def _rows_in(line: bytes) -> list[bytes]:
    """Return the rows of a line: the line itself, but where it surely is not one JSON object."""
    said = line.strip()
    is_one = said.startswith(b"{") and said.endswith(b"}") and not any(glue in said for glue in _GLUES)
    return [line] if is_one or not said or len(line) > LONGEST_GLUED else objects_in(line)
