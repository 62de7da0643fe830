"""Where the providers that follow OpenAI's Files and Batches API differ, and what is read of their lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from .batch_object import BatchObject

Query: TypeAlias = Sequence[tuple[str, str]]
PAGE_ROWS: Final = "100"


class FileObject(msgspec.Struct, frozen=True):
    """What is read of a file object."""

    id: object = None
    filename: object = None


class BatchPage(msgspec.Struct, frozen=True):
    """A page of a list of batches; which of the cursors is there differs."""

    data: list[BatchObject] | None = None
    has_more: object = None
    last_id: object = None
    paging: object = None

    @property
    def batches(self) -> list[BatchObject]:
        return self.data or []


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """Where a provider differs: paths, and how its list of batches is paged and asked for certain batches."""

    root: str
    """What stands between the base URL and `/files`."""
    page: Callable[[str], Query]
    """The query for the page at a cursor; '' is the first page."""
    next_cursor: Callable[[BatchPage], str]
    """The cursor of the page after this one, or ''."""
    by_ids: Callable[[Sequence[str]], Query] | None = None
    """The query for certain batches, where the list takes one."""


def page_after(cursor: str) -> Query:
    """The page behind a batch's id, as OpenAI's list takes it."""
    return [("limit", PAGE_ROWS), ("after", cursor)] if cursor else [("limit", PAGE_ROWS)]


def cursor_after(page: BatchPage) -> str:
    """The id behind which such a list goes on."""
    if page.has_more is not True or not page.batches:
        return ""
    return page.last_id if isinstance(page.last_id, str) and page.last_id else page.batches[-1].known_id
