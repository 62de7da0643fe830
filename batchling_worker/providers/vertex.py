"""Vertex AI's batch prediction jobs: files in the caller's Cloud Storage, by its official library.

A caller's OAuth token is good for an hour and a job may take a day, so workers should have a credential of their own
(`OWN_CREDENTIAL` in their settings); without one the caller's is used for as long as it lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import functools
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import quote

import msgspec

from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.route import WORDS
from batchling_client.wire.routes import route_of

from ..dialects import creates, http_errors, staging
from ..dialects.google import result_rows, rpc_status
from ..dialects.google.cloud_storage import Found, Objects, OwnCredential, Place, answered
from ..dialects.google.vertex_job import Job, JobPage
from ..dialects.http_errors import CallInfo
from ..dialects.lenient_json import text_in, value_in
from ..dialects.list_search import SearchPage, pages
from ..dialects.poll_many import BatchList, Hint, ListPage, looked_at, one_look
from ..dialects.provider_call import ProviderCall
from ..dialects.request_line import digest_of
from ..dialects.result_file import of_each, rows_in
from ..dialects.result_lines import Fields, LineReader
from ..errors import Denied, PermanentError
from ..provider import (
    Account,
    Answer,
    Ending,
    Look,
    ProviderFacts,
    SearchCriteria,
    Seen,
    Source,
    SpentFiles,
    Submission,
    is_ours,
)

FACTS: Final = ProviderFacts(
    route=route_of("vertex"),
    looks_at_once=100,
    searchable=True,
    early_results=True,
    discount_percent=50,
    source="https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini",
    checked_on=dt.date(2026, 11, 23),
    own_credential=True,
    model_in_path=True,
    verified=("docs", "SDK"),
)

USUAL_VERSION: Final = "v1beta1"
"""The version of google-genai; the id of a job of another version names the version to look at."""
PAGE_SIZE: Final = "100"
STATUSES: Final = {
    "bad request": 400,
    "invalid": 400,
    "unauthenticated": 401,
    "permission": 403,
    "not found": 404,
    "too many": 429,
    "exhausted": 429,
    "quota": 429,
    "deadline": 504,
    "unavailable": 503,
    "cancelled": 499,
}
"""Words at the beginning of the `status` of a failed row, used if no JSON follows them."""

_own = OwnCredential()
_ENDPOINT: Final = re.compile(
    rf"/(?P<version>{WORDS['version']})"
    rf"/(?P<parent>projects/{WORDS['project']}/locations/{WORDS['location']}):(?P<verb>\w+)"
)


class _Where(NamedTuple):
    """The parts of an endpoint: version, and the project and location that own the jobs."""

    version: str
    parent: str

    @classmethod
    def of(cls, endpoint: str) -> _Where:
        found = _ENDPOINT.fullmatch(endpoint)
        if found is None:
            raise PermanentError(f"{endpoint!r} is not an endpoint of Vertex AI.")
        return cls(found["version"], found["parent"])

    @classmethod
    def holding(cls, provider_batch_id: str) -> _Where:
        """Return the place of a job, from its id."""
        version, projects, rest = provider_batch_id.rpartition("projects/")
        return cls(
            version.rstrip("/") or USUAL_VERSION, f"{projects}{rest}".partition("/batchPredictionJobs")[0]
        )

    @property
    def jobs(self) -> str:
        """The path of the jobs in this place."""
        return f"/{quote(self.version, safe='')}/{quote(self.parent)}/batchPredictionJobs"


class Vertex:
    """Vertex AI as a provider of batches."""

    facts: Final = FACTS

    def line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """Return one request as a line of the input file; Vertex echoes fields beside `request`, custom_id included."""
        return b'{"custom_id":%b,"request":%b}\n' % (msgspec.json.encode(custom_id), body)

    async def upload(self, account: Account, submission: Submission, lines: BinaryIO) -> str:
        """Store the input file under its label and content; return its URL, which is the same if it is stored again."""
        account = await self._opened(account)
        digest, size = await asyncio.to_thread(digest_of, lines)
        place = self._within(account, str(self._staging(account).below(submission.label, f"{digest}.jsonl")))
        await self._objects(account).upload(place, lines, size)
        return str(place)

    async def create(self, account: Account, submission: Submission, source: Source) -> ProviderBatchId:
        """Create the job, with an output prefix of its own: jobs that share a prefix overwrite each other."""
        account = await self._opened(account)
        where = _Where.of(submission.endpoint)
        input_file = self._within(account, source.file_id)
        call = self._call(account, "create a batch", "POST", where.jobs, paid=True)
        prefix = self._within(account, str(self._staging(account).below(submission.label, "output")))
        wish = {
            "displayName": submission.label,
            "model": f"publishers/google/models/{submission.model}",
            "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [str(input_file)]}},
            "outputConfig": {
                "predictionsFormat": "jsonl",
                "gcsDestination": {"outputUriPrefix": str(prefix)},
            },
        }
        with creates.refusals(account, over_quota=rpc_status.speaks_of_quota):
            job = await call.tell(Job, wish)
        return _provider_batch_id(where.version, creates.made(call.call_info, job.named, submission.label))

    async def find(self, account: Account, criteria: SearchCriteria) -> list[ProviderBatchId]:
        """Return the jobs with the submission's name, by which the location's list can be filtered."""
        account = await self._opened(account)
        where, label = _Where.of(criteria.submission.endpoint), criteria.submission.label

        async def read(token: str) -> SearchPage[Job]:
            page = await self._page(account, "search its batches", where, token, f'display_name="{label}"')
            return SearchPage(page.jobs, page.next_token)

        found = [
            (job.made, _provider_batch_id(where.version, job.known_name))
            async for page in pages(read, provider=self.facts.name, label=label)
            for job in page.batches
            if job.displayName == label
        ]
        return [one for _, one in sorted(found)]

    async def look(
        self, account: Account, provider_batch_ids: Sequence[ProviderBatchId]
    ) -> Mapping[ProviderBatchId, Seen]:
        """Return the state of each job, from one list per location if there are several."""
        account = await self._opened(account)
        by_place: dict[_Where, list[ProviderBatchId]] = {}
        for one in provider_batch_ids:
            if "projects/" in one:
                by_place.setdefault(_Where.holding(one), []).append(one)
        lists = [
            BatchList(name=where.jobs, ids=ids, page=functools.partial(self._list_page, account, where))
            for where, ids in by_place.items()
        ]
        return await looked_at(
            account, provider_batch_ids, lists=lists, at_one=lambda one: self._look_at(account, one)
        )

    async def results(self, account: Account, ending: Ending) -> AsyncGenerator[Answer, None]:
        """Yield each readable row of each shard of the job's output; memory is that of a chunk and the longest row."""
        account = await self._opened(account)
        objects = self._objects(account)
        for one in ending.results:
            listed = await self._below(account, objects, self._within(account, one))
            shards = [found for found in listed if _is_shard(found.name)]
            if not shards:
                raise Denied(f"{self.facts.name}: there is nothing in {one} yet")
            read = functools.partial(self._rows, objects, account.longest_answer_bytes)
            async with contextlib.aclosing(of_each(shards, read)) as rows:
                async for answer in rows:
                    yield answer

    async def delete(self, account: Account, spent: SpentFiles) -> None:
        """Delete objects in Cloud Storage: input files, and everything below the outputs of the job."""
        account = await self._opened(account)
        objects = self._objects(account)
        own = self._staging(account)
        places = [self._within(account, one) for one in spent.inputs]
        for one in spent.results:
            listed = await self._below(account, objects, self._within(account, one))
            places += [Place(found.bucket, found.name) for found in listed]
        for place in places:
            if is_ours(place.name, own.name):
                await objects.delete(place)

    async def cancel(self, account: Account, provider_batch_id: ProviderBatchId) -> None:
        """Ask the provider to cancel; succeed if the batch is done or unknown."""
        account = await self._opened(account)
        await self._call(account, "cancel a batch", "POST", f"{_path(provider_batch_id)}:cancel").cancel()

    def _call(
        self, account: Account, does: str, method: str, path: str, *, paid: bool = False
    ) -> ProviderCall:
        return ProviderCall(account, self.facts.name, does, method, path, paid=paid)

    async def _opened(self, account: Account) -> Account:
        """Return the account, with the worker's own token if the worker's credential is used."""
        if not account.own_credential:
            return account
        call_info = CallInfo(provider=self.facts.name, does="get a token")
        token = await answered(account, call_info, lambda _: _own.token(), short=False)
        return dataclasses.replace(account, headers={**account.headers, "authorization": f"Bearer {token}"})

    def _objects(self, account: Account) -> Objects:
        token = account.headers.get("authorization", "").removeprefix("Bearer ").strip()
        return Objects(account, self.facts.name, token)

    def _staging(self, account: Account) -> Place:
        if not account.staging:
            raise PermanentError(
                "Batches of Vertex are made of files in Cloud Storage: give batchify a vertex_gcs_prefix, or workers "
                "BATCHLING_PROVIDERS__VERTEX__STAGING."
            )
        return Place.read(account.staging)

    def _within(self, account: Account, url: str) -> Place:
        """Return the place that a URL names; raises `PermanentError` unless it lies below the staging place."""
        own, place = self._staging(account), Place.read(url)
        if not staging.is_below(place.bucket, place.name, own.bucket, own.name):
            raise staging.refusal(account, self.facts.name, url)
        return place

    async def _below(self, account: Account, objects: Objects, place: Place) -> list[Found]:
        """Return the objects of a place that are really below it."""
        return [
            found
            for found in await objects.below(place)
            if staging.is_below(found.bucket, found.name, place.bucket, place.name)
        ]

    def _rows(self, objects: Objects, longest: int, shard: Found) -> AsyncGenerator[Answer, None]:
        return rows_in(objects.pieces(shard), self.facts.name, shard.name, reader(), longest)

    async def _page(
        self, account: Account, does: str, where: _Where, token: str, wanted: str = ""
    ) -> JobPage:
        query = [("pageSize", PAGE_SIZE)]
        query += [("filter", wanted)] if wanted else []
        query += [("pageToken", token)] if token else []
        call = self._call(account, does, "GET", where.jobs)
        page = await call.ask_list(JobPage, query)
        if page.error is not None:
            raise http_errors.of_unreadable(call.call_info)
        return page

    async def _list_page(self, account: Account, where: _Where, token: str) -> ListPage:
        page = await self._page(account, "look at batches", where, token)
        hints = [Hint.of(_provider_batch_id(where.version, job.known_name), job.look()) for job in page.jobs]
        return ListPage(hints=hints, following=page.next_token)

    async def _look_at(self, account: Account, provider_batch_id: ProviderBatchId) -> Look:
        call = self._call(account, "look at a batch", "GET", _path(provider_batch_id))
        return await one_look(
            call,
            call.ask(Job),
            provider_batch_id,
            lambda job: (job.look(), job.named) if job.known_name else None,
        )


def _provider_batch_id(version: str, name: str) -> ProviderBatchId:
    return ProviderBatchId(name if version == USUAL_VERSION else f"{version}/{name}")


def _path(provider_batch_id: str) -> str:
    version, projects, rest = provider_batch_id.rpartition("projects/")
    return f"/{quote(version.rstrip('/') or USUAL_VERSION, safe='')}/{projects}{quote(rest)}"


def _is_shard(name: str) -> bool:
    return name.rpartition("/")[2].startswith(("predictions", "errors"))


def reader() -> LineReader:
    """Return a reader of the rows of an output file."""
    return LineReader(read=_answer)


def _answer(custom_id: str, row: Fields) -> Answer:
    status = text_in(row.get("status", b""))
    error = _error_in(status) if status else value_in(row.get("status"))
    if not isinstance(error, dict) or not error:
        error = result_rows.stated(row)
    # A row that the job did not get to holds only its request.
    return result_rows.told(custom_id, row.get("response", b""), error)


def _error_in(status: str) -> dict[str, object]:
    """Return the error in a text such as `Bad Request: {"error": {...}}`."""
    words, brace, rest = status.partition("{")
    said = value_in(f"{brace}{rest}".encode("utf-8", "replace")) if brace else None
    error = said.get("error", said) if isinstance(said, dict) else None
    if isinstance(error, dict) and "code" in error:
        return error
    code = next((code for word, code in STATUSES.items() if word in words.lower()), 500)
    return {"code": code, "message": status[: rpc_status.LONGEST_MESSAGE]}


PROVIDER: Final = Vertex()
