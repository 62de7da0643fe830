"""A worker of the next wire version: `celery -A tests.next_version worker`."""

from __future__ import annotations

from batchling_client.wire import keys

# Set before the app is imported, which reads them once.
vars(keys).update(WIRE_VERSION=2, DRAINED_VERSIONS=(1, 2))

from batchling_worker.app import app_or_exit  # noqa: E402

app = app_or_exit()
