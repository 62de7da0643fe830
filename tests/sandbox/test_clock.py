"""The clock can be frozen and advanced, and never moves back by itself."""

from __future__ import annotations

import time

import pytest

from batchling_worker.sandbox import Clock


def test_clock_is_real_time_at_first() -> None:
    assert Clock().now() == pytest.approx(time.time(), abs=1)


def test_frozen_clock_moves_by_advance_only() -> None:
    clock = Clock()
    frozen_at = clock.freeze()
    assert clock.frozen
    assert clock.now() == frozen_at
    assert clock.advance(86_400) == frozen_at + 86_400
    assert clock.now() == frozen_at + 86_400


def test_thawed_clock_continues_from_where_it_stopped() -> None:
    clock = Clock()
    clock.freeze()
    clock.advance(86_400)
    before = clock.now()
    assert clock.thaw() >= before
    assert not clock.frozen
    assert clock.now() == pytest.approx(time.time() + 86_400, abs=1)


def test_running_clock_can_be_advanced() -> None:
    clock = Clock()
    assert clock.advance(3600) == pytest.approx(time.time() + 3600, abs=1)


def test_clock_cannot_be_moved_back() -> None:
    with pytest.raises(ValueError, match="back"):
        Clock().advance(-1)


def test_reset_goes_back_to_real_time() -> None:
    clock = Clock()
    clock.freeze()
    clock.advance(3600)
    assert clock.reset() == pytest.approx(time.time(), abs=1)
    assert not clock.frozen
