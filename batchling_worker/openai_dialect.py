"""Where the providers that follow OpenAI's Files and Batches API differ, and what is read of their lists."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from .batch_object import BatchObject
from .provider import Look

Query: TypeAlias = Sequence[tuple[str, str]]


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
    search: Callable[[str], Query] | None = None
    """The query for batches that a label is found in, where the list takes one."""
    told: Callable[[BatchObject, dt.datetime], Look] = BatchObject.look
    """How a batch stands, from what is shown of it at a moment."""
