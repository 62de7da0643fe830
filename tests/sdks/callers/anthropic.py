"""anthropic."""

from __future__ import annotations

from typing import Any

import anthropic

from ..caller import Caller, Raw, Structured, Verdict, stainless_errors, version

MODEL = "claude-haiku-4-5"


def asked(prompt: str) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 256, "messages": [{"role": "user", "content": prompt}]}


STRUCTURED = Structured(
    ask=lambda client, prompt: client.messages.parse(**asked(prompt), output_format=Verdict),
    verdict=lambda answer: answer.parsed_output,
)


CALLERS = (
    Caller(
        sdk="anthropic",
        call="messages",
        provider="anthropic",
        client=lambda key: anthropic.Anthropic(api_key=key),
        async_client=lambda key: anthropic.AsyncAnthropic(api_key=key),
        ask=lambda client, prompt: client.messages.create(**asked(prompt)),
        typed="anthropic.types:Message",
        content=lambda answer: answer.content[0].text,
        errors=stainless_errors("anthropic"),
        status=lambda error: error.status_code,
        structured=STRUCTURED if version("anthropic") >= (1,) else None,
        raw=Raw(
            ask=lambda client, prompt: client.messages.with_raw_response.create(**asked(prompt)),
            request_id="request-id",
            on_answer=True,
        ),
        told_of_failure="never",
    ),
)
