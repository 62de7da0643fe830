"""Calls that are seen but cannot be caught: one warning per run and kind says what to use instead."""

from __future__ import annotations

import re
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


def note_http(passed: Passed | None, host: str, library: str) -> None:
    """Count a batchable call that goes over a library that is only watched, and warn of the first one of a run."""
    if passed is not None:
        way = BEDROCK_WAY if _BEDROCK_HOST.fullmatch(host) else _ANY_SDK
        passed.note(Why.LIBRARY, host, _OVER_ANOTHER.format(host, library, way))
