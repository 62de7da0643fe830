"""Converts the requests of a create call to the sandbox's lines, and its result files to the provider's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from .inline_dialect import InlineDialect, InlineRow, ResultRow
from .json_list import JsonList

_CHUNK: Final = 1 << 18
_NEWLINES_TO_SPACES: Final = bytes.maketrans(b"\n\r", b"  ")
_encode = msgspec.json.encode


async def receive(
    dialect: InlineDialect,
    endpoint: str,
    pieces: AsyncIterator[bytes],
    path: Path,
    *,
    most_rows: int,
    most_bytes: int,
) -> int:
    """Write a create's requests for `endpoint` to `path`, a line each; return their number, or raise Refusal."""
    listed, seen, n_bytes, first = JsonList(), set[str](), 0, None
    with path.open("wb", buffering=_CHUNK) as lines:
        async for piece in pieces:
            n_bytes += len(piece)
            if n_bytes > most_bytes:
                raise dialect.too_large(most_bytes)
            place = listed.n_objects
            for raw in listed.feed(piece):
                row = dialect.row(place, raw, first)
                if row.custom_id in seen:
                    raise dialect.doubled(place, row.custom_id)
                seen.add(row.custom_id)
                lines.write(_line(endpoint, row))
                first, place = first or row, place + 1
            if listed.n_objects > most_rows:
                raise dialect.too_many(most_rows)
    _check_frame(dialect, listed)
    return listed.n_objects


def _line(endpoint: str, row: InlineRow) -> bytes:
    name, url = _encode(row.custom_id), _encode(endpoint)
    body = row.body.translate(_NEWLINES_TO_SPACES)
    return b'{"custom_id":%b,"method":"POST","url":%b,"body":%b}\n' % (name, url, body)


def _check_frame(dialect: InlineDialect, listed: JsonList) -> None:
    try:
        frame = msgspec.json.decode(listed.frame, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise dialect.not_json() from None
    rows = frame.get("requests")
    dialect.check_create(frame, rows if isinstance(rows, list) else [])
    if rows != [0] * listed.n_objects:
        raise dialect.not_json()


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw = msgspec.Raw(b"null")


class _RowError(msgspec.Struct):
    code: str


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _RowError | None = None


_decode = msgspec.json.Decoder(_Line).decode


def convert(dialect: InlineDialect, sources: Iterable[Path], path: Path) -> int:
    """Write the sandbox's result rows in the provider's shape; return the bytes written. Broken lines stay broken."""
    with path.open("wb", buffering=_CHUNK) as lines:
        for source in sources:
            with source.open("rb", buffering=_CHUNK) as rows:
                for line in rows:
                    lines.write(_converted(dialect, line.rstrip(b"\n")) + b"\n")
        return lines.tell()


def _converted(dialect: InlineDialect, line: bytes) -> bytes:
    try:
        row = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return line
    if row.response is not None:
        response = row.response
        return dialect.result_line(
            ResultRow(custom_id=row.custom_id, status=response.status_code, body=response.body)
        )
    return dialect.result_line(
        ResultRow(custom_id=row.custom_id, undone=row.error.code if row.error else None)
    )
