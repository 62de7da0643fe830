"""http.client by itself, as urllib.request has it: ``HTTPConnection.putrequest``, which every request passes.

Nothing is caught here: an LLM call is sent with a warning, or refused in a rehearsal. urllib3 also sends over it; its
calls are handled in `urllib3.py`.
"""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final

from .. import gate, own_transports, uncovered_clients
from ..interceptor import Handler, host_of, place_of
from ..library import Library
from ..passed import costs, not_sent
from ..patching import Patch, Patcher, Target

_SEEN_ABOVE: Final = "urllib3."


def _putting(patch: Patch) -> Callable[..., None]:
    def putrequest(connection: Any, method: str, url: str, *args: Any, **options: Any) -> None:
        if method == "POST":
            block = None if _is_seen_above(connection) else patch.block()
            if block is not None:
                _note(block, method, *_place(connection, url))
        patch.plain(connection)(method, url, *args, **options)

    return putrequest


def _is_seen_above(connection: object) -> bool:
    return any(base.__module__.startswith(_SEEN_ABOVE) for base in type(connection).__mro__)


def _place(connection: Any, url: str) -> tuple[str, str]:
    host, path = place_of(url or "/")
    if host or not path:
        # Through a proxy the request names the whole URL.
        return host, path
    tunnel = getattr(connection, "_tunnel_host", None)
    name, port = (tunnel, connection._tunnel_port) if tunnel else (connection.host, connection.port)
    port = None if port == connection.default_port else port
    return host_of(str(name).strip("[]").lower(), port), path


def _note(block: Handler, method: str, host: str, path: str) -> None:
    shut = gate.of_process()
    if shut is not None and shut.wants(method, host, path):
        with not_sent():
            _count(block, method, host, path)
        raise shut.refusal(host)
    if own_transports.is_socket_replaced():
        if block.wants(method, host, path) or costs(method, path):
            own_transports.leave_alone(block)
        return
    _count(block, method, host, path)


def _count(block: Handler, method: str, host: str, path: str) -> None:
    if block.wants(method, host, path):
        uncovered_clients.note_http(block.passed, host, "http.client")
    else:
        block.passes(method, host, path)


def _targets(module: ModuleType) -> Iterator[Target]:
    # A recorder may have replaced the module's class by its own.
    own = (one for one in object.__subclasses__() if one.__module__ == module.__name__)
    for connection in [one for one in own if one.__name__ == "HTTPConnection"]:
        yield connection, "putrequest", _putting


INTERCEPTOR: Final = Patcher(_targets, Library(name="http.client", modules=("http.client",), warned_of=True))
