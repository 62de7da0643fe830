"""Writes the answers of a run, one a line in the order of its file or its calls; holds some of them at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import msgspec
from redis.asyncio import Redis

from ..errors import AnswerUnreadable, BatchlingError, RequestLost
from ..operate import worker_presence
from ..progress import display, wait_reasons
from ..session.redis_outage import Outage
from ..views.inspection import Inspection
from ..wire.deployment.connection import UNREACHABLE
from ..wire.keys import Keys, RequestId, RunId
from ..wire.records import submitted_file
from ..wire.records.row_and_result import PROVIDER, CorruptRecord, Result
from ..wire.row_cipher import RowCipher
from ..wire.shown import json_line, shown
from .answer_keys import LOCKED, LOCKED_SENTENCE, AnswerKeys

AT_ONCE: Final = 64
LOOK_S: Final = 1.0
SUCCEEDED: Final = b"+"
WAITING: Final = "batch_pending"
MOST_REASONS: Final = 100
MOST_LISTED: Final = 3
LONGEST_REASON: Final = 300


class NoResults(BatchlingError):
    """There is no such run, or it does not list its requests."""

    code = "no_results"
    sentence = "There is no such run, or it does not list its requests."


@dataclass(slots=True, kw_only=True)
class Tally:
    """The counts of a run's requests by state."""

    run_id: RunId
    n_requests: int = 0
    n_succeeded: int = 0
    n_failed: int = 0
    n_waiting: int = 0
    n_unsent: int = 0
    """Requests of the file that were not queued, as its submission was interrupted."""

    reasons: Counter[str] = field(default_factory=Counter)
    """How many requests failed for which reason, as far as `MOST_REASONS` hold."""

    @property
    def complete(self) -> bool:
        """Whether every request was answered with a success."""
        return self.n_succeeded == self.n_requests

    def as_json(self) -> dict[str, object]:
        """Return what `batchling results --json` prints."""
        return {
            "run_id": self.run_id,
            "n_requests": self.n_requests,
            "n_succeeded": self.n_succeeded,
            "n_failed": self.n_failed,
            "n_waiting": self.n_waiting,
            "n_unsent": self.n_unsent,
        }

    def failed(self, reason: str) -> None:
        """Count a failed request."""
        self.n_failed += 1
        text = shown(reason, LONGEST_REASON)
        if text in self.reasons or len(self.reasons) < MOST_REASONS:
            self.reasons[text] += 1

    def lines(self) -> list[str]:
        """Return the counts as text, with the most common reasons of failures."""
        named = self.reasons.most_common(MOST_LISTED)
        others = self.n_failed - sum(n for _, n in named)
        return [
            str(self),
            *(f"{n:,} failed: {reason}" for reason, n in named),
            *([f"{others:,} failed for other reasons: see their lines."] if others else []),
        ]

    def __str__(self) -> str:
        words = [f"{self.n_succeeded:,} of {self.n_requests:,} requests succeeded"]
        words += [f"{self.n_failed:,} failed"] if self.n_failed else []
        words += [f"{self.n_waiting:,} still wait"] if self.n_waiting else []
        words += [
            f"{self.n_unsent:,} were not queued, as the submission was interrupted: submit the file again"
        ] * bool(self.n_unsent)
        return f"{', '.join(words)}."


class Results:
    """The answers of one run."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        run_id: RunId,
        *,
        answer_keys: AnswerKeys,
        missing: worker_presence.Missing | None = None,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._run_id = run_id
        self._answer_keys = answer_keys
        self._outage = Outage(redis)
        self._wait_reasons = wait_reasons.WaitReasons()
        self._inspection = Inspection(redis, keys)
        self._watch = display.Watch(self._inspection, run_id)
        self._tally = Tally(run_id=run_id)
        self._missing = missing or worker_presence.Missing()
        self._alone_since_s: float | None = None
        self._warned_alone = False

    async def write(self, out: BinaryIO, *, wait: bool, failed_only: bool = False) -> Tally:
        """Write a line for each request, or for each that failed; with `wait`, once it is answered.

        Raises `NoResults`.
        """
        tally = self._tally
        chunks = await self._of_file() or await self._of_calls()
        n_listed = 0
        async for chunk in chunks:
            n_listed += len(chunk)
            for first in range(0, len(chunk), AT_ONCE):
                some = chunk[first : first + AT_ONCE]
                out.writelines(await self._lines(some, wait=wait, failed_only=failed_only))
        tally.n_unsent = max(0, tally.n_requests - n_listed)
        return tally

    async def _of_file(self) -> AsyncIterator[list[submitted_file.Asked]] | None:
        """Return the requests of a submitted file in its order; None if the run was made by a block."""
        key = self._keys.run_requests(self._run_id)
        n_requests = await self._redis.execute_command("HGET", key, "n")
        if n_requests is None:
            return None
        self._tally.n_requests = int(n_requests)

        async def chunks() -> AsyncIterator[list[submitted_file.Asked]]:
            for number in range(-(-self._tally.n_requests // submitted_file.CHUNK_ROWS)):
                raw = await self._redis.execute_command("HGET", key, number)
                if raw is None:
                    return
                yield submitted_file.unpack(raw)

        return chunks()

    async def _of_calls(self) -> AsyncIterator[list[submitted_file.Asked]]:
        """Return the requests of a block in the order of its calls, with the number of the call as custom_id."""
        record = await self._inspection.run_alone(self._run_id)
        if record is None:
            raise NoResults(f"There is no run {self._run_id!r} here: `batchling runs` lists all runs.")
        if not record.is_counted:
            raise NoResults(
                f"Run {self._run_id} began under a release that did not list its requests. Run its program again to "
                "get its answers, which are not paid for twice."
            )
        key = self._keys.run_withdrawn(self._run_id)
        members: set[bytes] = await self._redis.execute_command("SMEMBERS", key)
        withdrawn = {RequestId(one.decode()) for one in members if one.isascii()}
        seen = set[RequestId]()

        async def chunks() -> AsyncIterator[list[submitted_file.Asked]]:
            async for ids in self._inspection.request_ids_of(self._run_id):
                gone = await self._gone([one for one in ids if one in withdrawn]) | seen
                seen.update(withdrawn.intersection(ids))
                chunk = []
                for request_id in dict.fromkeys(ids):
                    if request_id not in gone:
                        self._tally.n_requests += 1
                        number = str(self._tally.n_requests)
                        chunk.append(submitted_file.Asked(custom_id=number, request_id=request_id))
                yield chunk

        return chunks()

    async def _gone(self, withdrawn: Sequence[RequestId]) -> set[RequestId]:
        """Return those of the withdrawn requests that were not asked for again: neither in flight nor answered."""
        asked = [submitted_file.Asked(custom_id="", request_id=one) for one in withdrawn]
        found = await self._found(asked, patient=False) if asked else []
        return {
            one
            for one, (flying, packed) in zip(withdrawn, found, strict=True)
            if not flying and packed is None
        }

    async def _lines(
        self, some: Sequence[submitted_file.Asked], *, wait: bool, failed_only: bool
    ) -> list[bytes]:
        lines: dict[int, bytes] = {}
        left_out: set[int] = set()
        while True:
            open_ones = [n for n in range(len(some)) if n not in lines]
            found = await self._found([some[n] for n in open_ones], patient=wait)
            ciphers = await self._ciphers([packed for _, packed in found])
            for n, (flying, packed) in zip(open_ones, found, strict=True):
                if packed is not None:
                    cipher = ciphers.get(Result.fingerprint_of(packed))
                    lines[n] = self._answered(some[n], packed, cipher)
                    if packed[:1] == SUCCEEDED:
                        left_out.add(n)
                elif not flying:
                    self._tally.failed(RequestLost.sentence)
                    lines[n] = _error_line(some[n], RequestLost.code, RequestLost.sentence)
            if not wait or len(lines) == len(some):
                break
            await self._say_why()
            await asyncio.sleep(LOOK_S)
        for n in range(len(some)):
            if n not in lines:
                self._tally.n_waiting += 1
                lines[n] = _error_line(some[n], WAITING, "The request still waits for its answer.")
                left_out.add(n)
        return [lines[n] for n in range(len(some)) if not (failed_only and n in left_out)]

    async def _found(
        self, some: Sequence[submitted_file.Asked], *, patient: bool
    ) -> list[tuple[bool, bytes | None]]:
        """Return for each request whether it is in flight, and its result."""
        keys = self._keys
        while True:
            try:
                # In this order: a request leaves its place in flight only when its answer is stored.
                flying: list[Any] = await self._redis.mget([keys.request(one.request_id) for one in some])
                packed: list[Any] = await self._redis.mget([keys.result(one.request_id) for one in some])
                return [(place is not None, result) for place, result in zip(flying, packed, strict=True)]
            except UNREACHABLE as error:
                if not patient:
                    raise
                await self._outage.over(error)

    async def _say_why(self) -> None:
        try:
            batches = await self._watch.look()
            await self._say_alone(self._inspection)
        except UNREACHABLE as error:
            await self._outage.over(error)
            return
        for line in self._wait_reasons.news(batches):
            display.warn(line)

    async def _say_alone(self, inspection: Inspection) -> None:
        """Warn once that no worker is alive, after as long as a worker may take to start."""
        if self._warned_alone:
            return
        try:
            alone = not await inspection.workers()
        except CorruptRecord:
            # A worker of another version.
            alone = False
        now_s = asyncio.get_running_loop().time()
        if not alone:
            self._alone_since_s = None
        elif self._alone_since_s is None:
            self._alone_since_s = now_s
        elif now_s - self._alone_since_s >= self._missing.after_s:
            self._warned_alone = True
            display.warn(self._missing.warning)

    async def _ciphers(self, found: Sequence[bytes | None]) -> dict[str, RowCipher | None]:
        """Return what opens these results, by fingerprint."""
        whose = {Result.fingerprint_of(packed) for packed in found if packed is not None}
        return await self._answer_keys.of(whose)

    def _answered(self, one: submitted_file.Asked, packed: bytes, cipher: RowCipher | None) -> bytes:
        if cipher is None and Result.fingerprint_of(packed):
            self._tally.failed(LOCKED_SENTENCE)
            return _error_line(one, LOCKED, LOCKED_SENTENCE)
        try:
            result = Result.decode(packed, one.request_id, cipher)
            body = result.body
        except CorruptRecord:
            self._tally.failed(AnswerUnreadable.sentence)
            return _error_line(one, AnswerUnreadable.code, AnswerUnreadable.sentence)
        if packed[:1] == SUCCEEDED:
            self._tally.n_succeeded += 1
        else:
            status = f"{result.status} " if result.origin == PROVIDER else ""
            self._tally.failed(f"{status}{_message(body)}".rstrip())
        if result.origin != PROVIDER:
            return _error_line(one, result.origin, _message(body))
        response = {
            "status_code": result.status,
            "request_id": result.headers.get("x-request-id", ""),
            "body": _as_json(body),
        }
        return _line(one, response, None)


class _Said(msgspec.Struct):
    message: str = ""


class _Error(msgspec.Struct):
    error: _Said


def _message(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Error).error.message
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body[:1000].decode(errors="replace")


def _as_json(body: bytes) -> msgspec.Raw | str:
    """Return the body for a line of the answer file: its JSON without line breaks, or a string if it is not JSON."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode(errors="replace")
    return msgspec.Raw(msgspec.json.format(body, indent=-1) if b"\n" in body or b"\r" in body else body)


def _error_line(one: submitted_file.Asked, code: str, message: str) -> bytes:
    return _line(one, None, {"code": code, "message": message})


def _line(one: submitted_file.Asked, response: object, error: object) -> bytes:
    line = {"id": one.request_id, "custom_id": one.custom_id, "response": response, "error": error}
    return json_line(msgspec.json.encode(line)) + b"\n"
