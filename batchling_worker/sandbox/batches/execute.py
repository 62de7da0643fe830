"""Runs the rows of a batch and writes result files, with one row in memory at a time."""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ..answers import answers
from ..world.faults import FailingFault, JunkRows, SpoilRows, VllmRows
from ..world.ledger import ExecutedRow, cost_usd
from ..world.markers import Markers
from .scan import Scan

ErrorBody = Callable[[int, str | None, str, str | None], dict[str, Any]]
Decorate = Callable[[answers.Answer, str], dict[str, Any]]
RowError = Callable[[int, str | None, str], Mapping[str, Any]]
"""Make a failed row's `error` from its status, code and message, if result lines hold no HTTP status."""

_UNDONE = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "This request was not executed because the batch was cancelled.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """How many rows each fault hits, and whether results are shuffled."""

    shuffle: bool = True
    n_lost: int = 0
    n_repeated: int = 0
    n_stray: int = 0
    n_broken: int = 0
    n_zero: int = 0
    spoiled: SpoilRows | None = None
    junk: JunkRows | None = None
    vllm: VllmRows | None = None
    failing: FailingFault | None = None
    heals: bool = False
    """Whether the rows that fail this way have succeeded when the batch has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The rows to run and how a provider words them; `undone_code` is for the rows after the first `n_done`."""

    provider: str
    batch_id: str
    input_path: Path
    output_path: Path
    error_path: Path
    created: int
    plan: RowPlan
    error_body: ErrorBody
    decorate: Decorate
    markers: Markers
    perform: answers.Perform
    row_error: RowError | None = None
    done_share: float = 1.0
    undone_code: str | None = None
    forget_done: bool = False

    def cut_short(self, done_share: float, undone_code: str | None, *, forget_done: bool) -> Job:
        """Return this job for a batch that ends before all of its rows have run."""
        return replace(self, done_share=done_share, undone_code=undone_code, forget_done=forget_done)

    def healed(self) -> Job:
        """Return this job with the rows that failed at first succeeding."""
        return replace(self, plan=replace(self.plan, failing=None, heals=False)) if self.plan.heals else self

    def elsewhere(self, output_path: Path, error_path: Path) -> Job:
        """Return this job with other result files."""
        return replace(self, output_path=output_path, error_path=error_path)


@dataclass(slots=True, kw_only=True)
class Executed:
    """The result of a run; rows that never ran count as failed.

    `failed_at` are the places of failed rows in the order of execution; `output_ends` and `error_ends` are the
    lengths in bytes of the result files after each place.
    """

    rows: list[ExecutedRow] = field(default_factory=list)
    failed_at: list[int] = field(default_factory=list)
    output_ends: array[int] = field(default_factory=lambda: array("Q"))
    error_ends: array[int] = field(default_factory=lambda: array("Q"))
    n_completed: int = 0
    n_failed: int = 0
    n_undone: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class _Row(msgspec.Struct, frozen=True):
    custom_id: str
    url: str
    body: msgspec.Raw


class _Reply(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    input_tokens: int = 0
    output_tokens: int = 0
    problem: tuple[int, str | None, str] | None = None


_row_decoder = msgspec.json.Decoder(_Row)
_encode = msgspec.json.encode


class _Quirks:
    """The places in the order of execution that each fault of the plan hits."""

    def __init__(self, plan: RowPlan, n_rows: int, rng: random.Random) -> None:
        places = rng.sample(range(n_rows), n_rows)
        self.of: dict[int, str] = {}
        hit = iter(places)
        for quirk, n in (
            ("missing", plan.n_lost),
            ("twice", plan.n_repeated),
            ("broken", plan.n_broken),
            ("zero", plan.n_zero),
            ("spoiled", plan.spoiled.n if plan.spoiled else 0),
            ("junk", _n_of(plan.junk, n_rows)),
            ("vllm", _n_of(plan.vllm, n_rows)),
        ):
            self.of.update((place, quirk) for _, place in zip(range(n), hit, strict=False))
        self.failing = set(places[::-1][: _n_of(plan.failing, n_rows)])


def _n_of(fault: FailingFault | JunkRows | None, n_rows: int) -> int:
    return 0 if fault is None else n_rows if fault.n is None else fault.n


def execute(job: Job, scan: Scan) -> Executed:
    """Run the first `done_share` of the rows and write both result files; rows keep their bodies on disk."""
    rng = random.Random(job.batch_id)  # noqa: S311 - repeatable, and no secret
    order = list(range(len(scan.starts)))
    if job.plan.shuffle:
        rng.shuffle(order)
    done = Executed()
    n_done = int(len(order) * job.done_share)
    quirks = _Quirks(job.plan, len(order), rng) if job.plan != RowPlan() else None
    with ExitStack() as stack:
        source = stack.enter_context(job.input_path.open("rb", buffering=0)).fileno()
        output = stack.enter_context(job.output_path.open("wb", buffering=1 << 18))
        errors = stack.enter_context(job.error_path.open("wb", buffering=1 << 18))
        writer = _Writer(job, output, errors)
        for place, index in enumerate(order):
            start = scan.starts[index]
            row = _row_decoder.decode(os.pread(source, scan.ends[index] - start, start))
            if place < n_done:
                _run(job, row, place, quirks, writer, done)
                done.output_ends.append(writer.n_output)
                done.error_ends.append(writer.n_errors)
            elif job.undone_code is not None:
                writer.undone(row, index, job.undone_code)
                done.n_failed += 1
                done.n_undone += 1
        for number in range(job.plan.n_stray):
            writer.stray(number)
    return done


def _run(job: Job, row: _Row, place: int, quirks: _Quirks | None, writer: _Writer, done: Executed) -> None:
    marker = job.markers.find(bytes(row.body), row.custom_id)
    quirk = quirks.of.get(place) if quirks else None
    failing = job.plan.failing if quirks and place in quirks.failing else None
    if failing is not None:
        reply = _refused(job, failing.status, failing.code, failing.message)
    elif marker is not None and marker.status is not None:
        reply = _refused(job, marker.status, None, "This request asked the sandbox to fail it.")
    elif quirk == "vllm" and job.plan.vllm is not None:
        reply = _refused(job, job.plan.vllm.status, job.plan.vllm.code, job.plan.vllm.message)
    else:
        reply = _answer(job, row)
        quirk = quirk or (marker.quirk if marker else None)
        if quirk == "junk" and job.plan.junk is not None:
            reply = _junk(job, job.plan.junk, row, reply)
    succeeded = 200 <= reply.status < 300
    cost = cost_usd(reply.input_tokens, reply.output_tokens, batch=True)
    done.rows.append(ExecutedRow(job.provider, job.batch_id, row.custom_id, reply.status, cost))
    if succeeded:
        done.n_completed += 1
        done.input_tokens += reply.input_tokens
        done.output_tokens += reply.output_tokens
    else:
        done.n_failed += 1
        done.failed_at.append(place)
    if not job.forget_done:
        writer.row(row, place, reply, quirk)


def _answer(job: Job, row: _Row) -> _Reply:
    found = job.perform(row.url, row.body, job.created)
    if isinstance(found, answers.Problem):
        return _refused(job, found.status, found.code, found.message)
    body = _encode(job.decorate(found, row.custom_id))
    return _Reply(200, body, found.input_tokens, found.output_tokens)


def _junk(job: Job, junk: JunkRows, row: _Row, reply: _Reply) -> _Reply:
    if junk.what == "text":
        return msgspec.structs.replace(reply, body=_encode(reply.body.decode()))
    if junk.what == "echo":
        return _Reply(200, bytes(row.body))
    if junk.what == "error":
        return _Reply(200, _encode(job.error_body(502, None, "The provider behind this one failed.", None)))
    error = {"code": "server_error", "message": "The model failed to answer."}
    said = {"id": "resp_failed", "object": "response", "status": "failed", "error": error, "output": []}
    return _Reply(200, _encode(said))


def _refused(job: Job, status: int, code: str | None, message: str) -> _Reply:
    body = _encode(job.error_body(status, code, message, None))
    return _Reply(status, body, problem=(status, code, message))


class _Writer:
    """Writes each result line to its file, output or error."""

    def __init__(self, job: Job, output: BinaryIO, errors: BinaryIO) -> None:
        self._output = output
        self._errors = errors
        self.n_output = 0
        self.n_errors = 0
        self._row_error = job.row_error
        self._spoiled = job.plan.spoiled
        self._vllm = job.plan.vllm
        self._mark = job.batch_id.rpartition("_")[2][:16].encode()

    def row(self, row: _Row, place: int, reply: _Reply, quirk: str | None) -> None:
        custom_id = _encode(row.custom_id)
        if quirk == "missing":
            return
        if quirk == "zero":
            self._write_error(self._line(custom_id, place, 0, b"", b"{}"))
            return
        if quirk == "vllm" and self._vllm is not None:
            self._write(self._vllm_line(self._vllm, custom_id))
            return
        spoiled = self._spoiled if quirk == "spoiled" else None
        if spoiled is not None:
            self._spoil(spoiled, row.custom_id)
            if not spoiled.stays:
                return
        if self._row_error is not None and reply.problem is not None:
            line = self._no_answer(custom_id, place, self._row_error(*reply.problem))
        else:
            line = self._line(custom_id, place, reply.status, b"req_%b%06x" % (self._mark, place), reply.body)
        if quirk == "broken":
            line = line[: len(line) // 2] + b"\n"
        write = self._write if 200 <= reply.status < 300 else self._write_error
        write(line)
        if quirk == "twice":
            write(line)

    def _spoil(self, spoiled: SpoilRows, custom_id: str) -> None:
        write = self._write if spoiled.file == "output" else self._write_error
        for line in spoiled.lines:
            write(line.replace("CUSTOM_ID", custom_id).encode("latin-1") + b"\n")

    def _vllm_line(self, vllm: VllmRows, custom_id: bytes) -> bytes:
        kind = "BadRequestError" if vllm.status < 500 else "InternalServerError"
        said = {"message": vllm.message, "type": kind, "param": None, "code": vllm.status}
        response = {"status_code": vllm.status, "request_id": "vllm-batch", "body": None}
        return b'{"id":"vllm-%b","custom_id":%b,"response":%b,"error":%b}\n' % (
            self._mark,
            custom_id,
            _encode(None if vllm.what == "number" else response),
            _encode(vllm.message if vllm.what == "text" else {"object": "error", **said}),
        )

    def undone(self, row: _Row, index: int, code: str) -> None:
        error = {"code": code, "message": _UNDONE[code]}
        self._write_error(self._no_answer(_encode(row.custom_id), index, error))

    def stray(self, number: int) -> None:
        self._write(self._line(b'"stray-%d"' % number, 0xF00000 + number, 200, b"req_stray", b"{}"))

    def _write(self, line: bytes) -> None:
        self.n_output += self._output.write(line)

    def _write_error(self, line: bytes) -> None:
        self.n_errors += self._errors.write(line)

    def _no_answer(self, custom_id: bytes, place: int, error: Mapping[str, Any]) -> bytes:
        return b'{"id":"batch_req_%b%06x","custom_id":%b,"response":null,"error":%b}\n' % (
            self._mark,
            place,
            custom_id,
            _encode(error),
        )

    def _line(self, custom_id: bytes, place: int, status: int, request_id: bytes, body: bytes) -> bytes:
        return (
            b'{"id":"batch_req_%b%06x","custom_id":%b,"response":{"status_code":%d,"request_id":"%b","body":%b},'
            b'"error":null}\n' % (self._mark, place, custom_id, status, request_id, body)
        )
