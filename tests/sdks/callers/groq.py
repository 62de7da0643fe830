"""groq."""

from __future__ import annotations

from typing import Any

import groq

from ..caller import Caller, Raw, Structured, Verdict, stainless_errors

MODEL = "llama-3.1-8b-instant"


def asked(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more}


def structured(client: Any, prompt: str) -> Any:
    schema = {"name": "verdict", "schema": Verdict.model_json_schema()}
    wanted = {"type": "json_schema", "json_schema": schema}
    return client.chat.completions.create(**asked(prompt, response_format=wanted))


CALLERS = (
    Caller(
        sdk="groq",
        call="chat.completions",
        provider="groq",
        client=lambda key: groq.Groq(api_key=key),
        async_client=lambda key: groq.AsyncGroq(api_key=key),
        ask=lambda client, prompt: client.chat.completions.create(**asked(prompt)),
        typed="groq.types.chat:ChatCompletion",
        content=lambda answer: answer.choices[0].message.content,
        errors=stainless_errors("groq"),
        status=lambda error: error.status_code,
        structured=Structured(
            ask=structured,
            verdict=lambda answer: Verdict.model_validate_json(answer.choices[0].message.content),
        ),
        raw=Raw(
            ask=lambda client, prompt: client.chat.completions.with_raw_response.create(**asked(prompt)),
            request_id="x-request-id",
        ),
    ),
)
