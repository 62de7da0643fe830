"""Every field of every control answer may hold anything: what comes of it is a look, or an error of ours, and short."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import httpx
import msgspec
import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker.dialects import fitted
from batchling_worker.dialects.google.vertex_job import Job
from batchling_worker.errors import WorkerError
from batchling_worker.provider import Ended, Look, NotFound, Running
from batchling_worker.providers import bedrock
from batchling_worker.sandbox import Sandbox

from .desk import Desk

WORD: Final = "w" * 1_000_000
VALUES: Final[dict[str, str]] = {
    "null": "null",
    "a bool": "true",
    "a huge number": "9" * 400,
    "a negative number": "-1",
    "2^63": str(2**63),
    "nan": "NaN",
    "infinite": "1e999",
    "a fraction": "0.5",
    "a long text": json.dumps(WORD),
    "an empty text": '""',
    "a list": "[1]",
    "an empty object": "{}",
    "an object": '{"id":{"id":[]},"message":{"a":1},"data":[[]]}',
    "lists in lists": "[" * 10_000 + "]" * 10_000,
    "objects in objects": '{"error":' * 900 + "1" + "}" * 900,
    "half of a pair": '"\\ud83d"',
    "many texts": json.dumps([{"message": WORD[:2_000], "code": WORD[:2_000]}] * 400),
    "many long texts": json.dumps({"data": [{"message": WORD, "code": WORD, "param": WORD, "line": 2**70}]}),
}
LONGEST: Final = 1_500_000
"""What a look may leave in Redis: complaints about a thousand rows, a kilobyte each."""
MARK: Final = '"\u2063"'


class Odd:
    """Passes on what the sandbox answers, with another value in one field."""

    def __init__(self) -> None:
        self.put = ""
        self.at = -1
        """The place of the field among all of the answer; -1 = nothing is replaced."""
        self.n_fields = 0

    def spoil(self, body: bytes) -> bytes:
        try:
            said = json.loads(body)
        except ValueError:
            return body
        places = list(_places(said))
        self.n_fields = max(self.n_fields, len(places))
        if not 0 <= self.at < len(places):
            return body
        return _replaced(said, places[self.at]).replace(MARK, self.put).encode("utf-8", "surrogatepass")


def _places(said: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all values, in the first element of a list alone."""
    if at:
        yield at
    if isinstance(said, dict):
        for name, value in said.items():
            yield from _places(value, (*at, name))
    elif isinstance(said, list) and said:
        yield from _places(said[0], (*at, 0))


def _replaced(said: Any, at: Sequence[str | int]) -> str:
    said = inner = copy.deepcopy(said)
    for step in at[:-1]:
        inner = inner[step]
    inner[at[-1]] = json.loads(MARK)
    return json.dumps(said, ensure_ascii=False)


@pytest.fixture
async def odd_desk(desk: Desk) -> Any:
    odd = Odd()
    real = desk.account.http

    async def passed_on(request: httpx.Request) -> httpx.Response:
        answer = await real.send(
            real.build_request(
                request.method, request.url, headers=request.headers, content=await request.aread()
            )
        )
        headers = {
            name: said
            for name, said in answer.headers.items()
            if name not in ("content-length", "content-encoding", "transfer-encoding")
        }
        body = odd.spoil(answer.content) if answer.is_success else answer.content
        return httpx.Response(answer.status_code, headers=headers, content=body)

    async with httpx.AsyncClient(transport=httpx.MockTransport(passed_on), timeout=real.timeout) as http:
        yield odd, replace(desk, account=replace(desk.account, http=http))


def size_of(look: Look) -> int:
    if isinstance(look, Running):
        n = 0 if look.early is None else len(msgspec.json.encode(look.early))
        return n + len(look.status)
    return len(look.status) + len(msgspec.json.encode(look.ending)) if isinstance(look, Ended) else 0


def hold(look: object) -> None:
    """The look is one, or an error of ours; it is bounded, and its numbers fit into JSON and Lua."""
    if isinstance(look, Exception):
        assert isinstance(look, WorkerError), repr(look)[:300]
        assert len(str(look)) < 2_000
        return
    assert isinstance(look, Running | Ended | NotFound)
    assert size_of(look) <= LONGEST
    if not isinstance(look, (Running, Ended)):
        return
    assert 0 <= look.n_done <= 10**12
    assert 0 <= look.n_total <= 10**12
    if look.other is not None:
        assert len(look.other.provider_batch_id) + len(look.other.label) <= 2_100


# AWS answers through its own library; see below.
@pytest.mark.long
@pytest.mark.parametrize("value", VALUES)
async def test_no_field_of_an_answer_brings_out_another_error_or_an_unbounded_word(
    odd_desk: tuple[Odd, Desk], sandbox: Sandbox, value: str
) -> None:
    odd, desk = odd_desk
    if desk.provider.facts.name == "bedrock":
        pytest.skip("its answers are read by its library")
    began = dt.datetime.fromtimestamp(sandbox.clock.now(), dt.UTC)
    batches = [await desk.submit(label=f"batchling-test-{n}") for n in range(4)]
    sandbox.clock.advance(60.0)
    odd.put = VALUES[value]
    for asked in (batches[:1], batches):
        odd.at, odd.n_fields = -1, 0
        await desk.provider.look(desk.account, asked)
        for at in range(odd.n_fields):
            odd.at = at
            try:
                seen = await desk.provider.look(desk.account, asked)
            except WorkerError as error:
                hold(error)
            else:
                for one in seen.values():
                    hold(one)
    odd.at = -1
    n = len(batches)
    file = await desk.upload(label="batchling-test-9")
    for at in range(12):
        odd.at = at
        calls = (
            desk.upload(label=f"batchling-test-u{odd.at}"),
            desk.create(file, label=f"batchling-test-c{odd.at}"),
            desk.provider.cancel(desk.account, ProviderBatchId(batches[0])),
            desk.find(since=began, ours=("r0",)),
        )
        for call in calls:
            with contextlib.suppress(WorkerError):
                told = await call
                assert told is None or len(str(told)) <= 1_100 * (n + 40)


JOBS: Final = {
    "jobArn": "arn:aws:bedrock:us-east-1:1:model-invocation-job/1",
    "status": "Completed",
    "message": "m",
    "processedRecordCount": 1,
    "totalRecordCount": 1,
    "successRecordCount": 1,
    "errorRecordCount": 0,
    "endTime": "2026-01-01T00:00:00Z",
    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://b/o/"}},
}
ODD: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    10**400,
    float("nan"),
    float("inf"),
    WORD,
    [[]],
    {"a": WORD},
    b"",
    2**63,
)


@pytest.mark.parametrize("field", JOBS)
@pytest.mark.parametrize("status", ["Completed", "Failed", "InProgress", "Strange"])
def test_no_field_of_a_job_of_bedrock_brings_out_an_error_or_an_unbounded_word(
    field: str, status: str
) -> None:
    for value in ODD:
        hold(fitted.seen(bedrock._told({**JOBS, "status": status, field: value})))


@pytest.mark.parametrize("field", Job.__struct_fields__)
@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "RUNNING", "STRANGE"])
def test_no_field_of_a_job_of_vertex_brings_out_an_error_or_an_unbounded_word(field: str, state: str) -> None:
    for value in ODD:
        job = Job(state=f"JOB_STATE_{state}", error={"code": 3, "message": "m"})
        hold(fitted.seen(msgspec.structs.replace(job, **{field: value}).look()))
