"""Reads results as a stream and packs them for their callers, a chunk at a time."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Final

from batchling_client.wire.keys import RequestId
from batchling_client.wire.row_cipher import RowCipher
from batchling_client.wire.scripts import RowOut
from batchling_client.wire.states import RowKind

from ..decisions import fates
from ..dialects.http_errors import secrets_of
from ..dialects.provider_call import LOOP_BYTES
from ..dialects.redaction import Redaction
from ..provider import ANSWER_TOO_LARGE, Answer, Ending
from .answer_check import checked
from .outgoing import outgoing
from .step import AccountStep

CHUNK_ROWS: Final = 128
CHUNK_BYTES: Final = 1024 * 1024
REQUEST_ID: Final = re.compile(r"[a-z2-7]{26}")


@dataclass(slots=True)
class Chunk:
    """Some rows as they are stored, and the cursor after which reading continues."""

    rows: list[RowOut] = field(default_factory=list)
    cursor: str = ""
    n_bytes: int = 0
    n_ok: int = 0
    """How many of its rows the provider answered with a 2xx, whatever became of them."""
    too_large: list[RequestId] = field(default_factory=list)
    """Those of its requests whose answer is too long to be read."""
    n_foreign: int = 0
    """How many rows with a 2xx were left out because they name no request of ours."""

    _places: dict[RequestId, int] = field(default_factory=dict)

    def add(self, row: RowOut, *, ok: bool) -> None:
        """Add a row; a success replaces a failure of the same request: a provider that retries may write both."""
        place = self._places.setdefault(row.request_id, len(self.rows))
        if place == len(self.rows):
            self.rows.append(row)
        elif row.kind is RowKind.SUCCESS and self.rows[place].kind is not RowKind.SUCCESS:
            self.rows[place] = row
        else:
            return
        self.n_bytes += len(row.packed)
        self.n_ok += ok

    @property
    def full(self) -> bool:
        """Whether the chunk is to be delivered now: memory is that of one chunk."""
        return len(self.rows) >= CHUNK_ROWS or self.n_bytes >= CHUNK_BYTES


async def chunks(
    step: AccountStep, ending: Ending, only: RowKind | None = None
) -> AsyncGenerator[Chunk, None]:
    """Yield every readable result that names a request, of the `only` kind if given; the last chunk may be empty.

    An error of the reading is raised behind the last chunk: complete rows that were read before it were paid for.
    """
    chunk, failure = Chunk(cursor=ending.after), None
    account = step.account
    redact = Redaction(secrets_of(account.headers, account.secrets))
    if ending.results:
        try:
            async with contextlib.aclosing(step.provider.results(step.account, ending)) as answers:
                async for answer in answers:
                    chunk.cursor = answer.cursor or chunk.cursor
                    if len(answer.body) > LOOP_BYTES:
                        row = await asyncio.to_thread(_outgoing_or_none, step, answer, redact)
                    else:
                        row = _outgoing_or_none(step, answer, redact)
                    chunk.n_foreign += row is None and 200 <= answer.status < 300
                    if row is None or only not in (None, row.kind):
                        continue
                    if answer.origin == ANSWER_TOO_LARGE:
                        chunk.too_large.append(row.request_id)
                    chunk.add(row, ok=200 <= answer.status < 300)
                    if chunk.full:
                        yield chunk
                        chunk = Chunk(cursor=chunk.cursor)
        except Exception as error:  # noqa: BLE001 - raised below, behind the rows that were read
            failure = error
    yield chunk
    if failure is not None:
        raise failure


def _outgoing_or_none(step: AccountStep, answer: Answer, redact: Redaction) -> RowOut | None:
    try:
        return _outgoing(checked(_redacted(answer, redact), step.batch.spec.endpoint), step.cipher)
    except Exception as error:  # noqa: BLE001 - a defect of ours with one row must not hold up the others for ever
        step.telemetry.warn("row_failed", batch=step.batch, step="collect", error=type(error).__name__)
        return None


def _redacted(answer: Answer, redact: Redaction) -> Answer:
    """Return the answer without the keys that its provider was sent: an echo must not be stored."""
    body = redact(answer.body)
    headers = answer.headers
    if len(headers) > 1:
        headers = {name: redact.words(value) for name, value in headers.items()}
    return (
        answer
        if body is answer.body and headers == answer.headers
        else replace(answer, body=body, headers=headers)
    )


def _outgoing(answer: Answer, cipher: RowCipher | None) -> RowOut | None:
    """Return the row as it is stored, or None if it names no request of ours."""
    if REQUEST_ID.fullmatch(answer.custom_id) is None:
        return None
    return outgoing(
        RequestId(answer.custom_id),
        fates.row_kind(answer),
        status=answer.status,
        headers=answer.headers,
        body=answer.body,
        origin=answer.origin,
        cipher=cipher,
    )
