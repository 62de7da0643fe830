"""urllib3 by itself, as boto3 has it: ``HTTPConnectionPool.urlopen``. Nothing is caught here; a batchable call is
warned of and goes on. What requests sends was asked about before it comes here."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

from .. import gate, uncaught
from ..interceptor import OWN_PORTS, host_of
from ..passed import costs
from ..patching import Patch, Patcher, Target


def _opening(patch: Patch) -> Callable[..., Any]:
    def urlopen(pool: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
        block = patch.block()
        if block is not None:
            parts = urlsplit(url)
            # Through a proxy the whole URL is asked for.
            called = parts if parts.hostname else pool
            name = (parts.hostname or pool.host).strip("[]").lower()
            own = called.port == OWN_PORTS.get(called.scheme)
            host = host_of(name, None if own else called.port)
            path = unquote(parts.path)
            shut = gate.of_process()
            if shut is not None and shut.wants(method, host, path):
                raise shut.refusal(host)
            if block.wants(method, host, path):
                uncaught.note_http(block.passed, host)
            elif costs(method, path):
                # Other calls were seen above: requests sends over this library.
                block.passes(method, host, path)
        return patch.plain(pool)(method, url, *args, **options)

    return urlopen


def _targets(module: ModuleType) -> Iterator[Target]:
    library = cast("Any", module)
    if hasattr(library, "HTTPConnectionPool"):
        yield library.HTTPConnectionPool, "urlopen", _opening


_patcher: Final = Patcher(("urllib3",), _targets)
install = _patcher.install
uninstall = _patcher.uninstall
