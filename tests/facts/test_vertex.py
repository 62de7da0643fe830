"""Vertex's batch prediction jobs."""

from __future__ import annotations

import json
from typing import Any

from tests.form import Ability, Form

MODEL = "gemini-2.5-flash"


def body(prompt: str, model: str) -> bytes:
    return json.dumps({"contents": [{"role": "user", "parts": [{"text": prompt}]}]}).encode()


def text(answer: Any) -> str:
    found: str = answer["candidates"][0]["content"]["parts"][0]["text"]
    return found


FORM = Form(
    endpoint="/v1beta1/projects/acme/locations/us-central1:generateContent",
    model=MODEL,
    slow_model="gemini-2.5-pro",
    body=body,
    text=text,
    # Files lie in Cloud Storage, under names and not ids, seen by everybody at once; what never ran is in none of them.
    lacks=frozenset({Ability.OPENAI_FILES, Ability.INPUT_FILE, Ability.RESULT_FILES, Ability.UNDONE_ROWS}),
)
