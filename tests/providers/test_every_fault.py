"""Each fault of the sandbox is run against every provider's adapter, unless its API cannot show it."""

from __future__ import annotations

from typing import Final

import pytest

from batchling_worker.sandbox import Sandbox, emulator
from batchling_worker.sandbox.world import faults

from .desk import Desk
from .fault_cases import CASES, UNABLE, live

PAIRS: Final = [
    pytest.param(name, kind, id=f"{name}-{kind.__name__}")
    for name in emulator.names()
    for kind in CASES
    if kind not in UNABLE[name]
]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
async def test_a_batch_comes_through_a_fault_as_it_should(
    desk: Desk, sandbox: Sandbox, name: str, kind: type[faults.Fault]
) -> None:
    case = CASES[kind]
    sandbox.faults.add(*filter(None, (case.fault, case.beside)))
    life = await live(desk, sandbox, cancels=case.cancels)
    assert sandbox.faults.n_struck(kind) >= 1
    case.check(life, desk)
