"""Batches by plain HTTP, so that a test sees the calls on the wire and nothing is retried."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

import httpx

from batchling_worker.sandbox import Sandbox

ROOTS = {"openai": "/v1", "groq": "/openai/v1"}
CHAT = "/v1/chat/completions"


def line(custom_id: str, prompt: str = "Say hello.", model: str = "gpt-4o-mini") -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def lines(n: int, model: str = "gpt-4o-mini") -> list[dict[str, Any]]:
    return [line(f"id-{number}", f"Question {number}?", model) for number in range(n)]


class Caller:
    """One credential at one provider of a sandbox."""

    def __init__(self, sandbox: Sandbox, provider: str) -> None:
        self.sandbox = sandbox
        self.provider = provider
        self.http = httpx.AsyncClient(
            base_url=sandbox.base_url(provider) + ROOTS[provider],
            headers={"Authorization": "Bearer key"},
            timeout=30,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.http.aclose()

    async def upload(self, rows: list[dict[str, Any]]) -> httpx.Response:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        return await self.http.post(
            "/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)}
        )

    async def post_batch(self, file_id: str) -> httpx.Response:
        ask = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
        return await self.http.post("/batches", json=ask)

    async def create(self, rows: list[dict[str, Any]]) -> str:
        """Upload and create, and return the batch's id."""
        uploaded = await self.upload(rows)
        created = await self.post_batch(uploaded.raise_for_status().json()["id"])
        return str(created.raise_for_status().json()["id"])

    async def batch(self, batch_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.http.get(f"/batches/{batch_id}")).raise_for_status().json()
        return answer

    async def listed(self) -> list[str]:
        answer = (await self.http.get("/batches")).raise_for_status().json()
        return [batch["id"] for batch in answer["data"]]

    async def finish(self, rows: list[dict[str, Any]], seconds: float = 10) -> dict[str, Any]:
        """Run a batch of these rows to its end and return it."""
        batch_id = await self.create(rows)
        self.sandbox.clock.advance(seconds)
        return await self.batch(batch_id)

    async def content(self, file_id: str | None) -> list[str]:
        """Return a result file's lines, or no lines if there is no file."""
        if not file_id:
            return []
        return (await self.http.get(f"/files/{file_id}/content")).raise_for_status().text.splitlines()

    async def ids(self, file_id: str | None) -> list[str]:
        """Return the custom_ids of a result file, in order."""
        return [json.loads(text)["custom_id"] for text in await self.content(file_id)]
