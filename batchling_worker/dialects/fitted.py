"""Looks as they leave an adapter: what a provider says in them is bounded before anything is stored or shown."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import msgspec

from ..provider import Complaint, Ended, Ending, NotFound, Other, Running, Seen
from .bounds import (
    LARGEST_COUNT,
    LONGEST_BODY,
    LONGEST_CODE,
    LONGEST_ID,
    LONGEST_WORDS,
    MOST_RESULTS,
    MOST_WORDS,
)

T = TypeVar("T")


def seen(one: Seen) -> Seen:
    """Return a look whose words, ids and numbers are bounded; an error is returned as it is."""
    if isinstance(one, NotFound | Exception):
        return one
    n_done, n_total = _count(one.n_done), _count(one.n_total)
    other = None if one.other is None else _other(one.other)
    status = one.status[:LONGEST_CODE]
    if isinstance(one, Running):
        early = None if one.early is None else ending(one.early)
        return dataclasses.replace(
            one, status=status, other=other, early=early, n_done=n_done, n_total=n_total
        )
    assert isinstance(one, Ended)
    return dataclasses.replace(
        one, status=status, other=other, ending=ending(one.ending), n_done=n_done, n_total=n_total
    )


def ending(one: Ending) -> Ending:
    """Return an ending whose words and references are bounded."""
    n_left, complaints = MOST_WORDS, []
    for complaint in one.complaints:
        fitted = _complaint(complaint, min(LONGEST_WORDS, max(n_left, LONGEST_CODE)))
        n_left -= len(fitted.message) + len(fitted.code)
        complaints.append(fitted)
    return msgspec.structs.replace(
        one,
        results=tuple(name for name in one.results if len(name) <= LONGEST_ID)[:MOST_RESULTS],
        complaints=tuple(complaints),
        body=one.body[:LONGEST_BODY],
        after=one.after,
        n_succeeded=None if one.n_succeeded is None else _count(one.n_succeeded),
    )


def _complaint(one: Complaint, longest: int) -> Complaint:
    return msgspec.structs.replace(
        one,
        code=one.code[:LONGEST_CODE],
        message=one.message[:longest],
        param=None if one.param is None else one.param[:LONGEST_CODE],
    )


def _other(one: Other) -> Other:
    return Other(
        provider_batch_id=one.provider_batch_id[:LONGEST_ID],
        label=one.label[:LONGEST_ID],
        input_file_id=one.input_file_id[:LONGEST_ID],
    )


def _count(n: int) -> int:
    return min(max(n, 0), LARGEST_COUNT)
