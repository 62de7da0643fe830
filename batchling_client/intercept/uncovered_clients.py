"""Calls that are seen but cannot be caught: one warning per run and kind says what to use instead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .passed import Passed, Why

_OVER_ANOTHER: Final = (
    "A call to {} is sent over {} directly, which batchling does not intercept: it is not batched and costs full "
    "price. {}"
)
_ANY_SDK: Final = "Send it over httpx, requests or aiohttp to have it batched."
BEDROCK_WAY: Final = (
    "To have calls to Bedrock batched, use AsyncAnthropicBedrock of the anthropic SDK, or httpx, "
    "with a Bedrock API key, or `batchling submit`."
)
_BEDROCK_HOST: Final = re.compile(r"bedrock-runtime(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")

_OVER_GRPC: Final = (
    "Calls of {} are sent over gRPC, which batchling does not intercept: they are not batched and cost "
    "full price. {}"
)
XAI_WAY: Final = "Use the OpenAI SDK with base_url='https://api.x.ai/v1' to have them batched."
GOOGLE_WAY: Final = "Use the google-genai SDK to have them batched."
_XAI: Final = ("xai-sdk", XAI_WAY)
_GOOGLE: Final = ("Google's gRPC clients", GOOGLE_WAY)


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


PROVIDERS: Final = ("/xai_api.", "/google.cloud.aiplatform.", "/google.ai.generativelanguage.")
"""How the gRPC methods of providers begin."""


def note_http(passed: Passed | None, host: str, library: str) -> None:
    """Count a batchable call that goes over a library that is only watched, and warn of the first one of a run."""
    if passed is not None:
        way = BEDROCK_WAY if _BEDROCK_HOST.fullmatch(host) else _ANY_SDK
        passed.note(Why.LIBRARY, host, _OVER_ANOTHER.format(host, library, way))


def note_rpc(passed: Passed | None, method: str) -> None:
    """Count a batchable call that goes over gRPC, and warn of the first one of a run; ignore other methods."""
    named = RPCS.get(method)
    if passed is not None and named is not None:
        passed.note(Why.LIBRARY, named[0], _OVER_GRPC.format(*named))
