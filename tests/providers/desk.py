"""One provider with its account at the sandbox, and the few moves that every test makes with them."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchling_client.wire.keys import BatchId, ProviderBatchId
from batchling_client.wire.routes import Routes
from batchling_worker.provider import (
    Account,
    Answer,
    Ended,
    Ending,
    Look,
    Provider,
    SearchCriteria,
    Source,
    Submission,
)
from tests.form import CHAT_FORM, Form, chat_body, form_of

CHAT = CHAT_FORM.endpoint
MODEL = CHAT_FORM.model


def body(prompt: str = "Say hello.", model: str = MODEL) -> bytes:
    return chat_body(prompt, model)


def submission(label: str = "batchling-test-1", n_lines: int = 1, form: Form = CHAT_FORM) -> Submission:
    return Submission(
        batch_id=BatchId("b1"),
        label=label,
        endpoint=form.endpoint,
        model=form.model,
        completion_window="24h",
        n_lines=n_lines,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    provider: Provider
    account: Account

    @property
    def form(self) -> Form:
        return form_of(self.provider.facts.name)

    def under_key(self, key: str) -> Desk:
        return replace(self, account=replace(self.account, headers=credential(self.provider.facts.name, key)))

    def body(self, prompt: str = "Say hello.") -> bytes:
        return self.form.body(prompt, self.form.model)

    def requests(self, n: int) -> dict[str, bytes]:
        return {f"r{number}": self.body(f"Question {number}?") for number in range(n)}

    def lines(self, requests: Mapping[str, bytes]) -> io.BytesIO:
        line = self.provider.line
        endpoint = self.form.endpoint
        return io.BytesIO(
            b"".join(line(custom_id=one, endpoint=endpoint, body=b) for one, b in requests.items())
        )

    async def upload(
        self, requests: Mapping[str, bytes] | None = None, label: str = "batchling-test-1"
    ) -> str:
        requests = requests or {"r0": self.body()}
        asked = submission(label, len(requests), self.form)
        return await self.provider.upload(self.account, asked, self.lines(requests))

    async def create(
        self,
        input_file_id: str,
        label: str = "batchling-test-1",
        requests: Mapping[str, bytes] | None = None,
    ) -> ProviderBatchId:
        """Creates of an uploaded file, or where the provider takes the lines themselves, of these requests."""
        requests = requests or {"r0": self.body()}
        lines = self.lines(requests) if self.provider.facts.inline else None
        asked = submission(label, len(requests), self.form)
        return await self.provider.create(self.account, asked, Source(file_id=input_file_id, lines=lines))

    async def submit(
        self, requests: Mapping[str, bytes] | None = None, label: str = "batchling-test-1"
    ) -> ProviderBatchId:
        return await self.create(await self.upload(requests, label), label, requests)

    async def find(
        self,
        label: str = "batchling-test-1",
        *,
        files: Sequence[str] = (),
        since: dt.datetime,
        ours: Collection[str] = (),
        others: Collection[str] = (),
    ) -> list[ProviderBatchId]:
        """Searches; `ours` are the custom_ids of the batch, `others` the provider's ids of other batches."""

        async def is_another(provider_batch_id: ProviderBatchId) -> bool:
            return provider_batch_id in others

        async def holds(custom_ids: Collection[str]) -> bool:
            return bool(set(custom_ids) & set(ours))

        criteria = SearchCriteria(
            submission=submission(label, max(1, len(ours)), self.form),
            input_file_ids=tuple(files),
            since=since,
            is_another=is_another,
            holds=holds,
        )
        return list(await self.provider.find(self.account, criteria))

    async def look(self, provider_batch_id: ProviderBatchId) -> Look:
        look = (await self.provider.look(self.account, [provider_batch_id]))[provider_batch_id]
        assert not isinstance(look, Exception)
        return look

    async def ended(self, provider_batch_id: ProviderBatchId) -> Ended:
        look = await self.look(provider_batch_id)
        assert isinstance(look, Ended), look
        return look

    async def answers(self, ending: Ending) -> list[Answer]:
        return [answer async for answer in self.provider.results(self.account, ending)]

    async def answers_by_id(self, ending: Ending) -> dict[str, Answer]:
        return {answer.custom_id: answer for answer in await self.answers(ending)}


def credential(provider: str, key: str) -> dict[str, str]:
    route = Routes().named(provider)
    assert route is not None
    return route.credential(form_of(provider).key(key))


def said(answer: Answer) -> Any:
    return json.loads(answer.body)


def codes(answers: Sequence[Answer]) -> set[str | None]:
    return {said(answer).get("error", {}).get("code") for answer in answers}
