"""The one door for foreign words: whatever a caller, a provider or Redis says is shown through this module.

Characters that cannot be printed (controls, formats, bidirectional marks, surrogates, private and unassigned ones, line
and paragraph separators: `str.isprintable`) are escaped as JSON escapes them. So no word can steer a terminal, turn the
direction of writing, or forge a line.
"""

from __future__ import annotations

import json
import re
from typing import Final

LONGEST: Final = 1000
"""More characters of a foreign word than any list or sentence shows."""
LONGEST_TEXT: Final = 16_000
"""More characters than any message of several lines has, such as a traceback."""
_OF_STYLES: Final = re.compile(r"(\x1b\[[0-9;]{1,16}m)")
"""Colours, which commands put around words that were escaped before."""


def escaped(text: str) -> str:
    """Return the text with every character escaped that cannot be printed; a text in JSON keeps its meaning."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def shown(words: str, most: int = LONGEST) -> str:
    """Return words for people: on one line, escaped, and with at most so many characters."""
    if len(words) <= most and words.isprintable() and "  " not in words:
        return words.strip(" ")
    was_cut = len(words) > 2 * most
    text = escaped(" ".join(words[: 2 * most].split()))
    return f"{text[: most - 1]}…" if was_cut or len(text) > most else text


def lines(text: str, most: int = LONGEST_TEXT) -> str:
    """Return a text of one or more lines, such as an exception's message: escaped between its `\\n`, and cut."""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return cut if cut.isprintable() else "\n".join(escaped(line) for line in cut.split("\n"))


def styled_line(line: str) -> str:
    """Return a line of a command's output: escaped, but for line breaks of a fold and for colours."""
    if line.isprintable():
        return line
    parts = _OF_STYLES.split(line)
    return "".join(part if n % 2 else lines(part, len(part)) for n, part in enumerate(parts))


def as_json(value: object, *, indent: int | None = None) -> str:
    """Return the value as JSON for programs: the exact data, spelt so that it cannot steer a terminal that shows it."""
    return "\n".join(map(escaped, json.dumps(value, indent=indent, ensure_ascii=False).split("\n")))


def json_line(line: bytes) -> bytes:
    """Return a line of JSON in UTF-8 with the same meaning, spelt so that it cannot steer a terminal that shows it."""
    text = line.decode(errors="replace")
    return line if text.isprintable() else escaped(text).encode()
