"""Requests as lines: one request on each, and a digest of them all."""

from __future__ import annotations

import hashlib
from typing import BinaryIO, Final

_NEWLINES_TO_SPACES: Final = bytes.maketrans(b"\n\r", b"  ")


def one_line(body: bytes) -> bytes:
    """Return the JSON body without line breaks; newlines between its tokens become spaces.

    Inside JSON strings they cannot occur, so the body means what it meant.
    """
    return body.translate(_NEWLINES_TO_SPACES) if b"\n" in body or b"\r" in body else body


def digest_of(lines: BinaryIO, of: str = "") -> tuple[str, int]:
    """Return a digest of a file, of `of` and of the content, as 32 hex digits; and its size in bytes."""
    lines.seek(0)
    digest, size = hashlib.blake2b(of.encode(), digest_size=16), 0
    while piece := lines.read(1 << 20):
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size
