"""Each fault of the sandbox is run for every provider, or declared impossible with a reason."""

from __future__ import annotations

import pytest

from batchling_worker.sandbox import emulator
from batchling_worker.sandbox.world import faults

from .fault_cases import CASES, OTHERWISE, UNABLE
from .test_every_fault import PAIRS


@pytest.mark.parametrize("provider", emulator.names())
def test_every_fault_is_run_or_declared_impossible_with_a_reason(provider: str) -> None:
    assert set(faults.KINDS) == set(CASES) | set(OTHERWISE), "a new fault needs a case"
    assert not set(CASES) & set(OTHERWISE)
    for kind, reason in UNABLE[provider].items():
        assert kind in faults.KINDS
        assert len(reason.split()) > 3, f"{kind.__name__}: {reason}"
        assert reason.endswith(".")
    run = {kind for name, kind in (pair.values for pair in PAIRS) if name == provider}
    assert run | set(UNABLE[provider]) | set(OTHERWISE) == set(faults.KINDS)
