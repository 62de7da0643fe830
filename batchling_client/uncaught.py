"""Calls that are seen and cannot be caught: one warning a process names each kind, and the way there is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final

from .interceptor import warn_once

_OVER_URLLIB3: Final = (
    "A call to {} goes over urllib3 by itself, where batchling catches none: it is not batched and goes at full "
    "price. "
)
_ANY_SDK: Final = "Send it over httpx, requests or aiohttp to have it batched."
BEDROCK_WAY: Final = (
    "To have calls to Bedrock batched, use AsyncAnthropicBedrock of the anthropic SDK, or httpx, "
    "with a Bedrock API key, or `batchling submit`."
)
_BEDROCK_HOST: Final = re.compile(r"bedrock-runtime(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")

_OVER_GRPC: Final = (
    "Calls of {} go over gRPC, where batchling catches none: they are not batched and go at full price. {}"
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


def warn_of_http(host: str) -> None:
    """Says once a process that a batchable call goes over urllib3 by itself."""
    way = BEDROCK_WAY if _BEDROCK_HOST.fullmatch(host) else _ANY_SDK
    warn_once(_OVER_URLLIB3.format(host) + way, os.getpid())


def warn_of_rpc(method: str) -> None:
    """Says once a process that a batchable call goes over gRPC; nothing of other methods."""
    named = RPCS.get(method)
    if named is not None:
        warn_once(_OVER_GRPC.format(*named), os.getpid())
