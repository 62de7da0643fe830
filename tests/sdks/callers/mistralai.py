"""mistralai, whose client has both blocking and asynchronous calls."""

from __future__ import annotations

from typing import Any

from ..caller import BAD_REQUEST, BROKEN, TOO_MANY, Caller, Structured, Verdict, named

HOME = "mistralai.client|mistralai"
MODEL = "mistral-small-latest"
SDK_ERROR = "mistralai.client.errors|mistralai.models:SDKError"


def client(key: str) -> Any:
    return named(f"{HOME}:Mistral")(api_key=key)


def asked(prompt: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}


CALLERS = (
    Caller(
        sdk="mistralai",
        call="chat.complete",
        provider="mistral",
        client=client,
        async_client=client,
        ask=lambda of, prompt: of.chat.complete(**asked(prompt)),
        async_ask=lambda of, prompt: of.chat.complete_async(**asked(prompt)),
        typed="mistralai.client.models|mistralai.models:ChatCompletionResponse",
        content=lambda answer: answer.choices[0].message.content,
        errors=dict.fromkeys((BAD_REQUEST, TOO_MANY, BROKEN), SDK_ERROR),
        status=lambda error: error.status_code,
        structured=Structured(
            ask=lambda of, prompt: of.chat.parse(Verdict, **asked(prompt)),
            async_ask=lambda of, prompt: of.chat.parse_async(Verdict, **asked(prompt)),
            verdict=lambda answer: answer.choices[0].message.parsed,
        ),
    ),
)
