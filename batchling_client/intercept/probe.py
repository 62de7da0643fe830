"""Sends one probe through each HTTP library that is imported, to see that its calls really reach a block.

Libraries whose calls are only warned of are not probed: nothing goes out at full price that would not anyway.
"""

from __future__ import annotations

import sys
from types import ModuleType

from ..errors import NotIntercepted
from . import own_transports, scope, switch
from .interceptor import HttpCall, HttpReply
from .library import CAUGHT, PROBE_HOST, Library
from .own_transports import Way
from .patching import Patcher


class _Probe:
    """Answers the probe alone; no network is ever touched."""

    passed: None = None

    def wants(self, method: str, host: str, path: str) -> bool:
        return host == PROBE_HOST

    def passes(self, method: str, host: str, path: str) -> bool:
        return False

    async def answer(self, call: HttpCall) -> HttpReply:
        return self.answer_blocking(call)

    def answer_blocking(self, call: HttpCall) -> HttpReply:
        return HttpReply(status=CAUGHT, headers={}, body=b"")


async def check() -> None:
    """Raise `NotIntercepted` if calls of an imported library would not be caught."""
    for interceptor in switch.interceptors():
        for library in interceptor.libraries:
            await _check(interceptor, library)


async def _check(interceptor: Patcher, library: Library) -> None:
    for name in library.modules:
        module = sys.modules.get(name)
        if not isinstance(module, ModuleType) or not library.is_in(module):
            continue
        if _is_asked_first(interceptor, library, module) or await _is_caught(library, module):
            continue
        raise NotIntercepted(
            f"Calls of {name} do not reach batchling, since something else took its place there: they would "
            "be sent at full price. See `batchling doctor`."
        )


def _is_asked_first(interceptor: Patcher, library: Library, module: ModuleType) -> bool:
    """Say whether a double or other code of the program answers or sends the calls of a library before we see them.

    Such code is asked first, as it would be without batchling. A function laid over our patch does not count.
    """
    for place in library.asked_first:
        owner, _, method = place.partition(".")
        holder = getattr(module, owner, None)
        if not isinstance(holder, type):
            return True
        function = getattr(holder, method, None)
        if interceptor.patches(method) and not own_transports.is_ours(function):
            continue
        if own_transports.way_of(function, module.__name__) is not Way.PLAIN:
            return True
    return False


async def _is_caught(library: Library, module: ModuleType) -> bool:
    if library.probe is None:
        return True
    token = scope.enter_task(_Probe())
    try:
        return await library.probe(module)
    except Exception:  # noqa: BLE001 - what took our place may raise anything, such as a recorder without a tape
        return False
    finally:
        scope.leave_task(token)
