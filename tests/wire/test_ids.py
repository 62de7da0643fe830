"""Ids: fit for every provider, never met twice by chance, met again on purpose."""

from __future__ import annotations

import re
import time

import pytest

from batchling_client.wire import ids
from batchling_client.wire.keys import LaneId
from batchling_worker.pipeline.result_chunks import REQUEST_ID

LANE = LaneId("0123456789abcdef0123")
EVERYWHERE = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What all providers take as a custom_id."""


def test_request_ids_pass_as_custom_ids_and_are_known_again_when_they_come_back() -> None:
    for made in (ids.new_request_id(), ids.request_id(LANE, b"{}", 1)):
        assert EVERYWHERE.fullmatch(made)
        assert REQUEST_ID.fullmatch(made)


def test_the_same_call_of_a_rerun_has_the_same_id() -> None:
    assert ids.request_id(LANE, b'{"a":1}', 3) == ids.request_id(LANE, b'{"a":1}', 3)


def test_lane_body_and_occurrence_each_make_another_id() -> None:
    calls = [(LANE, b"a", 1), (LANE, b"a", 2), (LANE, b"b", 1), (LaneId("f" * 20), b"a", 1), (LANE, b"a", 11)]
    assert len({ids.request_id(*call) for call in calls}) == len(calls)


@pytest.mark.parametrize(
    "make",
    [ids.new_request_id, ids.new_batch_id, ids.new_run_id, ids.new_mailbox],
    ids=lambda make: make.__name__,
)
def test_fresh_ids_differ_and_hold_nothing_that_scripts_or_keys_take_apart(make) -> None:  # type: ignore[no-untyped-def]
    made = [make() for _ in range(2000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"[a-z0-9]+", one) for one in made)


def test_later_batches_and_runs_sort_later(monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (ids.new_batch_id, ids.new_run_id):
        made = []
        for now_s in (0.001, 1.0, 1_790_000_000.0, 1_790_000_000.001, 4_000_000_000.0):
            monkeypatch.setattr(time, "time", lambda now_s=now_s: now_s)
            made.append(make())
        assert made == sorted(made)
        assert len({len(one) for one in made}) == 1
