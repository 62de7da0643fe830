"""The rows of a result file: its lines as they come, an answer each, in the memory of the longest."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator
from typing import Protocol

from .errors import Denied, PermanentError, TemporaryError
from .provider import Answer
from .provider_call import ProviderCall
from .result_lines import LineSplitter

logger = logging.getLogger("batchling.worker")

UNSEEN = (404, 410)
"""A file is shown before it can be read, and for lag and for good the provider says the same."""


class LineReader(Protocol):
    """Makes answers of lines and counts those that it cannot."""

    n_broken: int

    def answers(self, lines: list[bytes]) -> Iterator[Answer]:
        """An answer for each readable line; empty lines are skipped."""
        ...


async def rows_of(call: ProviderCall, named: str, reader: LineReader) -> AsyncGenerator[Answer, None]:
    """Every readable row of the file that the call fetches and logs name so; raises `Denied` where it is unseen."""
    splitter = LineSplitter()
    try:
        async with contextlib.aclosing(call.whole()) as pieces:
            async for piece in pieces:
                for answer in reader.answers(splitter.feed(piece)):
                    yield answer
    except PermanentError as error:
        if error.status not in UNSEEN:
            raise
        raise Denied(str(error)) from None
    n_broken = reader.n_broken
    for answer in reader.answers([splitter.rest()]):
        yield answer
    provider = call.deed.provider
    if not call.framed and reader.n_broken > n_broken:
        raise TemporaryError(f"{provider} ended a result file in the middle of a line")
    if reader.n_broken or splitter.n_too_long:
        logger.warning(
            "result_lines_skipped provider=%s file_id=%s n_broken=%d n_too_long=%d",
            provider,
            named,
            reader.n_broken,
            splitter.n_too_long,
        )
