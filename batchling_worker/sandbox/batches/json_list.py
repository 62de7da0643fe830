"""Splits a JSON object into the objects of its list while its bytes arrive; holds only the current one."""

from __future__ import annotations

import re
from typing import Final

_PLACE: Final = b"0"
_MARKS: Final = re.compile(rb'\\.|["{}\[\]]', re.DOTALL)
_LIST_DEPTH: Final = 2
"""The depth of objects in a list that is a field of the outermost object."""


class JsonList:
    """Takes pieces of any size and returns the objects in the list; `frame` is the JSON around them."""

    def __init__(self) -> None:
        self.n_objects = 0
        self._frame: list[bytes] = []
        self._object: list[bytes] = []
        self._rest = b""
        self._depth = 0
        self._in_string = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the objects that this piece completes."""
        text, found, start = self._rest + piece, [], 0
        self._rest = b""
        if text.endswith(b"\\") and (len(text) - len(text.rstrip(b"\\"))) % 2:
            # The character that the last backslash escapes has not arrived yet.
            text, self._rest = text[:-1], b"\\"
        for mark in _MARKS.finditer(text):
            match text[mark.start() : mark.start() + 1]:
                case b'"':
                    self._in_string = not self._in_string
                case b"{" | b"[" as opening if not self._in_string:
                    if self._depth == _LIST_DEPTH and opening == b"{":
                        self._frame += (text[start : mark.start()], _PLACE)
                        start = mark.start()
                    self._depth += 1
                case b"}" | b"]" as closing if not self._in_string:
                    self._depth -= 1
                    if self._depth == _LIST_DEPTH and closing == b"}":
                        found.append(b"".join((*self._object, text[start : mark.end()])))
                        self._object, start = [], mark.end()
                case _:
                    pass
        (self._object if self._depth > _LIST_DEPTH else self._frame).append(text[start:])
        self.n_objects += len(found)
        return found

    @property
    def frame(self) -> bytes:
        """Return the JSON around the objects, with a 0 in place of each; valid if the whole is valid."""
        return b"".join((*self._frame, *self._object, self._rest))
