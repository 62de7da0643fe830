"""The rows of a result file: its lines as they come, an answer each, in the memory of the longest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import TypeVar

from ..errors import Denied, PermanentError, TemporaryError
from ..log_lines import Fields, emit
from ..provider import ANSWER_TOO_LARGE, Answer, error_body
from . import gzipped
from .provider_call import LOOP_BYTES, ProviderCall
from .result_lines import LineReader, LineSplitter
from .row_answers import JSON_HEADERS

T = TypeVar("T")

logger = logging.getLogger("batchling.worker")

UNSEEN = (404, 410)
"""A file is shown before it can be read, and for lag and for good the provider says the same."""


async def of_each(
    files: Iterable[T], read: Callable[[T], AsyncGenerator[Answer, None]]
) -> AsyncGenerator[Answer, None]:
    """Read every file; the error of an unreadable file is raised after the rows of the others have been read."""
    failures: list[TemporaryError | PermanentError] = []
    for one in files:
        try:
            async with contextlib.aclosing(read(one)) as answers:
                async for answer in answers:
                    yield answer
        except (TemporaryError, PermanentError) as error:
            failures.append(error)
    if failures:
        # A file that is not seen (yet) says less than any other failure.
        raise next((one for one in failures if not isinstance(one, Denied)), failures[0])


def no_result_file(provider: str, named: str) -> TemporaryError:
    """Return the error for a download that succeeded and holds not a single row, such as a page of a gateway."""
    return TemporaryError(f"{provider} sent something other than results for {named}")


async def rows_of(call: ProviderCall, named: str, reader: LineReader) -> AsyncGenerator[Answer, None]:
    """Yield every readable row of the file that the call fetches.

    Raises `Denied` where the file is not seen, and `TemporaryError` where what was sent holds no row at all.
    """
    provider = call.call_info.provider
    pieces = gzipped.unpacked(call.whole())
    rows = rows_in(pieces, provider, named, reader, call.longest_row, cut_off=lambda: not call.framed)
    try:
        async with contextlib.aclosing(rows):
            async for answer in rows:
                yield answer
    except gzipped.NotWholeError as error:
        raise TemporaryError(f"{provider} sent a broken gzip file for {named}: {error}") from None
    except PermanentError as error:
        if error.status not in UNSEEN:
            raise
        raise Denied(str(error)) from None


async def rows_in(
    pieces: AsyncGenerator[bytes, None],
    provider: str,
    named: str,
    reader: LineReader,
    longest: int,
    *,
    cut_off: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[Answer, None]:
    """Yield every readable row of a result file that comes in pieces, and log how many lines were left out.

    `cut_off` says, once all came, whether the file may have been cut without a sign. Raises `TemporaryError` for a file
    that holds no row at all, or whose last line then is broken. A row that is longer than `longest` is an error.
    """
    splitter, n_rows = LineSplitter(longest=longest), 0
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            for answer in await _answers(reader, splitter.feed(piece)):
                n_rows += 1
                yield answer
            for answer in _too_long(splitter, provider):
                n_rows += 1
                yield answer
    n_broken = reader.n_broken
    for answer in [*await _answers(reader, splitter.rest()), *_too_long(splitter, provider)]:
        n_rows += 1
        yield answer
    if reader.n_broken > n_broken and cut_off():
        raise TemporaryError(f"{provider} ended a result file in the middle of a line")
    if reader.n_broken or splitter.n_too_long:
        log_skipped(provider, named, reader, splitter.n_too_long)
        if not n_rows:
            raise no_result_file(provider, named)


async def _answers(reader: LineReader, lines: list[bytes]) -> Iterable[Answer]:
    """Return the answers of some lines; large ones are read in a thread, so that leases are extended meanwhile."""
    if sum(map(len, lines)) <= LOOP_BYTES:
        return reader.answers(lines)
    return await asyncio.to_thread(lambda: list(reader.answers(lines)))


def _too_long(splitter: LineSplitter, provider: str) -> Iterator[Answer]:
    """Yield an error for each row that was left out for its length and told whose it is."""
    custom_ids, splitter.too_long = splitter.too_long, []
    for custom_id in custom_ids:
        message = (
            f"The answer of {provider} is longer than the {splitter.longest:,} bytes that workers read of one "
            "(BATCHLING_LONGEST_ANSWER_BYTES). It stays there: raise the setting, and `batchling retry` reads it."
        )
        yield Answer(
            custom_id=custom_id,
            status=502,
            body=error_body(ANSWER_TOO_LARGE, message),
            headers=JSON_HEADERS,
            origin=ANSWER_TOO_LARGE,
        )


def log_skipped(provider: str, named: str, reader: LineReader, n_too_long: int = 0) -> None:
    """Log how many lines of a result file were left out."""
    fields: Fields = {
        "provider": provider,
        "file_id": named,
        "n_broken": reader.n_broken,
        "n_too_long": n_too_long,
    }
    emit(logger, logging.WARNING, "result_lines_skipped", fields)
