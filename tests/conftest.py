"""Marks the long tests, which `make test` leaves to `make test-long`."""

from __future__ import annotations

import contextlib
import gc
import signal
from pathlib import Path
from typing import Final

import pytest

from batchling_client.intercept import switch

# A shell that runs the tests in the background makes them and their child processes ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The environments of the SDKs do not have Hypothesis.
with contextlib.suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # A slow example on a busy machine proves nothing about the code: pytest-timeout is the only time limit.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")

HERE: Final = Path(__file__).parent
LONG: Final = (
    "cli/test_base_urls.py",
    "cli/test_bulk.py",
    "cli/test_display.py",
    "cli/test_doctor.py",
    "cli/test_failures.py",
    "cli/test_looking.py",
    "cli/test_moved_programs.py",
    "cli/test_own_endpoint.py",
    "cli/test_programs.py",
    "cli/test_rehearsing.py",
    "cli/test_running.py",
    "cli/test_usage.py",
    "client/test_cancelling.py",
    "client/test_exits.py",
    "client/test_passing_children.py",
    "client/test_shortages.py",
    "death/",
    "docs/test_examples.py",
    "docs/test_json_commands.py",
    "failover/",
    "interceptors/test_patching.py",
    "pipeline/",
    "providers/test_every_fault.py",
    "providers/test_lies.py",
    "roles/test_paths.py",
    "sandbox/test_startup.py",
    "sandbox/test_startup_sdks.py",
    "scripts/test_model.py",
    "stack/test_mending.py",
    "stack/test_settings_apart.py",
    "stack/test_settings_checked.py",
    "stack/test_up.py",
    "weather/",
    "worker/test_app.py",
)
"""Folders and files whose tests run whole deployments, or wait for leases, backoffs and fail-overs."""
LONG_S: Final = 180.0
"""Their time limit: on a busy machine each worker takes many seconds to start. Each wait has a limit of its own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(HERE).as_posix().startswith(LONG):
            item.add_marker(pytest.mark.long)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(LONG_S))


@pytest.fixture
def nothing_intercepted() -> None:
    """Collect the reference cycles of earlier tests: a context in a cycle keeps interception on."""
    if switch._switch.n_users:
        gc.collect()
    assert switch._switch.n_users == 0
