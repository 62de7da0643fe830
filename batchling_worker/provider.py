"""The port: the calls that the pipeline makes to a provider, and the facts that each provider file states."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final, Protocol, TypeAlias

import httpx
import msgspec

from batchling_client.wire.answer_shape import LONGEST_ANSWER_BYTES
from batchling_client.wire.keys import BatchId, ProviderBatchId
from batchling_client.wire.records.row_and_result import UNREADABLE, CorruptRecord
from batchling_client.wire.route import Route
from batchling_client.wire.row_cipher import RowCipher
from batchling_client.wire.states import Outcome

from .call_outcome import CallOutcomes

LABEL_PREFIX: Final = "batchling-"
"""Begins the label of every batch."""
ROW_LOST: Final = "batch_row_lost"
"""Origin of the answer to a request that is missing from the provider's results."""

ANSWER_TOO_LARGE: Final = "batch_answer_too_large"
"""Origin of the answer to a request whose result is longer than a worker reads."""

_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")


def error_body(
    code: str | None, message: str, param: str | None = None, *, chosen_status: int | None = None
) -> bytes:
    """Return an error in the shape that OpenAI-like SDKs read.

    `chosen_status` is an HTTP status that batchling chose because the provider sent none; the body says so.
    """
    error: dict[str, object] = {"message": message, "type": "batch_error", "param": param, "code": code}
    if chosen_status is not None:
        error |= {"status_chosen_for_code": chosen_status}
    return msgspec.json.encode({"error": error})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFacts:
    """A provider's abilities, with source and date; its limits and windows are those of its route."""

    route: Route
    base_url: str = ""
    """Scheme and host; the settings may replace it. '' = that of the route's settings, else the route's first host."""
    looks_at_once: int
    """How many batches one call can look at; 1 = one call for each batch."""
    searchable: bool
    """Whether a batch can be found again by a label of ours."""
    early_results: bool
    discount_percent: int
    """Discount on the listed price, in percent, of at least some models; 0 if the provider states none."""
    source: str
    checked_on: dt.date
    cancels: bool = True
    """Whether a running batch can be cancelled."""
    least_look_s: float = 0.0
    """The shortest pause between two looks at a batch that the provider asks for, in seconds."""
    inline: bool = False
    """Whether the create call carries the requests themselves: `upload` then stores no file."""
    repeatable: bool = False
    """Whether a create may be sent again: the same source never makes a second batch."""
    own_credential: bool = False
    """Whether workers can use a credential of their own environment instead of the callers'."""
    model_in_path: bool = False
    """Whether the body of a request need not name its model."""
    file_expiry_s: tuple[int, int] | None = None
    """Shortest and longest expiry, in seconds, that an upload can ask for; None if it cannot ask for one."""
    equal_files_are_one: bool = False
    """Whether uploading bytes that are already stored returns the id of the stored file."""
    verified: tuple[str, ...] = ("docs",)
    """What the adapter was checked against: `docs`, `capture` (of the wire), `SDK` (it drives the sandbox), `live`."""

    def __post_init__(self) -> None:
        if not self.base_url:
            object.__setattr__(self, "base_url", self.route.stand_in or f"https://{self.route.hosts[0]}")

    @property
    def name(self) -> str:
        return self.route.provider

    @property
    def min_rows(self) -> int:
        return self.route.min_rows

    @property
    def max_rows(self) -> int:
        return self.route.max_rows

    @property
    def max_bytes(self) -> int:
        return self.route.max_bytes

    @property
    def windows(self) -> tuple[str, ...]:
        return self.route.windows


class SharedPages(Protocol):
    """Pages of an account's lists: steps that look within a short time share one call."""

    async def page(self, name: str, read: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the page of that name: the page that another step has just read, else the page that `read` returns.

        Raises what `read` raises, and `TemporaryError` if another step has just failed to read the page.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A way to a provider on behalf of one credential: base URL, headers (credential included), HTTP client."""

    base_url: str
    headers: Mapping[str, str] = field(repr=False)
    http: httpx.AsyncClient = field(repr=False)
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Query parameters of every call."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values of headers and query that arrived sealed, such as keys of gateways."""
    digest: str
    """Identifies host and credential without revealing the credential: one account may not see what another made."""
    own_host: bool = False
    """Whether the base URL is the provider's own host, and not a gateway or a server of the user's."""
    own_credential: bool = False
    """Whether the worker's own credential is used, which the adapter knows where to find."""
    staging: str = ""
    """URL below which input and result files are stored, for a provider that stores none itself."""
    staging_url: str = ""
    """Replaces the scheme and host of the object store; '' = its own."""
    role_arn: str = ""
    """The role with which the provider reads and writes these files."""
    calls: CallOutcomes = field(default_factory=CallOutcomes, repr=False, compare=False)
    """The outcomes of the calls of the step that opened this account."""
    download_hosts: tuple[str, ...] = ()
    """More hosts that result files may be fetched from, without any of the headers."""
    longest_answer_bytes: int = LONGEST_ANSWER_BYTES
    """Bytes of a row of results; a longer one is not read."""
    keeps_files: bool = False
    """Whether the settings ask to keep every file at the provider."""
    turn: Callable[[], AbstractAsyncContextManager[None]] = field(
        default=nullcontext, repr=False, compare=False
    )
    """Opens a block in which one call is made: each account has a share of the worker's connections."""
    cipher: RowCipher | None = field(default=None, repr=False, compare=False)
    """What opens the rows of its requests and encrypts their results; None in wire version 1."""
    pages: SharedPages | None = field(default=None, repr=False, compare=False)
    """Pages of its lists that steps share; None = every step reads them itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The description of a batch that a provider gets."""

    batch_id: BatchId
    label: str
    """Unique to this batch; part of its metadata and of its input file's name."""
    endpoint: str
    model: str
    completion_window: str
    n_lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCriteria:
    """What is known of a batch that may have been created: enough to identify it at its provider."""

    submission: Submission
    input_file_ids: tuple[str, ...]
    """The files that it can have been made from; empty if none is known."""
    since: dt.datetime
    """The earliest time of its creation, by our clock."""
    is_another: Callable[[ProviderBatchId], Awaitable[bool]]
    """Return whether a batch is known as another batch of ours: an earlier attempt has the same custom_ids."""
    holds: Callable[[Collection[str]], Awaitable[bool]]
    """Return whether one of these custom_ids is a row of the batch that is searched for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The input of a create call."""

    file_id: str
    """The answer of `upload`: usually an input file's id."""
    lines: BinaryIO | None = None
    """The lines themselves, if the provider's facts say `inline`; read as a stream, from its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentFiles:
    """Files of a batch that nobody needs any more: its input files or its result files."""

    endpoint: str
    label: str
    provider_batch_id: ProviderBatchId | None
    inputs: tuple[str, ...] = ()
    """The answers of `upload`."""
    results: tuple[str, ...] = ()
    """The references of the batch's `Ending`."""


def is_ours(key: str, staging: str) -> bool:
    """Return whether an object in the staging place was made by one of our batches.

    Names of objects come from Redis and from providers, and a credential may delete others too.
    """
    folder = f"{staging.strip('/')}/" if staging.strip("/") else ""
    return key.startswith(f"{folder}{LABEL_PREFIX}")


def label_in(shown: str, label: str) -> bool | None:
    """Return whether a provider shows this label for a batch; None if `shown` may be a shortened form of the label.

    Gateways change case and separators, prepend words of their own, and cut off long values.
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
    """The id of the request, if the reason is about that request alone."""
    param: str | None = None


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch ended: where its results are, and the provider's reasons, if it failed."""

    results: tuple[str, ...] = ()
    """References for `Provider.results`, such as file ids; all of them are read."""
    complaints: tuple[Complaint, ...] = ()
    status: int = 0
    """HTTP status of the refusal that ended it; 0 if no refusal ended it."""
    body: str = ""
    """The provider's body of that refusal."""
    hopeless: bool = False
    """Whether the batch is one request that will never fit into the quota of enqueued tokens."""
    n_succeeded: int | None = None
    """How many requests the provider counts as answered; None if it shows no counts."""
    certain: bool = False
    """Whether the provider itself showed this end, or surely made no batch: no answers can follow."""
    after: str = ""
    """The cursor of the last answer that was read; a provider with cursors continues after it."""

    @classmethod
    def decode(cls, raw: bytes) -> Ending:
        """Decode a stored ending; raises `CorruptRecord`."""
        try:
            return msgspec.json.decode(raw, type=cls)
        except UNREADABLE as error:
            raise CorruptRecord("a stored ending cannot be read") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """What tells the batch in an answer from other batches; a field is '' if the answer lacks it."""

    provider_batch_id: str
    label: str = ""
    input_file_id: str = ""

    def is_of(self, label: str, input_file_ids: Collection[str]) -> bool:
        """Return whether the answer shows the requested batch after all: gateways give batches ids of their own."""
        known = bool(self.input_file_id) and self.input_file_id in input_file_ids
        return known or (bool(self.label and label) and label_in(self.label, label) is not False)

    def shows(self, label: str, input_file_ids: Collection[str]) -> bool | None:
        """Return whether a batch has this label or was made from one of these files; None if it does not say.

        A file that is none of these proves nothing: a gateway may show another id of it than the one it gave out.
        """
        if self.input_file_id and self.input_file_id in input_file_ids:
            return True
        return label_in(self.label, label) if self.label else None

    def denies(self, label: str) -> bool:
        """Return whether the answer carries the label of another of our batches; any other label may be a gateway's."""
        return LABEL_PREFIX in self.label.lower() and label_in(self.label, label) is False


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A look at a batch that still runs; `status` is the provider's word, counts are for display only."""

    status: str
    n_done: int
    n_total: int
    early: Ending | None = None
    """Results that can already be read, if the provider returns them before the batch has ended.

    They are read if `n_done` has changed since the last look, and at every look while it is 0.
    """
    listed: bool = False
    """Whether only a list shows this; then `early` names no results and only says that there are some."""
    other: Other | None = None
    """The batch that the answer shows, if its id differs from the id that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A look at a batch that will not change any more."""

    status: str
    outcome: Outcome
    ending: Ending
    n_done: int = 0
    n_total: int = 0
    other: Other | None = None
    """As in `Running`."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """The provider does not know the batch (not yet, or no longer)."""


def shown_as(look: Running | Ended, asked_for: str, other: Other) -> Running | Ended:
    """Return the look, with `other` set if the answer shows another id than the requested one.

    Google names a project by its number or by its name, so only the last part of an id identifies a batch.
    """
    shown, wanted = (one.rpartition("/")[2] for one in (other.provider_batch_id, asked_for))
    return look if not shown or shown == wanted else replace(look, other=other)


Look: TypeAlias = Running | Ended | NotFound
Seen: TypeAlias = Look | Exception
"""A look, or the error of the look at this batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The provider's result for one custom_id, as an HTTP reply; `origin` is `provider`, or says why it has none."""

    custom_id: str
    status: int
    body: bytes
    headers: Mapping[str, str]
    origin: str = "provider"
    cursor: str = ""
    """Where to continue after this row once there are more, if the provider's results have cursors."""


class Provider(Protocol):
    """One provider's batch API.

    Methods never retry: the step does. They never raise an error of an HTTP library, only these of the worker's, each
    from the methods that it is listed for. `tests/providers` hold every adapter to this list.

    Any method:
    PermanentError: the provider refused for good; `status` and `body` are its own.
    TemporaryError: the provider, the way to it or its answer is out of order; `delay_s` is the pause that it asks for.
    TooLarge: the provider's answer is larger than any of its kind; no more of it was read.

    create only:
    MaybeDone: the answer got lost, or names no batch: the call may have had its effect.
    Limited: 425 or 429. No batch was made, unless a gateway on the way sends creates again by itself.
    FileNotReady: the provider does not see its input file yet. No batch was made.
    QuotaFull: too many tokens are enqueued. No batch was made; the text is the provider's own sentence.

    find only:
    CreateBegun: the provider has a begun create that our records do not mention; it is continued in `file_id`.

    results and delete only:
    Denied: the provider does not show a file (yet), or the key has no right to it at present.
    """

    @property
    def facts(self) -> ProviderFacts: ...

    def line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """Return one request as a line of the input file, newline included; the body goes in unchanged."""
        ...

    async def upload(self, account: Account, submission: Submission, lines: BinaryIO) -> str:
        """Store the input file at the provider, read as a stream from its start; return its id, '' for none."""
        ...

    async def create(self, account: Account, submission: Submission, source: Source) -> ProviderBatchId:
        """Create the batch and return its id. This call costs money: send it once.

        Report in `account.calls` that a refusal which says nothing against the account was none (`creates.refusals`).
        """
        ...

    async def find(self, account: Account, criteria: SearchCriteria) -> Sequence[ProviderBatchId]:
        """Return every batch made from the submission, the oldest first; empty only if the provider surely has none.

        Raises `TemporaryError` while a batch can be neither matched nor ruled out, and `CreateBegun` if the provider
        has a begun create that our records do not mention.
        """
        ...

    async def look(
        self, account: Account, provider_batch_ids: Sequence[ProviderBatchId]
    ) -> Mapping[ProviderBatchId, Seen]:
        """Return the state of each batch, or the error of its look.

        A list is only a hint: it may show that a batch runs (`Running.listed`), but an end comes from a look at the
        batch itself. Single looks begin with the first ids. Raises only if no batch at all was seen.
        """
        ...

    def results(self, account: Account, ending: Ending) -> AsyncGenerator[Answer, None]:
        """Yield each readable row of each result reference, in any order; leave out broken lines and log their number.

        With a cursor in `ending.after`, rows up to the cursor may be left out.
        """
        ...

    async def cancel(self, account: Account, provider_batch_id: ProviderBatchId) -> None:
        """Ask the provider to cancel; succeed if the batch is done or unknown."""
        ...

    async def delete(self, account: Account, spent: SpentFiles) -> None:
        """Delete files; succeed if a file no longer exists. Do nothing if the provider deletes its files itself."""
        ...
