"""gRPC, as xai-sdk uses it: calls that send one message, blocking and through ``grpc.aio``. These calls cannot be
caught: a batchable call is sent at full price, with a warning."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final

from .. import gate, uncovered_clients
from ..passed import not_sent
from ..patching import Patch, Patcher, Target

_CALLABLES: Final = {
    "grpc._channel": (
        ("_UnaryUnaryMultiCallable", ("__call__", "with_call", "future")),
        ("_UnaryStreamMultiCallable", ("__call__",)),
        ("_SingleThreadedUnaryStreamMultiCallable", ("__call__",)),
    ),
    "grpc.aio._channel": (
        ("UnaryUnaryMultiCallable", ("__call__",)),
        ("UnaryStreamMultiCallable", ("__call__",)),
    ),
}
"""Where every channel's calls pass, those of stubs that are older than the block too: module -> class, methods."""

_LIKE_A_CALL: Final = "/v1/chat/completions"


def _calling(patch: Patch) -> Callable[..., Any]:
    def call(stub: Any, *args: Any, **options: Any) -> Any:
        block = patch.block()
        if block is not None:
            spelt = getattr(stub, "_method", b"")
            method = spelt.decode() if isinstance(spelt, bytes) else spelt
            shut = gate.of_process()
            if shut is not None and method.startswith(uncovered_clients.PROVIDERS):
                with not_sent():
                    uncovered_clients.note_rpc(block.passed, method)
                raise shut.refusal(method)
            uncovered_clients.note_rpc(block.passed, method)
            if block.passed is None and method in uncovered_clients.RPCS:
                # A child process of a block, which counts by host and path.
                block.passes("POST", uncovered_clients.RPCS[method][0], _LIKE_A_CALL)
        return patch.plain(stub)(*args, **options)

    return call


def _targets(module: ModuleType) -> Iterator[Target]:
    for name, methods in _CALLABLES[module.__name__]:
        owner = getattr(module, name, None)
        yield from ((owner, method, _calling) for method in methods if method in vars(owner or object))


_patcher: Final = Patcher(tuple(_CALLABLES), _targets)
install = _patcher.install
uninstall = _patcher.uninstall
