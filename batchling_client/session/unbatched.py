"""Warnings about a POST to a known provider that cannot be batched; none if it is free."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..wire.charges import VERSION, Charge, charge
from ..wire.routes import Route, Routes
from . import call_words

_REASON: Final = "Calls to {} are sent at full price: {}"
_OTHER_PATH: Final = (
    "Calls to {} at {} are sent at full price: batchling expects {} there. Check the client's base_url and "
    "BATCHLING_PROVIDERS__{}__BASE_URL."
)
_NOT_TAKEN: Final = "{0}'s batches do not take {1}: such calls are sent at full price. They take {2}."
_UNKNOWN: Final = (
    "{0}'s batches do not take {1}: such calls go to {0} unbatched, at whatever it charges for them."
)


class Unserved(NamedTuple):
    """A call that passes and is worth a sentence."""

    sentence: str
    charge: Charge
    """What is known of its cost; never `Charge.FREE`."""
    streamed: bool = False


def unbatched(routes: Routes, host: str, path: str) -> Unserved | None:
    """Return the warning about a POST that cannot be batched; None if it is free, or its host is unknown."""
    found = routes.of_call(host, path)
    route = found[0] if found is not None else None
    known = routes.without_batches(host, path)
    if route is None and known is None:
        return None
    cost = charge(path, route.charges if route is not None else "")
    if cost is Charge.FREE:
        return None
    if known is not None and (cost is Charge.FULL_PRICE or route is None):
        return Unserved(_REASON.format(host, known.reason), cost)
    if route is None:
        return None
    shown = _shown(path)
    if cost is Charge.UNKNOWN:
        return Unserved(_UNKNOWN.format(route.provider, shown), cost)
    if path.rpartition("/")[2].partition(":")[2].startswith(("stream", "serverStreaming")):
        return Unserved(call_words.streamed(route.provider).sentence, cost, streamed=True)
    return Unserved(_at_full_price(route, host, shown), cost)


def _at_full_price(route: Route, host: str, shown: str) -> str:
    expected = next((path for path in route.endpoints if _name(path) == _name(shown)), None)
    if expected is not None:
        return _OTHER_PATH.format(shown, host, expected, route.provider.upper())
    return _NOT_TAKEN.format(route.provider, shown, ", ".join(sorted(route.endpoints)))


def _name(path: str) -> str:
    """Return what a path asks for: its verb, or the words behind its last version."""
    verb = path.rpartition("/")[2].partition(":")[2]
    if verb:
        return f":{verb}"
    words = _words(path)
    n_before = max((n for n, word in enumerate(words, 1) if VERSION.fullmatch(word)), default=0)
    return "/".join(words[n_before:])


def _shown(path: str) -> str:
    """Return the path without ids, so that a thousand such calls are one warning."""
    words = [word if VERSION.fullmatch(word) else _without_id(word) for word in _words(path)]
    return f"/{'/'.join(words)}"


def _without_id(word: str) -> str:
    name, colon, verb = word.partition(":")
    return f"ID{colon}{verb}" if any(letter.isdigit() for letter in name) else word


def _words(path: str) -> list[str]:
    return [word for word in path.split("/") if word]
