"""Lists whose cursor is the id before the first item of a page, as OpenAI's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from multidict import MultiMapping

from ..world.world import Limits
from .dialect import Page, Refusal
from .records import Batch

MOST: Final = 100


def page_after(query: MultiMapping[str], newest_first: Sequence[Batch], limits: Limits) -> Page:
    """Return the page of `limit` batches after `after`."""
    limit = query.get("limit", str(limits.page_size))
    if not limit.isdigit() or not 1 <= int(limit) <= MOST:
        raise Refusal(400, f"'limit' must be from 1 to {MOST}.", param="limit")
    after, start = query.get("after"), 0
    if after:
        places = [place for place, batch in enumerate(newest_first) if batch.id == after]
        if not places:
            raise Refusal(404, f"No batch found with id '{after}'.", param="after")
        start = places[0] + 1
    page = newest_first[start : start + int(limit)]
    ids = [batch.id for batch in page]
    envelope = {
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": len(newest_first) > start + len(page),
    }
    return Page(batches=page, envelope=envelope)
