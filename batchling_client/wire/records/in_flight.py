"""The record of a request in flight."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from ..keys import BatchId

_FORM: Final = re.compile(rb"([A-Za-z0-9_-]*)\|([^|]*)\|([^|:]*)(?::[^|]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """The batch that a request waits in, and the mailboxes of those who wait for it, as `_request.lua` stores them."""

    batch_id: BatchId | None
    """None = it was withdrawn from an open batch, which still has its row."""
    mailboxes: frozenset[str]
    """`+` among them stands for mailboxes that were left out, because too many wait."""

    @classmethod
    def decode(cls, raw: bytes | None) -> Self | None:
        """Read the record; return None if the request is not in flight or the value is foreign."""
        match = _FORM.fullmatch(raw or b"")
        if match is None:
            return None
        batch_id, _, waiting = (part.decode(errors="replace") for part in match.groups())
        if not batch_id:
            return cls(batch_id=None, mailboxes=frozenset())
        return cls(batch_id=BatchId(batch_id), mailboxes=frozenset(waiting.split(",") if waiting else ()))


def is_in(raw: bytes | None, batch_id: BatchId) -> bool:
    """Return whether the stored record says that its request waits in this very batch."""
    record = InFlight.decode(raw)
    return record is not None and record.batch_id == batch_id
