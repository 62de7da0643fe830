"""The port: what the pipeline asks of a provider, and what every provider file must tell about itself."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final, Protocol, TypeAlias

import httpx
import msgspec

from batchling_client.wire.keys import BatchId, ProviderBatchId
from batchling_client.wire.records.row_and_result import UNREADABLE, CorruptRecord
from batchling_client.wire.states import Outcome

from .call_outcome import CallOutcomes

LABEL_PREFIX: Final = "batchling-"
"""Begins the label of every batch."""
ROW_LOST: Final = "batch_row_lost"
"""Origin of an answer that says: the provider's results hold none for this request."""

_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")


def error_body(
    code: str | None, message: str, param: str | None = None, *, chosen_status: int | None = None
) -> bytes:
    """An error in the shape that OpenAI-like SDKs read; it says so where its status is not the provider's own."""
    error: dict[str, object] = {"message": message, "type": "batch_error", "param": param, "code": code}
    if chosen_status is not None:
        error |= {"status_chosen_for_code": chosen_status}
    return msgspec.json.encode({"error": error})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFacts:
    """A provider's published limits and abilities, with source and date."""

    name: str
    base_url: str
    """Scheme and host; the settings may put another in its place."""
    max_rows: int
    max_bytes: int
    windows: tuple[str, ...]
    looks_at_once: int
    """How many batches one call can look at; 1 = each by itself."""
    searchable: bool
    """Whether a batch can be found again by a label of ours."""
    early_results: bool
    discount_percent: int
    """Off the listed price; of some models where not all are cheaper; 0 where the provider tells none."""
    source: str
    checked_on: dt.date
    cancels: bool = True
    """Whether a running batch can be cancelled."""
    least_look_s: float = 0.0
    """How long the provider asks to be left alone between two looks at a batch."""
    min_rows: int = 1
    """Fewer the provider does not take in a batch."""
    inline: bool = False
    """Whether the create takes the requests themselves: `upload` then only readies what the create goes into."""
    repeatable: bool = False
    """Whether a create may be sent again: from the same source it makes no second batch."""
    own_credential: bool = False
    """Whether workers can go by a credential of their own surroundings instead of the callers'."""
    model_in_path: bool = False
    """Whether the body of a request need not name its model."""
    file_expiry_s: tuple[int, int] | None = None
    """Shortest and longest time after which the provider deletes an uploaded file, where an upload can ask for that."""
    equal_files_are_one: bool = False
    """Whether an upload of bytes that are stored already is answered with the id of the stored file."""
    verified: tuple[str, ...] = ("docs",)
    """What the adapter is held to: `docs`, `capture` (of the wire), `SDK` (it drives the sandbox), `live`."""


class SharedPages(Protocol):
    """Pages of an account's lists, which every step that looks within a short time reads from one call."""

    async def page(self, name: str, read: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the page of that name: as another step read it just now, or else as `read` returns it.

        Raises what `read` raises, and `TemporaryError` where another step has just failed to read it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A way to a provider on behalf of one credential: base URL, headers (credential included), HTTP client."""

    base_url: str
    headers: Mapping[str, str] = field(repr=False)
    http: httpx.AsyncClient = field(repr=False)
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """What goes into the query of every call."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values among headers and query that came sealed, as keys of gateways."""
    digest: str
    """Names host and credential without telling the latter: what one account made, another may not even see."""
    own_credential: bool = False
    """Whether the worker's own credential is used, which the adapter knows where to find."""
    staging: str = ""
    """Where input and result files lie, for a provider that keeps none itself."""
    staging_url: str = ""
    """What stands in for the object store's own scheme and host."""
    role_arn: str = ""
    """The role that the provider reads and writes these files as."""
    calls: CallOutcomes = field(default_factory=CallOutcomes, repr=False, compare=False)
    """What the calls of the step that opened this account have shown."""
    download_hosts: tuple[str, ...] = ()
    """Where result files may be fetched from beside the base URL, without any of the headers."""
    keeps_files: bool = False
    """Whether the settings want every file to stay at the provider."""
    pages: SharedPages | None = field(default=None, repr=False, compare=False)
    """Where pages of its lists are shared with other steps; None = every step reads them itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a provider is told of a batch."""

    batch_id: BatchId
    label: str
    """Unique to this batch: stands in metadata and in the input file's name."""
    endpoint: str
    model: str
    completion_window: str
    n_lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCriteria:
    """What is known of a batch that may have been created: enough to tell it from every other at its provider."""

    submission: Submission
    input_file_ids: tuple[str, ...]
    """The files that it can have been made of; empty where none is known."""
    since: dt.datetime
    """It was created then at the earliest, by our clock."""
    is_another: Callable[[ProviderBatchId], Awaitable[bool]]
    """Whether that one is known to be another batch of ours: an earlier attempt has the same custom_ids."""
    holds: Callable[[Collection[str]], Awaitable[bool]]
    """Whether one of these custom_ids is a row of the batch that is sought."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a batch is made of."""

    file_id: str
    """What `upload` answered: an input file's id as a rule."""
    lines: BinaryIO | None = None
    """The lines themselves, for a provider whose facts say `inline`; read as a stream, from its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentFiles:
    """Files of a batch that nobody needs any more: those that it was made of, or those of its results."""

    endpoint: str
    label: str
    provider_batch_id: ProviderBatchId | None
    inputs: tuple[str, ...] = ()
    """What `upload` answered."""
    results: tuple[str, ...] = ()
    """The references of the batch's `Ending`."""


def is_ours(key: str, staging: str) -> bool:
    """Return whether an object below a place of the settings is one that a batch of ours made.

    Names of objects come from Redis and from providers, and a credential may delete others too.
    """
    folder = f"{staging.strip('/')}/" if staging.strip("/") else ""
    return key.startswith(f"{folder}{LABEL_PREFIX}")


def label_in(shown: str, label: str) -> bool | None:
    """Return whether what a provider shows as a batch's label is this one; None where it may be the beginning of it.

    Gateways change case and separators, put words of their own in front, and cut long values off.
    """
    plain, wanted = _SEPARATORS.sub("-", shown.lower()), _SEPARATORS.sub("-", label.lower())
    if not wanted or not plain.strip("-"):
        return False
    if re.search(rf"(?:^|-){re.escape(wanted)}(?:-|$)", plain):
        return True
    return None if wanted.startswith(plain) else False


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    """One reason a provider gave for failing a batch; `line` counts from 1."""

    code: str
    message: str
    line: int | None = None
    request_id: str | None = None
    """The request whose line it is, where it speaks of that alone."""
    param: str | None = None


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch ended: where its results lie, and the provider's reasons, if it failed."""

    results: tuple[str, ...] = ()
    """References that `Provider.results` understands, such as file ids; all are read."""
    complaints: tuple[Complaint, ...] = ()
    status: int = 0
    """HTTP status of the refusal that ended it, if one did."""
    body: str = ""
    """Body of that refusal, the provider's own."""
    hopeless: bool = False
    """It is one request that will never fit into the quota of enqueued tokens."""
    n_succeeded: int | None = None
    """How many requests the provider counts as answered; None where it shows no counts."""
    certain: bool = False
    """Whether the provider itself showed this end, or surely made no batch: nothing can come of the batch any more."""
    after: str = ""
    """The cursor of the last answer that was read already: a provider that knows cursors goes on behind it."""

    @classmethod
    def decode(cls, raw: bytes) -> Ending:
        """Reads it as it was stored; raises `CorruptRecord`."""
        try:
            return msgspec.json.decode(raw, type=cls)
        except UNREADABLE as error:
            raise CorruptRecord("a stored ending cannot be read") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """The batch that an answer shows instead of the requested batch; a field is '' if the answer lacks it."""

    provider_batch_id: str
    label: str = ""
    input_file_id: str = ""

    def is_of(self, label: str, input_file_ids: Collection[str]) -> bool:
        """Return whether it is the requested batch after all: gateways give batches ids of their own."""
        known = bool(self.input_file_id) and self.input_file_id in input_file_ids
        return known or (bool(self.label and label) and label_in(self.label, label) is not False)

    def denies(self, label: str) -> bool:
        """Whether it carries the label of another of our batches; any other label may be a gateway's."""
        return LABEL_PREFIX in self.label.lower() and label_in(self.label, label) is False


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A look at a batch that goes on; `status` is the provider's word, counts are for display only."""

    status: str
    n_done: int
    n_total: int
    early: Ending | None = None
    """Results that can be read already, where the provider hands them out before the batch has ended.

    They are read when `n_done` has moved since the last time, and each time where it stays 0.
    """
    listed: bool = False
    """Whether only a list shows it so; then `early` names no results, and only says that there are some."""
    other: Other | None = None
    """Whose look it is, where the answer shows another id than that of the batch that was looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A look at a batch that nothing changes any more."""

    status: str
    outcome: Outcome
    ending: Ending
    n_done: int = 0
    n_total: int = 0
    other: Other | None = None
    """As of a `Running`."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """The provider knows no such batch (yet, or any more)."""


def shown_as(look: Running | Ended, asked_for: str, other: Other) -> Running | Ended:
    """Return the look, which says so where it shows another id than the one that was asked for.

    Google shows a project by its number or by its name: the last part of an id tells batches apart.
    """
    shown, wanted = (one.rpartition("/")[2] for one in (other.provider_batch_id, asked_for))
    return look if not shown or shown == wanted else replace(look, other=other)


Look: TypeAlias = Running | Ended | NotFound
Seen: TypeAlias = Look | Exception
"""A look, or the error that the look at this one batch met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The provider's result for one custom_id, as an HTTP reply; `origin` is `provider` or says what HTTP cannot."""

    custom_id: str
    status: int
    body: bytes
    headers: Mapping[str, str]
    origin: str = "provider"
    cursor: str = ""
    """Where to go on behind this row once there are more, if the provider's results can be read from a place."""


class Provider(Protocol):
    """One provider's batch API. Methods raise `PermanentError`, `TemporaryError` or, where a lost answer leaves it
    open whether the call had its effect, `MaybeDone`; never an HTTP library's error. None of them retries."""

    @property
    def facts(self) -> ProviderFacts: ...

    def line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """One request as a line of the input file, newline included; the body goes in as it is."""
        ...

    async def upload(self, account: Account, submission: Submission, lines: BinaryIO) -> str:
        """Stores the input file at the provider, read as a stream from its start; answers its id, '' for none."""
        ...

    async def create(self, account: Account, submission: Submission, source: Source) -> ProviderBatchId:
        """Creates the batch: the call that costs money. Sent once."""
        ...

    async def find(self, account: Account, criteria: SearchCriteria) -> Sequence[ProviderBatchId]:
        """Every batch that was made of the submission, the oldest first; empty only where there surely is none to see.

        While one can be neither matched nor ruled out it raises `TemporaryError`; where one was begun and only the
        provider knows of it, `CreateBegun`.
        """
        ...

    async def look(
        self, account: Account, provider_batch_ids: Sequence[ProviderBatchId]
    ) -> Mapping[ProviderBatchId, Seen]:
        """Return how each batch stands.

        A list is a hint: all that it may tell is that a batch runs (`Running.listed`). An end is the answer of the
        batch itself. The ids that come first are the first to be looked at by themselves. Raises only where nothing
        at all was seen.
        """
        ...

    def results(self, account: Account, ending: Ending) -> AsyncGenerator[Answer, None]:
        """Every readable row of every result reference, in any order; broken lines are left out and counted in logs.

        With a cursor in `ending.after`, what stands before it may be left out.
        """
        ...

    async def cancel(self, account: Account, provider_batch_id: ProviderBatchId) -> None:
        """Asks the provider to cancel; done or unknown batches are no error."""
        ...

    async def delete(self, account: Account, spent: SpentFiles) -> None:
        """Delete files; one that is gone is no error. Do nothing where the provider deletes them all itself."""
        ...
