"""openai, for OpenAI and for the providers that follow its API."""

from __future__ import annotations

import os
from typing import Any

import openai

from batchling_worker.sandbox.answers import answers

from ..caller import BAD_REQUEST, BROKEN, Caller, Raw, Structured, Verdict, stainless_errors

MODEL = "gpt-4o-mini"
AZURE = "https://acme.openai.azure.com"
API_VERSION = "2024-10-21"


def chat(client: Any, prompt: str, model: str) -> Any:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}])


def chat_parsed(client: Any, prompt: str, model: str) -> Any:
    return client.chat.completions.parse(
        model=model, messages=[{"role": "user", "content": prompt}], response_format=Verdict
    )


def chat_raw(client: Any, prompt: str, model: str) -> Any:
    return client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": prompt}]
    )


def chat_text(answer: Any) -> Any:
    return answer.choices[0].message.content


def response(client: Any, prompt: str) -> Any:
    return client.responses.create(model=MODEL, input=prompt)


def embedding(client: Any, prompt: str) -> Any:
    return client.embeddings.create(model="text-embedding-3-small", input=prompt)


def vector(prompt: str) -> list[float]:
    made = answers.answer("/v1/embeddings", answers.Ask(model="text-embedding-3-small", input=prompt), 0)
    assert isinstance(made, answers.Answer)
    found: list[float] = made.body["data"][0]["embedding"]
    return found


def status(error: Any) -> int:
    code: int = error.status_code
    return code


HOME: dict[str, Any] = {
    "sdk": "openai",
    "client": lambda key: openai.OpenAI(api_key=key),
    "async_client": lambda key: openai.AsyncOpenAI(api_key=key),
    "errors": stainless_errors("openai"),
    "status": status,
}


def of_chat(model: str) -> dict[str, Any]:
    """Return the fields of a `Caller` for a model's chat completions, plain, structured and raw."""
    return {
        **HOME,
        "ask": lambda client, prompt: chat(client, prompt, model),
        "typed": "openai.types.chat:ChatCompletion",
        "content": chat_text,
        "structured": Structured(
            ask=lambda client, prompt: chat_parsed(client, prompt, model),
            verdict=lambda answer: answer.choices[0].message.parsed,
        ),
        "raw": Raw(
            ask=lambda client, prompt: chat_raw(client, prompt, model),
            request_id="x-request-id",
            on_answer=True,
        ),
    }


OWN: dict[str, Any] = {
    "client": lambda key: openai.OpenAI(api_key=key, base_url=own_base_url()),
    "async_client": lambda key: openai.AsyncOpenAI(api_key=key, base_url=own_base_url()),
}


def own_base_url() -> str:
    """Return the base URL of an endpoint that only the settings name."""
    return os.environ["BATCHLING_PROVIDERS__ACME__BASE_URL"] + "/v1"


def pointed_at(base_url: str) -> dict[str, Any]:
    """Return the fields of a `Caller` for both clients with another base URL."""
    return {
        "client": lambda key: openai.OpenAI(api_key=key, base_url=base_url),
        "async_client": lambda key: openai.AsyncOpenAI(api_key=key, base_url=base_url),
    }


def follower(provider: str, base_url: str, model: str, **more: Any) -> Caller:
    """Return the chat completions of a provider that follows OpenAI, with the given differences."""
    return Caller(
        **{**of_chat(model), **pointed_at(base_url), **more},
        call=f"chat.completions at {provider}",
        provider=provider,
    )


AZURE_CLIENTS: dict[str, Any] = {
    "client": lambda key: openai.AzureOpenAI(api_key=key, azure_endpoint=AZURE, api_version=API_VERSION),
    "async_client": lambda key: openai.AsyncAzureOpenAI(
        api_key=key, azure_endpoint=AZURE, api_version=API_VERSION
    ),
}

CALLERS = (
    Caller(**of_chat(MODEL), call="chat.completions", provider="openai"),
    Caller(
        **HOME,
        call="responses",
        provider="openai",
        ask=response,
        typed="openai.types.responses:Response",
        content=lambda answer: answer.output_text,
        structured=Structured(
            ask=lambda client, prompt: client.responses.parse(model=MODEL, input=prompt, text_format=Verdict),
            verdict=lambda answer: answer.output_parsed,
        ),
        raw=Raw(
            ask=lambda client, prompt: client.responses.with_raw_response.create(model=MODEL, input=prompt),
            request_id="x-request-id",
            on_answer=True,
        ),
    ),
    Caller(
        **HOME,
        call="embeddings",
        provider="openai",
        ask=embedding,
        typed="openai.types:CreateEmbeddingResponse",
        content=lambda answer: answer.data[0].embedding,
        expected=vector,
    ),
    follower("xai", "https://api.x.ai/v1", "grok-4.3"),
    follower(
        "doubleword",
        "https://api.doubleword.ai/v1",
        "Qwen/Qwen3-VL-30B-A3B-Instruct-FP8",
        row_statuses=(BROKEN,),
    ),
    follower(
        "sference",
        "https://api.sference.com/v1",
        "Qwen/Qwen3-30B-A3B",
        row_statuses=(BAD_REQUEST, BROKEN),
        told_of_failure="by us, without a reason",
    ),
    Caller(**{**of_chat(MODEL), **AZURE_CLIENTS}, call="chat.completions of AzureOpenAI", provider="azure"),
    Caller(
        **{**of_chat(MODEL), **OWN}, call="chat.completions at an endpoint of one's own", provider="openai"
    ),
    follower("azure", f"{AZURE}/openai/v1", MODEL),
)
