"""The differences between providers; each provider's file fills them in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from multidict import MultiMapping

from ..answers import answers, streams
from ..answers.answers import Answer, Perform
from ..answers.streams import Events
from ..world.fault import Fault
from ..world.world import Limits
from .execute import RowError
from .records import Batch, BatchView, CreateAsk, StoredFile
from .scan import LineRules


class Refusal(Exception):
    """A call that is answered with an HTTP error in the provider's own shape, or with exactly `raw`.

    With `moved` the answer is a redirect to the same call at another path.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: str | None = None,
        raw: str | None = None,
        beside: Mapping[str, object] | None = None,
        moved: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.raw = raw
        self.beside = beside or {}
        self.moved = moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The batches that a list call returns, and the fields beside them."""

    batches: Sequence[Batch]
    envelope: Mapping[str, Any]


def _storage_full(most: int) -> Refusal:
    message = f"You have exceeded your file storage quota of {most} bytes. Please delete files."
    return Refusal(400, message, code="storage_quota_exceeded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """A provider's constants; `root` is the path between base URL and `/files`, `limits_creates` is per hour."""

    name: str
    root: str
    realtime_endpoints: frozenset[str]
    purposes: frozenset[str]
    input_retention_s: float = 30 * 86400
    output_retention_s: float = 30 * 86400
    scoping_headers: tuple[str, ...] = ()
    limits_creates: bool = False
    key_headers: tuple[str, ...] = ("Authorization",)
    """Headers that may hold the key, first match wins: a bearer token in `Authorization`, bare in any other."""
    bad_key_status: int = 401
    retention_s: range = range(3600, 2592000 + 1)
    """The retention in seconds that a caller may ask for."""
    quota_status: int = 429
    """The status of a create that is refused because too many tokens are enqueued."""
    empty_files: bool = False
    """Whether a result file without rows exists."""
    required_query: tuple[str, ...] = ()
    """Query parameters that a call must have; without them the answer is 404."""
    realtime_paths: Mapping[str, str] = field(default_factory=dict)
    """Paths of realtime calls below the root -> their endpoints, where the two differ."""
    perform: Perform = answers.perform
    """Make the answer of a request from its endpoint and body."""
    endpoint_of: Callable[[str, Mapping[str, str]], str] = lambda endpoint, headers: endpoint
    """Return the endpoint that answers, from a call's endpoint and headers: a version header may change it."""
    unwelcome_agents: tuple[str, ...] = ()
    """Prefixes of `User-Agent` that are refused before anything else is checked."""
    speech: str = ""
    """The audio format of a call that names none; "" without speech."""
    speech_path: str = "/audio/speech"
    takes_parts: bool = False
    """Whether a file can be uploaded in parts."""
    batches: str = "/batches"
    uploads: str = "/files"
    batch_purposes: frozenset[str] = frozenset({"batch"})
    result_line: Callable[[bytes], bytes] | None = None
    """Convert a result line of OpenAI's, newline included; an empty result leaves the line out."""
    created_status: int = 200
    """The status of a successful upload or create."""
    plain_errors: bool = False
    """Whether a refusal's body is plain text."""
    row_error: RowError | None = None
    """Make the `error` of a failed row, at providers whose result lines hold no HTTP status."""
    names_undone: bool = True
    """Whether the result files name the rows that never ran."""
    early_files: bool = False
    """Whether result files can be read, from a line on, while the batch runs."""
    works_late: bool = False
    """Whether a batch keeps running after its completion window."""
    events: Mapping[str, Events] = field(default_factory=lambda: streams.EVENTS)
    """Endpoint -> how its answer is streamed; other endpoints ignore `stream`."""
    request_id_header: str = "x-request-id"
    status_path: tuple[str, ...] = ("status",)
    """The path to the status in a batch's JSON; () if there is none."""
    cursor: tuple[str, tuple[str, ...]] | None = ("after", ("last_id",))
    """The query parameter for the next page of the list, and the path to its value in a page; None without pages."""
    most_lasting_files: int | None = None
    """How many files without expiry an owner may have; `most_files` counts all files."""
    most_files: int | None = None
    most_stored_bytes: int | None = None
    storage_full: Callable[[int], Refusal] = _storage_full
    """Make the refusal of an upload that exceeds so many stored bytes."""
    no_money: tuple[int, str | None, str] = (
        429,
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    )
    """Status, code and message of the refusal if the account has no money."""
    unable: Mapping[type[Fault], str] = field(default_factory=dict)
    """The faults that the provider's API cannot show -> the reason."""
    max_rows: int = 50_000
    max_bytes: int = 200_000_000

    def row_limit(self, limits: Limits) -> int:
        """Return how many rows a batch may have."""
        return self.max_rows if limits.max_rows is None else limits.max_rows

    def byte_limit(self, limits: Limits) -> int:
        """Return how many bytes a batch may have."""
        return self.max_bytes if limits.max_bytes is None else limits.max_bytes


class Dialect(Protocol):
    """How one provider words answers and what it checks, for any kind of API."""

    traits: Traits

    def new_batch_id(self) -> str:
        """Return a fresh batch id."""

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the JSON body of an HTTP error; failed rows use it, too."""

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return the rules for the lines of this batch."""

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success with the provider's own fields added."""


class FileDialect(Dialect, Protocol):
    """The differences of a provider that follows OpenAI's Files and Batches API."""

    def new_file_id(self) -> str:
        """Return a fresh file id."""

    def file_object(self, file: StoredFile) -> dict[str, Any]:
        """Return a file as JSON."""

    def batch_object(self, view: BatchView) -> dict[str, Any]:
        """Return a batch as JSON."""

    def window_seconds(self, ask: CreateAsk) -> float:
        """Check everything in a create call but its file; return the completion window, or raise Refusal."""

    def missing_input(self, ask: CreateAsk) -> str:
        """Raise Refusal because the input file is missing, or return the message that the batch fails with."""

    def wrong_file_name(self) -> Refusal:
        """Return the refusal of an input file whose name does not end in `.jsonl`."""

    def page(self, query: MultiMapping[str], newest_first: Sequence[Batch], limits: Limits) -> Page:
        """Return what a list call shows, or raise Refusal."""

    def not_cancellable(self, view: BatchView) -> Refusal:
        """Return the refusal for cancelling a batch that has ended."""
