"""The batches of the Gemini API: long-running operations over uploaded files of lines.

A batch is always made of a file, however small: the upload of a name that its content makes is done once whatever
dies in between, and one way in and out is half the code of two.
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
from urllib.parse import quote, urlsplit

import msgspec

from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.route import WORDS
from batchling_client.wire.routes import route_of

from ..dialects import bounds, creates, http_errors
from ..dialects.google import result_rows, rpc_status
from ..dialects.google.operation import Operation, OperationPage
from ..dialects.lenient_json import text_in, value_in
from ..dialects.list_search import SearchPage, made_since
from ..dialects.poll_many import BatchList, Hint, ListPage, looked_at, one_look
from ..dialects.provider_call import ProviderCall, known
from ..dialects.request_line import digest_of
from ..dialects.result_file import of_each, rows_of
from ..dialects.result_lines import Fields, LineReader
from ..dialects.row_search import found_by_rows
from ..errors import PermanentError, TemporaryError
from ..provider import (
    Account,
    Answer,
    Ended,
    Ending,
    Look,
    Other,
    ProviderFacts,
    Running,
    SearchCriteria,
    Seen,
    Source,
    SpentFiles,
    Submission,
)

FACTS: Final = ProviderFacts(
    route=route_of("gemini"),
    looks_at_once=100,
    searchable=True,
    early_results=False,
    discount_percent=50,
    source="https://ai.google.dev/gemini-api/docs/batch-api",
    checked_on=dt.date(2026, 11, 23),
    model_in_path=True,
    verified=("docs", "capture", "SDK"),
)

USUAL_VERSION: Final = "v1"
"""The version of google-genai from 3.0 on; the id of a batch of another version names the version to look at."""
MANY_CONTENTS: Final = "batchEmbedContents"
BATCH_VERBS: Final = {
    "generateContent": "batchGenerateContent",
    "embedContent": "asyncBatchEmbedContent",
    MANY_CONTENTS: "asyncBatchEmbedContent",
}
GONE: Final = frozenset({403, 404})
UNSEEN_FILE: Final = frozenset({400, 403, 404})
"""Google answers 403 for a file that it does not see yet."""
CHUNK_BYTES: Final = 8 * 1024 * 1024
"""The chunk size of the SDK; the protocol asks for multiples of 256 KiB."""
PAGE_SIZE: Final = "100"

_ENDPOINT: Final = re.compile(
    rf"/(?P<version>{WORDS['version']})/(?P<models>\w+):(?P<verb>{'|'.join(BATCH_VERBS)})"
)


class _Place(NamedTuple):
    """The parts of an endpoint: version, kind of models, and verb."""

    version: str
    models: str
    verb: str

    @classmethod
    def of(cls, endpoint: str) -> _Place:
        """Parse an endpoint such as `/v1/models:generateContent`; raises `PermanentError`."""
        found = _ENDPOINT.fullmatch(endpoint)
        if found is None:
            raise PermanentError(f"{endpoint!r} is not an endpoint of the Gemini API.")
        return cls(found["version"], found["models"], found["verb"])


class _File(msgspec.Struct, frozen=True, rename="camel"):
    name: object = None
    state: object = None


class _Uploaded(msgspec.Struct, frozen=True):
    file: _File = _File()


class _ManyContents(msgspec.Struct):
    requests: list[msgspec.Raw]


_decode_contents: Final = msgspec.json.Decoder(_ManyContents).decode


class Gemini:
    """The Gemini API as a provider of batches."""

    facts: Final = FACTS

    def line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """Return one request as a line of the input file; a request that embeds many contents becomes a line for each.

        A batch embeds one content per line; the answers to one call are joined again when they are read.
        """
        if endpoint.endswith(f":{MANY_CONTENTS}"):
            contents = _contents(body)
            if contents:
                names = (result_rows.part_name(custom_id, at, len(contents)) for at in range(len(contents)))
                return b"".join(_line(name, bytes(one)) for name, one in zip(names, contents, strict=True))
        return _line(custom_id, body)

    async def upload(self, account: Account, submission: Submission, lines: BinaryIO) -> str:
        """Store the input file under a name derived from label and content; use the file that already has this name."""
        version = _Place.of(submission.endpoint).version
        file = await asyncio.to_thread(_named, submission.label, lines)
        start = self._call(account, "store a file", "POST", f"/upload/{version}/files")
        wish = {"name": file.name, "displayName": submission.label, "mimeType": "application/jsonl"}
        headers = {
            "content-type": "application/json",
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": str(file.size),
            "x-goog-upload-header-content-type": "application/jsonl",
        }
        reply = await start.exchange(msgspec.json.encode({"file": wish}), headers, fine=frozenset({409}))
        if reply.status == 409:
            return await self._stored_before(account, version, file.name)
        return await self._send_file(account, _upload_path(start, reply.headers), file, lines)

    async def create(self, account: Account, submission: Submission, source: Source) -> ProviderBatchId:
        """Create the batch; raises `FileNotReady` if its file is not seen yet, `QuotaFull` if it does not fit."""
        place = _Place.of(submission.endpoint)
        path = f"/{place.version}/{place.models}/{quote(submission.model, safe='')}:{BATCH_VERBS[place.verb]}"
        call = self._call(account, "create a batch", "POST", path, paid=True)
        wish = {"displayName": submission.label, "inputConfig": {"fileName": source.file_id}}
        with creates.refusals(
            account,
            over_quota=rpc_status.speaks_of_quota,
            lacks_file=lambda error: creates.speaks_of_missing_file(error, UNSEEN_FILE),
        ):
            made = await call.tell(Operation, {"batch": wish})
        return _provider_batch_id(place.version, creates.made(call.call_info, made.named, submission.label))

    async def find(self, account: Account, criteria: SearchCriteria) -> list[ProviderBatchId]:
        """Return the batches with the label or an input file of the criteria; else match them by their rows."""
        version = _Place.of(criteria.submission.endpoint).version
        found: list[tuple[str, ProviderBatchId]] = []
        nameless: list[ProviderBatchId] = []
        listed = made_since(
            functools.partial(self._search_page, account, version),
            made_at=lambda batch: batch.made_at,
            since=criteria.since,
            provider=self.facts.name,
            label=criteria.submission.label,
        )
        async for batch, is_older in listed:
            one = _provider_batch_id(version, batch.known_name)
            ours = batch.named.shows(criteria.submission.label, criteria.input_file_ids)
            if ours:
                found.append((str(batch.made_at), one))
            elif ours is None and not is_older:
                nameless.append(one)
        if found or not nameless:
            return [one for _, one in sorted(found)]
        return await found_by_rows(self, account, criteria, nameless[::-1])

    async def look(
        self, account: Account, provider_batch_ids: Sequence[ProviderBatchId]
    ) -> Mapping[ProviderBatchId, Seen]:
        """Return the state of each batch, from one list per version if there are several."""
        by_version: dict[str, list[ProviderBatchId]] = {}
        for one in provider_batch_ids:
            by_version.setdefault(_Name.of(one).version, []).append(one)
        lists = [
            BatchList(name=version, ids=ids, page=functools.partial(self._list_page, account, version))
            for version, ids in by_version.items()
        ]
        return await looked_at(
            account, provider_batch_ids, lists=lists, at_one=lambda one: self._look_at(account, one)
        )

    async def results(self, account: Account, ending: Ending) -> AsyncGenerator[Answer, None]:
        """Yield every readable row of the result file, in any order: only their keys identify rows."""
        parts = result_rows.Parts(member="embedding", whole="embeddings")
        with contextlib.closing(parts):
            read = functools.partial(self._rows, account)
            async with contextlib.aclosing(of_each(ending.results, read)) as rows:
                async for row in rows:
                    answer = parts.taken(row)
                    if answer is not None:
                        yield answer

    async def delete(self, account: Account, spent: SpentFiles) -> None:
        """Delete an input file by itself, and results with their batch: the Files API does not have the output."""
        paths = [f"/{_Place.of(spent.endpoint).version}/{quote(one)}" for one in spent.inputs]
        if spent.results and spent.provider_batch_id is not None:
            path = _Name.of(spent.provider_batch_id).path
            batch = await known(self._call(account, "look at a batch", "GET", path).ask(Operation))
            paths += [path] if batch is not None and batch.named.shows(spent.label, ()) else []
        for path in paths:
            # For a deleted file Google answers 403, as for a file of another project.
            await self._call(account, "delete a file", "DELETE", path).nudge(GONE)

    async def cancel(self, account: Account, provider_batch_id: ProviderBatchId) -> None:
        """Ask the provider to cancel; succeed if the batch is done or unknown."""
        path = f"{_Name.of(provider_batch_id).path}:cancel"
        await self._call(account, "cancel a batch", "POST", path).cancel()

    def _call(
        self, account: Account, does: str, method: str, path: str, *, paid: bool = False
    ) -> ProviderCall:
        return ProviderCall(account, self.facts.name, does, method, path, paid=paid)

    async def _stored_before(self, account: Account, version: str, name: str) -> str:
        """Return the file of an upload whose answer was lost; delete it if its processing failed."""
        call = self._call(account, "look at a file", "GET", f"/{version}/{name}")
        state = (await call.ask(_File)).state
        if state == "FAILED":
            await self._call(account, "delete a file", "DELETE", f"/{version}/{name}").nudge()
            raise TemporaryError(f"{self.facts.name} could not take the file in: it is uploaded anew")
        return name

    async def _send_file(self, account: Account, path: str, file: _Named, lines: BinaryIO) -> str:
        """Send the file in chunks, with one chunk in memory, and return its name."""
        lines.seek(0)
        for offset in range(0, max(file.size, 1), CHUNK_BYTES):
            last = offset + CHUNK_BYTES >= file.size
            call = self._call(account, "store a file", "POST", path)
            headers = {
                "x-goog-upload-command": "upload, finalize" if last else "upload",
                "x-goog-upload-offset": str(offset),
            }
            reply = await call.exchange(lines.read(CHUNK_BYTES), headers)
            if reply.headers.get("x-goog-upload-status") != ("final" if last else "active"):
                raise TemporaryError(f"{self.facts.name} broke off an upload")
        try:
            name = msgspec.json.decode(reply.body, type=_Uploaded).file.name
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise http_errors.of_unreadable(call.call_info) from None
        return bounds.identifier(name) or file.name

    async def _search_page(
        self, account: Account, version: str, token: str, _: dt.datetime
    ) -> SearchPage[Operation]:
        page, behind = await self._page(account, "search its batches", version, token)
        return SearchPage(page.batches, page.next_token, behind)

    async def _page(
        self, account: Account, does: str, version: str, token: str
    ) -> tuple[OperationPage, dt.timedelta]:
        """Return a page of the list, and how far the provider's clock is behind."""
        query = [("pageSize", PAGE_SIZE), *([("pageToken", token)] if token else [])]
        call = self._call(account, does, "GET", f"/{version}/batches")
        page = await call.ask_list(OperationPage, query)
        if page.error is not None:
            raise http_errors.of_unreadable(call.call_info)
        return page, call.behind

    async def _list_page(self, account: Account, version: str, token: str) -> ListPage:
        page, _ = await self._page(account, "look at batches", version, token)
        hints = [
            Hint.of(_provider_batch_id(version, batch.known_name), _told(batch, version))
            for batch in page.batches
        ]
        return ListPage(hints=hints, following=page.next_token)

    async def _look_at(self, account: Account, provider_batch_id: ProviderBatchId) -> Look:
        name = _Name.of(provider_batch_id)
        call = self._call(account, "look at a batch", "GET", name.path)

        def told(batch: Operation) -> tuple[Running | Ended, Other] | None:
            return (_told(batch, name.version), batch.named) if batch.known_name else None

        return await one_look(call, call.ask(Operation), provider_batch_id, told)

    def _rows(self, account: Account, one: str) -> AsyncGenerator[Answer, None]:
        call = self._call(account, "read results", "GET", f"/{one}:download?alt=media")
        return rows_of(call, one, reader())


class _Named(NamedTuple):
    name: str
    size: int


class _Name(NamedTuple):
    """A batch's name with the version under which it was created."""

    version: str
    name: str

    @classmethod
    def of(cls, provider_batch_id: str) -> _Name:
        version, _, name = provider_batch_id.rpartition("batches/")
        return cls(version.rstrip("/") or USUAL_VERSION, f"batches/{quote(name, safe='')}")

    @property
    def path(self) -> str:
        return f"/{quote(self.version, safe='')}/{self.name}"


def _provider_batch_id(version: str, name: str) -> ProviderBatchId:
    return ProviderBatchId(name if version == USUAL_VERSION else f"{version}/{name}")


def _told(batch: Operation, version: str) -> Running | Ended:
    """Return the state of the batch; the references of its results name the version to read them under."""
    look = batch.look(dt.datetime.now(dt.UTC))
    if not isinstance(look, Ended):
        return look
    results = tuple(f"{version}/{one}" for one in look.ending.results)
    return dataclasses.replace(look, ending=msgspec.structs.replace(look.ending, results=results))


def _line(key: str, body: bytes) -> bytes:
    return b'{"key":%b,"request":%b}\n' % (msgspec.json.encode(key), body)


def _named(label: str, lines: BinaryIO) -> _Named:
    """Return a file name of at most 40 characters, which is the same for the same lines of the same batch."""
    digest, size = digest_of(lines, label)
    return _Named(f"files/b-{digest}", size)


def _upload_path(start: ProviderCall, headers: Mapping[str, str]) -> str:
    """Return where the chunks go: the path that the provider named, on the account's own host only."""
    url = urlsplit(headers.get("x-goog-upload-url", ""))
    before, found, rest = url.path.partition("/upload/")
    if not found or not url.query or "/upload/" in before:
        raise http_errors.of_unreadable(start.call_info)
    return f"/upload/{rest}?{url.query}"


def _contents(body: bytes) -> list[msgspec.Raw]:
    try:
        return _decode_contents(body).requests
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


def reader() -> LineReader:
    """Return a reader of the rows of a result file."""
    return LineReader(read=_answer, id_of=_key_of)


def _answer(key: str, row: Fields) -> Answer:
    # Older servers say `status` where newer ones say `error`.
    error = value_in(row.get("error")) or value_in(row.get("status"))
    if not isinstance(error, dict | str):
        error = result_rows.stated(row)
    return result_rows.told(key, row.get("response", b""), error)


def _key_of(row: Fields) -> str:
    metadata = value_in(row.get("metadata"))
    return text_in(row.get("key", b"")) or bounds.text(
        metadata.get("key") if isinstance(metadata, dict) else ""
    )


PROVIDER: Final = Gemini()
