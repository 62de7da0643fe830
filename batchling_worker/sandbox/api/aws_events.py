"""AWS' event stream: messages of typed headers and a payload, framed by lengths and checksums."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
_TEXT: Final = 7
"""The type of a header whose value is text."""
_OVERHEAD: Final = 16
"""Both lengths and both checksums of a message."""


def event(kind: str, body: Mapping[str, Any]) -> bytes:
    """Return one event whose payload is JSON."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, msgspec.json.encode(body))


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one message as it goes over the wire."""
    encoded = b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())
    prelude = struct.pack("!II", _OVERHEAD + len(encoded) + len(payload), len(encoded))
    checked = prelude + struct.pack("!I", zlib.crc32(prelude)) + encoded + payload
    return checked + struct.pack("!I", zlib.crc32(checked))


def _header(name: bytes, value: bytes) -> bytes:
    return struct.pack("!B", len(name)) + name + struct.pack("!BH", _TEXT, len(value)) + value
