"""The differences between providers whose create call holds the requests; each provider's file fills them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from multidict import MultiMapping

from ..world.world import Limits
from .dialect import Dialect, Page, Refusal
from .records import Batch, BatchView


class InlineRow(NamedTuple):
    """A request of a create."""

    custom_id: str
    body: bytes
    """The request's body, as JSON."""
    model: str = ""
    """The model, at providers that check it at the create."""


class Told(NamedTuple):
    """How many rows of an ended batch succeeded, failed or never ran."""

    n_succeeded: int
    n_failed: int
    n_undone: int


class ResultRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a batch that has ended, as the sandbox keeps it."""

    custom_id: str
    status: int = 0
    body: msgspec.Raw = msgspec.Raw(b"null")
    undone: str | None = None
    """`batch_expired` or `batch_cancelled` if the row never ran."""


class InlineDialect(Dialect, Protocol):
    """How one such provider words answers and what it checks."""

    batches: str
    """The path of its batches below its root."""
    results: str
    """The suffix of a batch's path that leads to its results."""
    results_type: str
    list_name: str
    """The field of a list that holds the batches."""
    endpoint: str
    row_endpoint: str
    """The endpoint that answers rows; it may accept more than that of a realtime call."""
    window_s: float
    created_status: int

    def check_call(self, headers: Mapping[str, str]) -> None:
        """Raise Refusal if a call lacks a header that it needs."""

    def row(self, place: int, raw: bytes, first: InlineRow | None) -> InlineRow:
        """Decode the request at index `place` of a create whose first request is `first`, or raise Refusal."""

    def check_create(self, frame: Mapping[str, Any], rows: Sequence[object]) -> None:
        """Check the fields around the requests of a create, or raise Refusal; `rows` holds a 0 for each request."""

    def doubled(self, place: int, custom_id: str) -> Refusal:
        """Return the refusal of a request whose custom_id is not unique."""

    def not_json(self) -> Refusal:
        """Return the refusal of a create whose body is not a JSON object."""

    def too_large(self, most: int) -> Refusal:
        """Return the refusal of a create of more than so many bytes."""

    def too_many(self, most: int) -> Refusal:
        """Return the refusal of a create of more than so many rows."""

    def batch_object(
        self, batch: Batch, view: BatchView, n_rows: int, told: Told | None, url: str | None
    ) -> dict[str, object]:
        """Return a batch as JSON; `told` once it has ended, `url` once its results can be read."""

    def result_line(self, row: ResultRow) -> bytes:
        """Return a row as a line of the results, without its newline."""

    def page(self, query: MultiMapping[str], newest_first: Sequence[Batch], limits: Limits) -> Page:
        """Return what a list call shows, or raise Refusal."""

    def not_found(self, batch_id: str) -> Refusal:
        """Return the refusal of a call for a batch that is not there."""

    def no_results(self, batch: Batch) -> Refusal:
        """Return the refusal of results that cannot be read (yet)."""

    def not_cancellable(self, view: BatchView) -> Refusal:
        """Return the refusal for cancelling a batch that has ended."""

    def deleted(self, view: BatchView) -> dict[str, Any]:
        """Return the answer to a call that deletes a batch, or raise Refusal."""
