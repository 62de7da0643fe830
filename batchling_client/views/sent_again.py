"""Requests that were sent to their provider more than once, and whether that may have been paid twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from ..wire.records.usage_and_failure import MAY_BE_PAID_TWICE, SentAgain


class SentAgainCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests were sent once more for one reason."""

    reason: Annotated[
        SentAgain,
        msgspec.Meta(
            description="`expired`, `failed`, `refused` (an error worth another attempt), `missing` (no answer in the "
            "results), `lost` (the provider no longer knew the batch), `surplus` (a second batch, cancelled)"
        ),
    ]
    n_requests: Annotated[int, msgspec.Meta(description="requests sent once more, counted each time")]
    may_be_paid_twice: Annotated[
        bool, msgspec.Meta(description="whether the provider may have billed them before")
    ]


def counts_of(counts: Mapping[SentAgain, int]) -> tuple[SentAgainCount, ...]:
    """Return the counts, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0].value))
    return tuple(
        SentAgainCount(reason=reason, n_requests=n, may_be_paid_twice=reason in MAY_BE_PAID_TWICE)
        for reason, n in ordered
    )


def n_may_be_paid_twice(counts: Mapping[SentAgain, int]) -> int:
    """Return how many requests the provider may have billed more than once."""
    return sum(n for reason, n in counts.items() if reason in MAY_BE_PAID_TWICE)


def in_words(counts: Iterable[SentAgainCount]) -> str:
    """Return the counts in a line, such as `12 requests sent again (10 expired, 2 lost): 2 may be paid twice`."""
    some = tuple(counts)
    n, n_paid = (
        sum(one.n_requests for one in some),
        sum(one.n_requests * one.may_be_paid_twice for one in some),
    )
    reasons = ", ".join(f"{one.n_requests:,} {one.reason.value}" for one in some)
    paid = f"{n_paid:,} may be paid twice" if n_paid else "none of them is paid twice"
    return f"{n:,} request{'' if n == 1 else 's'} sent again ({reasons}): {paid}"
