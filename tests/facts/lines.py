"""Input files for batches, built by hand."""

from __future__ import annotations

import json
from typing import Any, Final

CHAT: Final = "/v1/chat/completions"


def chat(
    custom_id: str, prompt: str = "Say hello.", *, model: str = "gpt-4o-mini", **more: Any
) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], **more}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def jsonl(*lines: dict[str, Any] | str) -> bytes:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return "".join(f"{text}\n" for text in texts).encode()


def parse(content: bytes) -> dict[str, dict[str, Any]]:
    """Return result rows by custom_id, and fail if an id appears twice."""
    rows = [json.loads(line) for line in content.splitlines()]
    by_id = {row["custom_id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id
