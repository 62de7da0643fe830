"""The pure decisions about enqueued tokens: what is a refusal, what it teaches, how small the next batch must be."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import LINE_OVERHEAD
from batchling_client.wire.states import Outcome
from batchling_worker.decisions import fates, quota
from batchling_worker.decisions.quota import Limit
from batchling_worker.provider import Complaint, Ending

from .test_lifecycle import ONE, batch

TOLD = (
    "Enqueued token limit reached for gpt-4o in organization org-x. Limit: 90,000 enqueued tokens. "
    "Please try again once some in_progress batches have been completed."
)
NEVER = dt.timedelta()
LONG = dt.timedelta(hours=2)


def of_size(n_rows: int, body_bytes: int, **changes: Any) -> Batch:
    return batch(n_requests=n_rows, n_bytes=n_rows * (body_bytes + LINE_OVERHEAD), **changes)


@pytest.mark.parametrize(
    ("words", "code", "limit"),
    [
        (TOLD, "token_limit_exceeded", 90_000),
        (f"groq answered 429 when asked to create a batch: {TOLD}", "", 90_000),
        ("Enqueued token limit reached. Please try again.", "token_limit_exceeded", None),
        ("", "token_limit_exceeded", None),
        ("Limit: 1,000,000 enqueued requests. Please try again later.", "token_limit_exceeded", None),
        ("The enqueued token limit of 2 000 000 tokens is reached", "", 2_000_000),
        ("Limit: 0 enqueued tokens", "", None),
    ],
)
def test_a_refusal_is_known_by_its_words_or_code_with_its_figure(
    words: str, code: str, limit: int | None
) -> None:
    refusal = quota.refusal_in(words, code)
    assert refusal is not None
    assert refusal.limit == limit
    assert refusal.why


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Rate limit reached for requests. Limit: 90,000 tokens per minute.", "rate_limit_exceeded"),
        ("The provided model is not supported by the Batch API.", "model_not_found"),
        ("", ""),
    ],
)
def test_a_sentence_about_something_else_is_not_a_refusal(words: str, code: str) -> None:
    assert quota.refusal_in(words, code) is None


def test_a_figure_that_is_exceeded_is_believed() -> None:
    for others, tokens in ((80_000, 20_000), (0, 90_001)):
        assert quota.learned_limit(tokens, 90_000, others, news=False) == Limit(tokens=90_000, guess=False)


def test_without_a_figure_or_against_it_own_sums_are_believed() -> None:
    for said in (None, 90_000):
        assert quota.learned_limit(20_000, said, 60_000, news=True) == Limit(tokens=60_000, guess=True)
        assert quota.learned_limit(40_000, said, 0, news=True) == Limit(tokens=20_000, guess=True)


def test_a_batch_that_the_figure_surely_has_room_for_teaches_nothing_alone() -> None:
    """Somebody else fills the quota: to split for that would end in batches of one row."""
    assert quota.learned_limit(1500, 90_000, 0, news=True) is None


def test_what_was_let_in_before_the_limit_was_known_does_not_speak_against_its_figure() -> None:
    """Others that were in flight when it was refused may have ended before that is heard of."""
    for others in (0, 20_000):
        assert quota.learned_limit(20_000, 90_000, others, news=False) == Limit(tokens=90_000, guess=False)


def refusal(limit: int | None, why: str = "Enqueued token limit reached.") -> quota.Refusal:
    return quota.Refusal(why=why, limit=limit)


def test_one_row_is_blamed_only_alone_and_where_the_figure_has_no_room_for_it() -> None:
    def hopeless(n_rows: int, tokens: int, said: int | None, others: int) -> bool:
        return quota.hopeless(n_rows, tokens, refusal(said), others, 1, NEVER)

    assert hopeless(1, 100, 90, 0)
    assert hopeless(1, 100, None, 0)
    assert not hopeless(1, 100, 90, 50), "own batches are in flight"
    assert not hopeless(2, 100, 90, 0), "it can be split"
    assert not hopeless(1, 100, 1000, 0), "somebody else fills the quota"
    assert not quota.hopeless(1, 100, refusal(1000), 0, 9, LONG)
    assert quota.hopeless(1, 100, refusal(1000), 0, 10, LONG), "and has for hours"


def test_words_that_may_mean_another_quota_blame_no_row_before_they_last() -> None:
    """Google says the same of too many batches at once, and of tokens, also well below the quota."""
    vague = refusal(None, "gemini answered 429: Resource has been exhausted (e.g. check quota).")
    assert not quota.hopeless(1, 100, vague, 0, 1, NEVER)
    assert not quota.hopeless(1, 100, vague, 0, 9, LONG)
    assert quota.hopeless(1, 100, vague, 0, 10, LONG)


def test_tokens_are_those_of_the_bodies_that_are_still_wanted() -> None:
    assert quota.tokens_of(of_size(10, 400)) == 1000
    assert quota.tokens_of(of_size(10, 400, n_dropped=5)) == 500
    assert quota.tokens_of(of_size(10, 0)) == 10
    assert quota.tokens_of(batch(n_requests=0, n_bytes=0)) == 0


@given(n_rows=st.integers(2, 50_000), body=st.integers(1, 20_000), share=st.floats(0.001, 1.5))
def test_the_next_batches_are_less_than_half_of_one_that_is_over_the_limit(
    n_rows: int, body: int, share: float
) -> None:
    """So that splitting comes to an end, whatever the rows are like."""
    large = of_size(n_rows, body)
    limit = max(1, int(quota.tokens_of(large) * share))
    size = quota.next_size(large, limit)
    assert size.rows >= 1
    if limit < quota.tokens_of(large):
        assert size.rows == 1 or size.rows <= n_rows / 2


def test_without_a_limit_a_batch_keeps_its_size() -> None:
    large = of_size(100, 400)
    assert quota.next_size(large, None) == quota.Size(rows=100, n_bytes=large.n_bytes)


def test_quotas_are_separate_for_each_account_and_model() -> None:
    ids = {quota.quota_id(account, model) for account in ("a", "b") for model in ("m", "n")}
    assert len(ids) == 4


def test_a_quota_whose_words_ask_to_try_again_is_not_a_fault_of_the_server() -> None:
    full = Ending(complaints=(Complaint(code="token_limit_exceeded", message=TOLD),))
    failed = batch(outcome=Outcome.FAILED, n_lines=1)

    fate = fates.row_fate(failed, full, ONE, attempt=1, max_attempts=3)
    alone = msgspec.structs.replace(full, hopeless=True)
    refusal = fates.row_fate(failed, alone, ONE, attempt=1, max_attempts=3)

    assert fate == fates.Requeue(counts=False)
    assert isinstance(refusal, fates.Refuse)
    assert refusal.status == 400
