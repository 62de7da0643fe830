"""gRPC, as xai-sdk uses it: calls that send one message, blocking and through ``grpc.aio``. These calls cannot be
caught: a batchable call is sent at full price, with a warning."""

from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, Final

from .. import gate
from ..library import Library
from ..passed import Passed, Why, not_sent
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

_OVER_GRPC: Final = (
    "Calls of {} are sent over gRPC, which batchling does not intercept: they are not batched and cost "
    "full price. {}"
)
_XAI_WAY: Final = "Use the OpenAI SDK with base_url='https://api.x.ai/v1' to have them batched."
_GOOGLE_WAY: Final = "Use the google-genai SDK to have them batched."
_XAI: Final = ("xai-sdk", _XAI_WAY)
_GOOGLE: Final = ("Google's gRPC clients", _GOOGLE_WAY)


def _methods(service: str, names: Iterable[str]) -> Iterable[str]:
    return (f"/{service}/{name}" for name in names)


_GENERATING: Final = ("GenerateContent", "StreamGenerateContent")
RPCS: Final = {
    **dict.fromkeys(
        (
            *_methods("xai_api.Chat", ("GetCompletion", "GetCompletionChunk", "StartDeferredCompletion")),
            *_methods("xai_api.Image", ("GenerateImage",)),
            *_methods("xai_api.Video", ("GenerateVideo", "ExtendVideo")),
        ),
        _XAI,
    ),
    **dict.fromkeys(
        (
            *_methods("google.cloud.aiplatform.v1.PredictionService", _GENERATING),
            *_methods("google.cloud.aiplatform.v1beta1.PredictionService", _GENERATING),
            *_methods("google.ai.generativelanguage.v1beta.GenerativeService", _GENERATING),
        ),
        _GOOGLE,
    ),
}
"""gRPC methods that a batch would make cheaper -> whose calls they are, and the way there is instead."""


_PROVIDERS: Final = ("/xai_api.", "/google.cloud.aiplatform.", "/google.ai.generativelanguage.")
"""How the gRPC methods of providers begin."""

_LIKE_A_CALL: Final = "/v1/chat/completions"


def note_rpc(passed: Passed | None, method: str) -> None:
    """Count a batchable call that goes over gRPC, and warn of the first one of a run; ignore other methods."""
    named = RPCS.get(method)
    if passed is not None and named is not None:
        passed.note(Why.LIBRARY, named[0], _OVER_GRPC.format(*named))


def _calling(patch: Patch) -> Callable[..., Any]:
    def call(stub: Any, *args: Any, **options: Any) -> Any:
        block = patch.block()
        if block is not None:
            spelt = getattr(stub, "_method", b"")
            method = spelt.decode() if isinstance(spelt, bytes) else spelt
            shut = gate.of_process()
            if shut is not None and method.startswith(_PROVIDERS):
                with not_sent():
                    note_rpc(block.passed, method)
                raise shut.refusal(method)
            note_rpc(block.passed, method)
            if block.passed is None and method in RPCS:
                # A child process of a block, which counts by host and path.
                block.passes("POST", RPCS[method][0], _LIKE_A_CALL)
        return patch.plain(stub)(*args, **options)

    return call


def _targets(module: ModuleType) -> Iterator[Target]:
    for name, methods in _CALLABLES[module.__name__]:
        owner = getattr(module, name, None)
        yield from ((owner, method, _calling) for method in methods if method in vars(owner or object))


INTERCEPTOR: Final = Patcher(
    _targets,
    Library(
        name="grpc",
        modules=tuple(_CALLABLES),
        warned_of=True,
        sdks={"xai-sdk": _XAI_WAY, "google-cloud-aiplatform": _GOOGLE_WAY},
    ),
)
