"""Headers on every answer of a provider, also on errors of the server: the provider's time and request id."""

from __future__ import annotations

import email.utils
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from .api.gate import REQUEST_ID, new_request_id
from .emulator import Emulator
from .world.world import World

CONTROL: Final = "_sandbox"


class Stamp:
    """A signal handler that the server calls before it writes the head of an answer."""

    def __init__(self, world: World, emulators: Sequence[Emulator]) -> None:
        self._clocks = {one.name: world.seen_by(one.name).clock for one in emulators}
        self._request_ids = {one.name: one.traits.request_id_header for one in emulators}

    async def __call__(self, request: web.Request, response: web.StreamResponse) -> None:
        """Set the `Date` of the answer and put its id into the provider's header."""
        name = request.path.partition("/")[2].partition("/")[0]
        clock = self._clocks.get(name)
        if clock is None:
            return
        response.headers["Date"] = email.utils.formatdate(clock.now(), usegmt=True)
        request_id = response.headers.pop(REQUEST_ID, None) or new_request_id()
        response.headers[self._request_ids[name]] = request_id
