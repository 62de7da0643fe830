"""google-genai: the Gemini API and Vertex; its asynchronous calls use aiohttp if it is installed."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from google import genai
from google.oauth2.credentials import Credentials

from ..caller import BAD_REQUEST, BROKEN, TOO_MANY, Caller, Structured, Verdict, version

MODEL = "gemini-2.5-flash"


def of_gemini(key: str, **options: Any) -> Any:
    return genai.Client(api_key=key, vertexai=False, **options)


def without_aiohttp(key: str) -> Any:
    httpx = importlib.import_module("httpx2" if version("google-genai") >= (3,) else "httpx")
    args = {"transport": httpx.AsyncHTTPTransport()}
    return of_gemini(key, http_options={"async_client_args": args})


def of_vertex(key: str) -> Any:
    return genai.Client(
        vertexai=True, project="acme", location="us-central1", credentials=Credentials(token=key)
    )


def opened(make: Any) -> Any:
    @contextlib.contextmanager
    def client(key: str) -> Iterator[Any]:
        made = make(key)
        try:
            yield made.models
        finally:
            made.close()

    return client


def async_opened(make: Any) -> Any:
    @contextlib.asynccontextmanager
    async def client(key: str) -> AsyncIterator[Any]:
        made = make(key).aio
        try:
            yield made.models
        finally:
            await made.aclose()

    return client


def generate(models: Any, prompt: str) -> Any:
    return models.generate_content(model=MODEL, contents=prompt)


def structured(models: Any, prompt: str) -> Any:
    wanted = {"response_mime_type": "application/json", "response_schema": Verdict}
    return models.generate_content(model=MODEL, contents=prompt, config=wanted)


GENERATE: dict[str, Any] = {
    "sdk": "google-genai",
    "ask": generate,
    "typed": "google.genai.types:GenerateContentResponse",
    "content": lambda answer: answer.text,
    "errors": {
        BAD_REQUEST: "google.genai.errors:ClientError",
        TOO_MANY: "google.genai.errors:ClientError",
        BROKEN: "google.genai.errors:ServerError",
    },
    "status": lambda error: error.code,
    "told_of_failure": "by the provider",
    "structured": Structured(ask=structured, verdict=lambda answer: answer.parsed),
}

CALLERS = (
    Caller(
        **GENERATE,
        call="generate_content",
        provider="gemini",
        client=opened(of_gemini),
        async_client=async_opened(of_gemini),
    ),
    Caller(
        **GENERATE,
        call="generate_content without aiohttp",
        provider="gemini",
        client=opened(without_aiohttp),
        async_client=async_opened(without_aiohttp),
    ),
    Caller(
        **GENERATE,
        call="generate_content of Vertex",
        provider="vertex",
        terms={"vertex_gcs_prefix": "gs://acme-batches/sdks"},
        client=opened(of_vertex),
        async_client=async_opened(of_vertex),
    ),
)
