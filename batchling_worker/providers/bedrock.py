"""AWS Bedrock's batch inference: jobs over files in S3, through the official library.

A caller's signature is valid for its own call only. So workers pay for a batch with a credential from the settings:
that of their own environment, or an API key of the form `ACCESS_KEY_ID:SECRET_ACCESS_KEY`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, BinaryIO, Final, TypeVar

import msgspec

from batchling_client.wire import answer_shape
from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.routes import route_of
from batchling_client.wire.states import Outcome

from ..decisions import status_words
from ..dialects import aws, bounds, creates, staging
from ..dialects.aws import Place
from ..dialects.http_errors import CallInfo
from ..dialects.lenient_json import object_in, text_in
from ..dialects.list_search import SearchPage, pages
from ..dialects.poll_many import BatchList, Hint, ListPage, looked_at
from ..dialects.provider_call import known
from ..dialects.result_file import of_each, rows_in
from ..dialects.result_lines import Fields, LineReader
from ..dialects.row_answers import JSON_HEADERS, answer_or_lost, lost
from ..dialects.row_errors import EMPTY_BODIES, RowError, stated_in
from ..errors import PermanentError
from ..provider import (
    Account,
    Answer,
    Complaint,
    Ended,
    Ending,
    Look,
    NotFound,
    Other,
    ProviderFacts,
    Running,
    SearchCriteria,
    Seen,
    Source,
    SpentFiles,
    Submission,
    is_ours,
    shown_as,
)

T = TypeVar("T")

FACTS: Final = ProviderFacts(
    route=route_of("bedrock"),
    base_url="https://bedrock-runtime.us-east-1.amazonaws.com",
    looks_at_once=1_000,
    searchable=True,
    early_results=False,
    discount_percent=50,
    source="https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference.html",
    checked_on=dt.date(2026, 11, 23),
    own_credential=True,
    model_in_path=True,
    verified=("SDK", "docs"),
)

KINDS: Final = {
    "/invoke": "InvokeModel",
    "/converse": "Converse",
    "/openai/v1/chat/completions": "InvokeModel",
}
"""Endpoint -> how a job invokes its model. OpenAI's models are invoked with the body of a chat completion."""
OUTCOMES: Final = {
    "Completed": Outcome.COMPLETED,
    # Records that it did not get to in time are in no file: they count as expired.
    "PartiallyCompleted": Outcome.EXPIRED,
    "Expired": Outcome.EXPIRED,
    "Stopped": Outcome.CANCELLED,
    "Failed": Outcome.FAILED,
}
NOTHING_TO_STOP: Final = frozenset({400, 404, 409})
UNKNOWN_JOB: Final = frozenset({400, 404})
RUNTIME: Final = re.compile(
    r"https://bedrock(?:-runtime)?(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)\."
    r"(?:(?P<dual>api\.[a-z0-9.-]+)|[a-z0-9.-]+)"
)
"""An AWS host that calls go to; jobs are created in its region, over the same kind of endpoint."""
RESULTS: Final = ".jsonl.out"
STATUSES: Final = {
    "ModelTimeoutException": 408,
    "ThrottlingException": 429,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "InternalServerException": 500,
    "ModelErrorException": 424,
    "ServiceUnavailableException": 503,
}


class Bedrock:
    """The port, on Bedrock's CreateModelInvocationJob."""

    facts = FACTS

    def line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """Return one request as a record of the input file."""
        return b'{"recordId":%b,"modelInput":%b}\n' % (msgspec.json.encode(custom_id), body.strip())

    async def upload(self, account: Account, submission: Submission, lines: BinaryIO) -> str:
        """Store the input file in S3 under its label; return its URL, which is the same if it is stored again."""
        place = _within(account, str(_staging(account).below(submission.label, "input.jsonl")))
        s3 = _s3(account)
        await aws.store(account, _call_info(account, "store a file"), s3, place, lines)
        return str(place)

    async def create(self, account: Account, submission: Submission, source: Source) -> ProviderBatchId:
        """Create the job, with a token by which AWS recognizes a repeated create and makes no second job."""
        name = _name(submission.label)
        output = _within(account, str(_staging(account).below(submission.label, "output")))
        wish = {
            "jobName": name,
            "clientRequestToken": name,
            "roleArn": _role(account),
            "modelId": submission.model,
            "modelInvocationType": KINDS[submission.endpoint],
            "inputDataConfig": {
                "s3InputDataConfig": {
                    "s3Uri": str(_within(account, source.file_id)),
                    "s3InputFormat": "JSONL",
                }
            },
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"{output}/"}},
            "timeoutDurationInHours": int(submission.completion_window.removesuffix("h")),
        }
        bedrock = _bedrock(account)
        call_info = _call_info(account, "create a batch", paid=True)
        made = await self._call(
            account,
            call_info,
            lambda: bedrock.create_model_invocation_job(**wish),
        )
        # The SDK reads a truncated answer as an answer without fields.
        return creates.made(
            call_info, Other(provider_batch_id=bounds.identifier(made.get("jobArn"))), submission.label
        )

    async def find(self, account: Account, criteria: SearchCriteria) -> Sequence[ProviderBatchId]:
        """Return the job with the submission's name: there is at most one."""
        label = criteria.submission.label
        name = _name(label)

        async def read(token: str) -> SearchPage[dict[str, Any]]:
            return SearchPage(*await self._page(account, "search its batches", token, nameContains=name))

        listed = pages(read, provider=FACTS.name, label=label)
        async with contextlib.aclosing(listed):
            async for page in listed:
                found = [one["jobArn"] for one in page.batches if one.get("jobName") == name]
                if found:
                    return [ProviderBatchId(one) for one in found]
        return []

    async def look(
        self, account: Account, provider_batch_ids: Sequence[ProviderBatchId]
    ) -> Mapping[ProviderBatchId, Seen]:
        """Return the state of each job, from the list if there are several."""
        batches = BatchList(
            name="jobs", ids=provider_batch_ids, page=lambda token: self._list_page(account, token)
        )
        return await looked_at(
            account, provider_batch_ids, lists=[batches], at_one=lambda one: self._look_at(account, one)
        )

    async def results(self, account: Account, ending: Ending) -> AsyncGenerator[Answer, None]:
        """Yield every readable record of every output file; memory is that of the longest record."""
        s3 = _s3(account)
        for url in ending.results:
            place = _within(account, url)
            keys = await self._keys(account, _call_info(account, "list result files"), s3, place)
            files = [key for key in keys if key.endswith(RESULTS)]
            read = functools.partial(_rows, account, s3, place.bucket)
            async with contextlib.aclosing(of_each(files, read)) as answers:
                async for answer in answers:
                    yield answer

    async def delete(self, account: Account, spent: SpentFiles) -> None:
        """Delete objects in S3: input files, and everything below the outputs of the job."""
        s3, call_info, own = _s3(account), _call_info(account, "delete a file"), _staging(account)
        places = [_within(account, one) for one in spent.inputs]
        for url in spent.results:
            one = _within(account, url)
            keys = await self._keys(account, call_info, s3, one)
            places += [Place(bucket=one.bucket, key=key) for key in keys]
        for place in places:
            if is_ours(place.key, own.key):
                await self._call(account, call_info, functools.partial(aws.delete, s3, place))

    async def cancel(self, account: Account, provider_batch_id: ProviderBatchId) -> None:
        """Ask to stop the job; succeed if it has ended or is unknown."""
        bedrock = _bedrock(account)
        try:
            await self._call(
                account,
                _call_info(account, "cancel a batch"),
                lambda: bedrock.stop_model_invocation_job(jobIdentifier=provider_batch_id),
            )
        except PermanentError as error:
            if error.status not in NOTHING_TO_STOP:
                raise

    async def _keys(self, account: Account, call_info: CallInfo, s3: Any, place: Place) -> list[str]:
        """Return the keys of the objects that are really below a place."""
        keys = await self._call(account, call_info, functools.partial(aws.keys_below, s3, place))
        return [key for key in keys if staging.is_below(place.bucket, key, place.bucket, place.key)]

    async def _call(self, account: Account, call_info: CallInfo, work: Callable[[], T]) -> T:
        return await aws.call(account, call_info, work)

    async def _look_at(self, account: Account, provider_batch_id: ProviderBatchId) -> Look:
        bedrock = _bedrock(account)
        look = self._call(
            account,
            _call_info(account, "look at a batch"),
            lambda: bedrock.get_model_invocation_job(jobIdentifier=provider_batch_id),
        )
        job = await known(look, UNKNOWN_JOB)
        if job is None:
            return NotFound()
        other = Other(provider_batch_id=bounds.identifier(job.get("jobArn")))
        return shown_as(_told(job), provider_batch_id, other)

    async def _page(
        self, account: Account, does: str, token: str, **wanted: str
    ) -> tuple[list[dict[str, Any]], str]:
        """Return summaries of jobs, the newest first, and the token of the page after them, or ''."""
        bedrock, more = _bedrock(account), {"nextToken": token} if token else {}
        page = await self._call(
            account,
            _call_info(account, does),
            lambda: bedrock.list_model_invocation_jobs(
                maxResults=1000, sortBy="CreationTime", sortOrder="Descending", **wanted, **more
            ),
        )
        jobs = [one for one in page.get("invocationJobSummaries", ()) if bounds.identifier(one.get("jobArn"))]
        return jobs, bounds.cursor(page.get("nextToken"))

    async def _list_page(self, account: Account, token: str) -> ListPage:
        jobs, following = await self._page(account, "look at batches", token)
        return ListPage(hints=[Hint.of(one["jobArn"], _told(one)) for one in jobs], following=following)


def _name(label: str) -> str:
    return label.replace("_", "-")


def _role(account: Account) -> str:
    if not account.role_arn:
        raise PermanentError(
            "Bedrock reads its input from S3 as a role of yours: give workers BATCHLING_PROVIDERS__BEDROCK__ROLE_ARN."
        )
    return account.role_arn


def _staging(account: Account) -> Place:
    if not account.staging:
        raise PermanentError(
            "Bedrock needs files in S3: set the workers' BATCHLING_PROVIDERS__BEDROCK__STAGING=s3://BUCKET/PREFIX."
        )
    return Place.read(account.staging)


def _within(account: Account, url: str) -> Place:
    """Return the place that a URL names; raises `PermanentError` unless it lies below the staging place."""
    own, place = _staging(account), Place.read(url)
    if not staging.is_below(place.bucket, place.key, own.bucket, own.key):
        raise staging.refusal(account, FACTS.name, url)
    return place


def _keys(account: Account) -> aws.Keys:
    said = account.headers.get("x-aws-credentials")
    return aws.Keys.read(said) if said is not None else aws.Keys()


def _call_info(account: Account, does: str, *, paid: bool = False) -> CallInfo:
    return CallInfo(provider=FACTS.name, does=does, paid=paid, secrets=_keys(account).secrets)


def _client(account: Account, service: str, endpoint: str) -> Any:
    if "x-aws-credentials" not in account.headers and not account.own_credential:
        raise PermanentError(
            "A signed call to Bedrock is good for itself alone: to have it batched, give workers "
            "BATCHLING_PROVIDERS__BEDROCK__OWN_CREDENTIAL=true, or a key in BATCHLING_PROVIDERS__BEDROCK__API_KEY.",
            status=401,
        )
    keys = _keys(account)
    runtime = RUNTIME.fullmatch(account.base_url)
    if runtime is None:
        return aws.client(service, "us-east-1", endpoint, keys, _silence_s(account))
    return aws.client(
        service,
        runtime["region"],
        endpoint,
        keys,
        _silence_s(account),
        fips=runtime["fips"] is not None,
        dual_stack=runtime["dual"] is not None,
    )


def _bedrock(account: Account) -> Any:
    # Calls go to the runtime's host; jobs are created at the host beside it.
    return _client(account, "bedrock", "" if RUNTIME.fullmatch(account.base_url) else account.base_url)


def _s3(account: Account) -> Any:
    return _client(account, "s3", account.staging_url)


def _silence_s(account: Account) -> float:
    return account.http.timeout.read or 120.0


def _told(job: Mapping[str, Any]) -> Running | Ended:
    word = bounds.text(job.get("status"))
    n_done, n_total = bounds.count(job.get("processedRecordCount")), bounds.count(job.get("totalRecordCount"))
    outcome = OUTCOMES.get(word) or status_words.outcome_of(word)
    if outcome is None and not status_words.is_running(word) and job.get("endTime"):
        outcome = Outcome.FAILED if job.get("message") else Outcome.COMPLETED
    if outcome is Outcome.COMPLETED and job.get("message") and job.get("processedRecordCount") == 0:
        outcome = Outcome.FAILED
    if outcome is None:
        return Running(status=word or "unknown", n_done=n_done, n_total=n_total)
    output = _output_of(job)
    message = bounds.text(job.get("message"))
    failed = outcome is Outcome.FAILED
    ending = Ending(
        results=(f"{output.rstrip('/')}/",) if output and (n_done or not failed) else (),
        complaints=(Complaint(code="job_failed", message=message or "The job failed."),) if failed else (),
        n_succeeded=_n_succeeded(job, outcome, n_total),
    )
    return Ended(status=word, outcome=outcome, ending=ending, n_done=n_done, n_total=n_total)


def _output_of(job: Mapping[str, Any]) -> str:
    """Return the URL of the job's output, '' if it names none."""
    said: object = job
    for name in ("outputDataConfig", "s3OutputDataConfig", "s3Uri"):
        said = said.get(name) if isinstance(said, dict) else None
    return bounds.identifier(said)


def _n_succeeded(job: Mapping[str, Any], outcome: Outcome, n_total: int) -> int | None:
    """Return how many records were answered; None if counts are absent or lag behind the end."""
    n_succeeded, n_failed = (
        bounds.count(job.get("successRecordCount")),
        bounds.count(job.get("errorRecordCount")),
    )
    if not n_total or not bounds.is_count(job.get("successRecordCount")):
        return None
    lags = outcome is Outcome.COMPLETED and not n_succeeded and n_failed < n_total
    return None if lags else n_succeeded


def _rows(account: Account, s3: Any, bucket: str, key: str) -> AsyncGenerator[Answer, None]:
    pieces = aws.pieces(account, _call_info(account, "read results"), s3, bucket, key)
    return rows_in(pieces, FACTS.name, key, reader(), account.longest_answer_bytes)


def reader() -> LineReader:
    """Return a reader of the records of an output file."""
    return LineReader(read=_answer, id_of=_record_id)


def _record_id(row: Fields) -> str:
    return text_in(row.get("recordId", b""))


def _answer(custom_id: str, row: Fields) -> Answer:
    output = answer_shape.unpacked(row.get("modelOutput", b""))
    is_alone = row.get("error", b"null") in EMPTY_BODIES and output not in (b"", b"null")
    if is_alone or answer_shape.is_plausible(output):
        return answer_or_lost(custom_id, output)
    error = _error_in(row)
    return _failed(custom_id, error) if error else lost(custom_id)


def _error_in(row: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return the error of a record as AWS spells it, wherever the record states it."""
    own = {name: row[name] for name in ("errorCode", "errorMessage") if name in row}
    said = stated_in(row)
    if own and not said:
        return own
    fields = object_in(said)
    if "errorCode" in fields or "errorMessage" in fields:
        return fields
    error = RowError.read(said)
    if error is None:
        return {}
    code = str(error.status or error.code)
    spelt = code.encode() if code.isdigit() else msgspec.json.encode(code)
    return {"errorCode": spelt, "errorMessage": msgspec.json.encode(error.message)}


def _failed(custom_id: str, error: Mapping[str, bytes]) -> Answer:
    said = error.get("errorCode", b"")
    code = said.decode() if said.isdigit() else text_in(said)
    status = bounds.http_status(code) if code.isdigit() else STATUSES.get(code, 400)
    kind = "ValidationException" if code.isdigit() and status == 400 else code
    headers = {**JSON_HEADERS, "x-amzn-errortype": kind} if kind and kind.isalnum() else JSON_HEADERS
    body = msgspec.json.encode({"message": text_in(error.get("errorMessage", b"")) or code})
    return Answer(
        custom_id=custom_id, status=status if 400 <= status < 600 else 500, body=body, headers=headers
    )


PROVIDER: Final = Bedrock()
