"""Requests as lines: what keeps a body in one of them."""

from __future__ import annotations

from typing import Final

_NEWLINES_TO_SPACES: Final = bytes.maketrans(b"\n\r", b"  ")


def one_line(body: bytes) -> bytes:
    """Return the JSON body without line breaks; newlines between its tokens become spaces.

    Inside JSON strings they cannot occur, so the body means what it meant.
    """
    return body.translate(_NEWLINES_TO_SPACES) if b"\n" in body or b"\r" in body else body
