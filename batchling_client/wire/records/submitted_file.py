"""The requests of a submitted file in its order, so that the answers can be written in that order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..keys import RequestId
from .row_and_result import UNREADABLE, CorruptRecord

CHUNK_ROWS: Final = 256
"""Requests in each chunk but the last: part of the format."""


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """One request of a file: its own custom_id, or the number of its line, and our id."""

    custom_id: str
    request_id: RequestId


_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(list[Asked])


def pack(chunk: Sequence[Asked]) -> bytes:
    """Encode a chunk for storage."""
    return _encode(chunk)


def unpack(raw: bytes) -> list[Asked]:
    """Read a chunk; raise `CorruptRecord`."""
    try:
        return _decoder.decode(raw)
    except UNREADABLE as error:
        raise CorruptRecord("a stored list of a run's requests cannot be read") from error
