"""together: from 2.0 one of openai's kin, before that over requests and aiohttp."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import together

from ..caller import (
    BAD_REQUEST,
    BROKEN,
    TOO_MANY,
    Caller,
    Raw,
    Structured,
    Verdict,
    stainless_errors,
    version,
)

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
OF_OLD = version("together") < (2,)


@contextlib.contextmanager
def client(key: str) -> Iterator[Any]:
    if OF_OLD:
        yield together.Together(api_key=key)
    else:
        with together.Together(api_key=key) as opened:
            yield opened


@contextlib.asynccontextmanager
async def async_client(key: str) -> AsyncIterator[Any]:
    if OF_OLD:
        yield together.AsyncTogether(api_key=key)
    else:
        async with together.AsyncTogether(api_key=key) as opened:
            yield opened


def asked(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more}


def structured(of: Any, prompt: str) -> Any:
    schema = {"name": "verdict", "schema": Verdict.model_json_schema()}
    wanted = {"type": "json_schema", "json_schema": schema}
    return of.chat.completions.create(**asked(prompt, response_format=wanted))


def raw(of: Any, prompt: str) -> Any:
    return of.chat.completions.with_raw_response.create(**asked(prompt))


def status(error: Any) -> int:
    code: int = error.http_status if OF_OLD else error.status_code
    return code


ERRORS_OF_OLD = {
    BAD_REQUEST: "together.error:InvalidRequestError",
    TOO_MANY: "together.error:RateLimitError",
    BROKEN: "together.error:APIError",
}

CALLERS = (
    Caller(
        sdk="together",
        call="chat.completions",
        provider="together",
        client=client,
        async_client=async_client,
        ask=lambda of, prompt: of.chat.completions.create(**asked(prompt)),
        typed="together.types:ChatCompletionResponse" if OF_OLD else "together.types.chat:ChatCompletion",
        content=lambda answer: answer.choices[0].message.content,
        errors=ERRORS_OF_OLD if OF_OLD else stainless_errors("together"),
        status=status,
        structured=Structured(
            ask=structured,
            verdict=lambda answer: Verdict.model_validate_json(answer.choices[0].message.content),
        ),
        raw=None if OF_OLD else Raw(ask=raw, request_id="x-request-id"),
    ),
)
