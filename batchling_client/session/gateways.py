"""Calls through a gateway of the user's own: what it may need and does not get keeps their requests apart."""

from __future__ import annotations

from typing import Final

from ..intercept.interceptor import HttpCall
from ..intercept.passed import Passed
from ..wire import carried
from ..wire.routes import Route, plain_host
from . import call_words

MOST_REMEMBERED: Final = 1_000
"""So many hosts, and sets of header names, a run remembers what follows from them."""


class Gateways:
    """The hosts that settings name as gateways or as endpoints of the user's own, as one run calls them."""

    def __init__(self, passed: Passed) -> None:
        self._passed = passed
        self._known: dict[tuple[str, str], bool] = {}
        self._left_out: dict[tuple[str, ...], list[str]] = {}

    def is_at(self, route: Route, host: str) -> bool:
        """Return whether settings name the host as a provider's gateway or as an endpoint of the user's own."""
        if not route.stand_in or route.rehearsed:
            return False
        place = (route.provider, host)
        known = self._known.get(place)
        if known is None:
            known = route.stands_in_for(plain_host(host))
            if len(self._known) < MOST_REMEMBERED:
                self._known[place] = known
        return known

    def apart(self, route: Route, call: HttpCall) -> bytes:
        """Tell calls apart by what a gateway may need and does not get, and warn of it: it may name a tenant."""
        if not self.is_at(route, call.host):
            return b""
        query = carried.query_of(call.url)
        # An SDK's calls have the same names from first to last.
        names = (route.provider, *call.headers, *query)
        missed = self._left_out.get(names)
        if missed is None:
            missed = route.left_out([*(f"{carried.HEADER}{name}" for name in call.headers), *query])
            if len(self._left_out) < MOST_REMEMBERED:
                self._left_out[names] = missed
            for name in missed:
                self._passed.warn(call_words.left_out(route, call.host, name))
        if not missed:
            return b""
        fields = {**query, **{f"{carried.HEADER}{name}": value for name, value in call.headers.items()}}
        return f"\n{carried.digest({name: fields[name] for name in missed})}".encode()
