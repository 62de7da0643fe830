"""Sends one probe through each HTTP library that is imported, to see that its calls really reach a block."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Final

from . import scope
from .errors import NotIntercepted
from .interceptor import HttpCall, HttpReply

_FAMILIES: Final = ("httpx", "httpx2")
_HOST: Final = "probe.batchling.invalid"
_CAUGHT: Final = 299


class _Probe:
    """Answers the probe alone; no network is ever touched."""

    def wants(self, method: str, host: str, path: str) -> bool:
        return host == _HOST

    async def answer(self, call: HttpCall) -> HttpReply:
        return self.answer_blocking(call)

    def answer_blocking(self, call: HttpCall) -> HttpReply:
        return HttpReply(status=_CAUGHT, headers={}, body=b"")


async def check() -> None:
    """Raises `NotIntercepted` where calls of an imported library would slip past."""
    for name in _FAMILIES:
        module = sys.modules.get(name)
        if isinstance(module, ModuleType) and hasattr(module, "MockTransport"):
            token = scope.enter_task(_Probe())
            try:
                caught = await _is_caught(module)
            finally:
                scope.leave_task(token)
            if not caught:
                raise NotIntercepted(
                    f"Calls of {name} do not reach batchling, since something else took its place there: they would "
                    "be sent at full price. See `batchling doctor`."
                )


async def _is_caught(module: Any) -> bool:
    def slipped_past(request: object) -> object:
        return module.Response(500)

    probe = module.Request("POST", f"https://{_HOST}/")
    # A transport of its own: a client that opened none costs no TLS context and no connection.
    async with module.AsyncClient(transport=module.MockTransport(slipped_past), trust_env=False) as client:
        awaited = await client.send(probe)
    with module.Client(transport=module.MockTransport(slipped_past), trust_env=False) as client:
        blocking = client.send(probe)
    return bool(awaited.status_code == blocking.status_code == _CAUGHT)
