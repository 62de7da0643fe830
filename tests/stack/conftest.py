from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchling_worker.stack import control

from .bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A home with nothing in it; whatever a test starts there is stopped."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BATCHLING_")}
    bench = Bench(home=tmp_path / "home", environment=environment)
    yield bench
    if bench.home.is_dir():
        control.down(bench.home)
    assert bench.everything() == []
