"""Leaves keys out of what a provider says, in every spelling in which an answer may echo them.

The spellings: as it is, in JSON, in a URL, in HTML, and in base64 (both alphabets), also in the middle of a longer text
that was encoded as a whole. A provider that wants to hide a key that it was sent can always do so; this is for echoes.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from typing import Final

MARK: Final = b"[redacted]"
SHORTEST_IN_ERRORS: Final = 6
"""A shorter credential is left in errors: it may be any word."""
SHORTEST_IN_ANSWERS: Final = 12
"""The same for other answers, which batchling and callers read on: a key such as `ollama` is a word like others."""
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9_.~-]+")
"""Characters that text, JSON, URLs and HTML spell alike."""
_ALPHANUMERIC: Final = re.compile(r"[A-Za-z0-9]+")
"""Those that both alphabets of base64 have."""


class Redaction:
    """Leaves credentials out of texts; a text that holds none costs a search for a few fragments."""

    def __init__(self, credentials: Iterable[str], *, shortest: int = SHORTEST_IN_ANSWERS) -> None:
        found = {one for one in credentials if len(one) >= shortest}
        # A credential that holds another one, such as `Bearer KEY` beside KEY, needs no search of its own.
        least = [one for one in found if not any(other in one for other in found - {one})]
        packed = [
            _in_base64(one.encode("utf-8", "surrogatepass"), shift) for one in least for shift in range(3)
        ]
        probes = [max(_UNRESERVED.findall(one), key=len, default="") for one in least]
        probes += [max(_ALPHANUMERIC.findall(one), key=len, default="") for one in packed]
        # A fragment of few letters is in every text, and so is an empty one.
        self._probes: Final = tuple(dict.fromkeys(one.encode() for one in probes))
        spelled = sorted((*map(_spelled, least), *map(_in_both_alphabets, packed)), key=len, reverse=True)
        self._spelled: Final = re.compile("|".join(spelled).encode("utf-8", "surrogatepass"))

    def __call__(self, text: bytes) -> bytes:
        """Return the text without the credentials."""
        for probe in self._probes:
            if probe in text:
                return self._spelled.sub(MARK, text)
        return text

    def words(self, text: str) -> str:
        """Return the same of a text that was decoded."""
        return self(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")


def _spelled(one: str) -> str:
    """Return a pattern of the credential: each letter as it is, or as JSON, URLs or HTML spell it."""
    return "".join(map(_letter, one))


def _letter(one: str) -> str:
    raw = one.encode("utf-8", "surrogatepass")
    ways = {one, json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1], html.escape(one)}
    ways |= {f"\\{one}"} if one == "/" else set()
    ways |= {"+"} if one == " " else set()
    exact = "|".join(map(re.escape, sorted(ways, key=len, reverse=True)))
    codes = [f"%{byte:02x}" for byte in raw]
    wide = one.encode("utf-16-be", "surrogatepass").hex()
    units = [wide[n : n + 4] for n in range(0, len(wide), 4)]
    any_case = "|".join(
        ["".join(codes), "".join(f"\\\\u{unit}" for unit in units), f"&#0*{ord(one)};", f"&#x0*{ord(one):x};"]
    )
    return f"(?:(?i:{any_case})|{exact})"


def _in_base64(one: bytes, shift: int) -> str:
    """Return the letters that stand for the credential alone, `shift` bytes behind a boundary of three."""
    spelt = base64.b64encode(b"\0" * shift + one).decode()
    return spelt[-(-shift * 8 // 6) : (shift + len(one)) * 8 // 6]


def _in_both_alphabets(packed: str) -> str:
    return packed.replace("/", "[/_]").replace("+", "[+-]")
