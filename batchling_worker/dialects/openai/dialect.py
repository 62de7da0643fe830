"""Where the providers whose batches are uploaded files differ from OpenAI's, and what is read of their lists."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, ClassVar, Final, TypeAlias

import msgspec

from ...errors import TemporaryError
from ...provider import Account, Ended, Other, Running, Submission
from .. import bounds, http_errors
from ..provider_call import ProviderCall
from ..request_line import one_line
from ..result_lines import LineReader
from .batch_object import LABEL_NAME, BatchObject
from .rows import openai_rows

Query: TypeAlias = Sequence[tuple[str, str]]
PAGE_ROWS: Final = "100"

UPLOAD_PATIENCE: Final = 2.5
"""How many times longer than usual a provider may chew on a file."""


class FileObject(msgspec.Struct, frozen=True):
    """What is read of a file object."""

    id: object = None
    filename: object = None
    purpose: object = None

    @property
    def known_id(self) -> str:
        """The provider's id, or ''."""
        return bounds.identifier(self.id)


class BatchPage(msgspec.Struct, frozen=True):
    """A page of a list of batches; which of the cursors is there differs."""

    data: list[BatchObject] | msgspec.UnsetType | None = msgspec.UNSET
    has_more: object = None
    last_id: object = None
    paging: object = None

    @property
    def batches(self) -> list[BatchObject]:
        return self.data or []

    @property
    def is_whole(self) -> bool:
        """Whether it is a page at all, and not an error or another object under a 200."""
        return self.data is not msgspec.UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """Where a provider differs: paths, pages of its list, and in a subclass, how it words a call and an answer."""

    root: str
    """What stands between the base URL and `/files`."""
    page: Callable[[str], Query]
    """The query for the page at a cursor; '' is the first page."""
    next_cursor: Callable[[BatchPage], str]
    """The cursor of the page after this one, or ''."""
    by_ids: Callable[[Sequence[str]], Query] | None = None
    """The query for certain batches, where the list takes one."""
    results_expire: bool = False
    """Whether a create may ask for the result files to be deleted some time after they were made."""
    words: Mapping[str, str] = field(default_factory=dict)
    """A provider's own word for a status, in lower case -> OpenAI's."""
    uploads: str = "/files"
    batches: str = "/batches"

    def root_of(self, account: Account) -> str:
        """Return the path between the base URL and `/files` for one account."""
        return self.root

    def made_since(self, moment: dt.datetime) -> Query:
        """Return the query that limits a list to batches made since then, if it can; older ones may still be listed."""
        return ()

    def line(self, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """Return one request as a line of the input file, newline included."""
        name, url = msgspec.json.encode(custom_id), msgspec.json.encode(endpoint)
        return b'{"custom_id":%b,"method":"POST","url":%b,"body":%b}\n' % (name, url, one_line(body))

    async def stored(self, call: ProviderCall, name: str, lines: BinaryIO, form: Mapping[str, str]) -> str:
        """Store an input file, with more fields in its form; return its id, or '' if the answer has none."""
        file = await call.upload(FileObject, {"purpose": "batch", **form}, name, lines, UPLOAD_PATIENCE)
        named = Other(provider_batch_id="", label=bounds.text(file.filename))
        if named.denies(name):
            raise http_errors.of_another(call.call_info, named.label)
        return file.known_id

    expiry_word: ClassVar[str] = "expires_after"
    """What an error that refuses an expiry speaks of."""

    def expiry(self, expiry_s: int) -> Mapping[str, str]:
        """Return the fields of an upload that ask for its deletion after so many seconds."""
        return {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(expiry_s)}

    def wish(self, submission: Submission, input_file_id: str) -> dict[str, object]:
        """Return the body of a create call."""
        return {
            "input_file_id": input_file_id,
            "endpoint": submission.endpoint,
            "completion_window": submission.completion_window,
            "metadata": {LABEL_NAME: submission.label},
        }

    async def made(self, call: ProviderCall, wish: dict[str, object]) -> BatchObject:
        """Send a create call; return the batch in the answer."""
        return await call.tell(BatchObject, wish)

    async def shown(self, call: ProviderCall) -> BatchObject:
        """Look at one batch."""
        return await call.ask(BatchObject)

    async def listed(self, call: ProviderCall, query: Query) -> BatchPage:
        """Look at a page of the list of batches; raises `TemporaryError` if the answer is not a page."""
        page = await call.ask_list(BatchPage, query)
        if not page.is_whole:
            raise http_errors.of_unreadable(call.call_info)
        return page

    def search(self, label: str) -> Query:
        """Return the query that searches batches for a label; empty if the list takes none."""
        return ()

    def told(self, batch: BatchObject, now: dt.datetime) -> Running | Ended:
        """Return the state of a batch at a moment, from the object that the provider shows."""
        return batch.look(now)

    def rows(self) -> LineReader:
        """Return the reader for the lines of one result file."""
        return openai_rows()


def bare_line(custom_id: str, body: bytes) -> bytes:
    """Return one request as a line of an input file whose endpoint the create call names, newline included."""
    return b'{"custom_id":%b,"body":%b}\n' % (msgspec.json.encode(custom_id), one_line(body))


def page_after(cursor: str) -> Query:
    """Return the query for the page after a batch's id, as OpenAI's list takes it."""
    return [("limit", PAGE_ROWS), ("after", cursor)] if cursor else [("limit", PAGE_ROWS)]


def cursor_after(page: BatchPage) -> str:
    """Return the id after which the list continues, '' at its end; an empty page may be followed by more pages.

    If a page does not say whether it is the last, only the next page shows it. Raises `TemporaryError` if there is more
    and the page does not say where: to take it for the end could pay twice for a batch on the pages not read.
    """
    last = page.batches[-1].known_id if page.batches else ""
    if page.has_more is None:
        return last
    if not says_more(page.has_more):
        return ""
    cursor = bounds.identifier(page.last_id) or last
    if not cursor:
        raise no_cursor()
    return cursor


def says_more(has_more: object) -> bool:
    """Return whether a page says that it is not the last one."""
    return has_more in (True, "true")


def no_cursor() -> TemporaryError:
    """Return the error for a page that says that there is more and not where."""
    return TemporaryError("the list of batches has more pages and does not say where they begin")
