"""Writes the requests of a batch as its provider's lines, and uploads them."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

import msgspec

from batchling_client.wire.keys import CustomId, LaneId
from batchling_client.wire.records.row_and_result import CorruptRecord, Row
from batchling_client.wire.scripts import RowOut

from ..errors import TemporaryError
from ..provider import ProviderFacts, Source, error_body
from .outgoing import refusal
from .step import AccountStep


class _Model(msgspec.Struct):
    model: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Readied:
    """The input of a batch, and how many lines it has."""

    source: Source
    n_lines: int


_model_of = msgspec.json.Decoder(_Model)


@contextlib.asynccontextmanager
async def readied(step: AccountStep, label: str) -> AsyncIterator[Readied]:
    """Open the input of the batch: the file that is stored at its provider, or its lines, written and uploaded."""
    batch = step.batch
    stored = bool(batch.input_file_id) and batch.account in ("", step.account.digest)
    if stored and not step.provider.facts.inline:
        yield Readied(source=Source(file_id=batch.input_file_id), n_lines=batch.n_lines)
        return
    with _spool() as file:
        n_lines = await _write_lines(step, file)
        if n_lines < step.provider.facts.min_rows:
            yield Readied(source=Source(file_id=""), n_lines=n_lines)
            return
        step.reach("submit.written")
        file_id = batch.input_file_id if stored else await _upload(step, label, file, n_lines)
        lines = file if step.provider.facts.inline else None
        yield Readied(source=Source(file_id=file_id, lines=lines), n_lines=n_lines)


async def upload_anew(step: AccountStep, label: str) -> None:
    with _spool() as file:
        n_lines = await _write_lines(step, file)
        if n_lines:
            await _upload(step, label, file, n_lines)


async def _upload(step: AccountStep, label: str, file: BinaryIO, n_lines: int) -> str:
    file.seek(0)
    input_file_id = await step.provider.upload(step.account, step.submission(label, n_lines), file)
    step.reach("submit.uploaded")
    await step.claim.uploaded(input_file_id, n_lines, step.account.digest)
    step.reach("submit.file_stored")
    return input_file_id


async def _write_lines(step: AccountStep, file: BinaryIO) -> int:
    """Write the batch's live requests as the provider's lines, a chunk at a time; return how many."""
    n_lines = 0
    lane_id = step.batch.spec.lane_id
    async for rows in step.store.unanswered(step.batch.batch_id):
        unfit: list[RowOut] = []
        fit: list[bytes] = []
        for row in rows:
            line = _line_or_refusal(step, row, lane_id)
            if isinstance(line, RowOut):
                unfit.append(line)
            else:
                fit.append(line)
        with _disk():
            file.writelines(fit)
            file.flush()
        n_lines += len(fit)
        if unfit:
            await step.claim.deliver(unfit)
    return n_lines


def _line_or_refusal(step: AccountStep, row: Row, lane_id: LaneId) -> bytes | RowOut:
    spec = step.batch.spec
    try:
        body = _one_line(row.body(lane_id, step.cipher))
        if not _belongs(body, spec.model, step.provider.facts):
            reason = f"This request's body names another model than its lane, {spec.model}"
            return _unfit(step, row, "batch_model_mismatch", reason, "model")
        return step.provider.line(custom_id=CustomId(row.request_id), endpoint=spec.endpoint, body=body)
    except CorruptRecord:
        return _unfit(step, row, "batch_row_corrupt", "The stored body of this request is damaged", None)
    except Exception as error:  # noqa: BLE001 - a defect of ours with one row must not hold up the others for ever
        name = type(error).__name__
        step.telemetry.warn("row_failed", batch=step.batch, step="submit", error=name)
        return _unfit(
            step, row, "batch_row_failed", f"batchling itself failed on this request ({name})", None
        )


def _one_line(body: bytes) -> bytes:
    """Return the body; raises `CorruptRecord` if it has line breaks, which would add lines to the provider's file."""
    if b"\n" in body or b"\r" in body:
        raise CorruptRecord("a stored body has line breaks")
    return body


def _belongs(body: bytes, model: str, facts: ProviderFacts) -> bool:
    try:
        named = _model_of.decode(body).model
    except (msgspec.DecodeError, msgspec.ValidationError):
        return False
    return named == model or (named is None and facts.model_in_path)


def _unfit(step: AccountStep, row: Row, code: str, reason: str, param: str | None) -> RowOut:
    body = error_body(code, f"{reason}: it was not sent.", param)
    return refusal(row.request_id, status=400, body=body, origin=code, cipher=step.cipher)


@contextlib.contextmanager
def _spool() -> Iterator[BinaryIO]:
    with _disk():
        file = tempfile.TemporaryFile(prefix="batchling-")  # noqa: SIM115 - closed below, whatever the disk says
    try:
        yield file
    finally:
        # Closing flushes once more, which fails on a full disk; nobody needs what was not flushed.
        with contextlib.suppress(OSError):
            file.close()


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Raise `TemporaryError` for a full disk of the worker: an `OSError` would be taken for an unreachable Redis."""
    try:
        yield
    except OSError as error:
        raise TemporaryError(f"the worker cannot write the input file: {error.strerror}") from None
