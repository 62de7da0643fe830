"""together, which from 3.1 on sends chat completions to another host than batches."""

from __future__ import annotations

from typing import Any

import together

from ..caller import BAD_REQUEST, Caller, Raw, Structured, Verdict, stainless_errors

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


def asked(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more}


def structured(client: Any, prompt: str) -> Any:
    schema = {"name": "verdict", "schema": Verdict.model_json_schema()}
    wanted = {"type": "json_schema", "json_schema": schema}
    return client.chat.completions.create(**asked(prompt, response_format=wanted))


CALLERS = (
    Caller(
        sdk="together",
        call="chat.completions",
        provider="together",
        client=lambda key: together.Together(api_key=key),
        async_client=lambda key: together.AsyncTogether(api_key=key),
        ask=lambda client, prompt: client.chat.completions.create(**asked(prompt)),
        typed="together.types.chat:ChatCompletion",
        content=lambda answer: answer.choices[0].message.content,
        errors=stainless_errors("together"),
        row_statuses=(BAD_REQUEST,),
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
