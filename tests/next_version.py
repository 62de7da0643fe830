"""A worker of the next wire version: `celery -A tests.next_version worker`."""

from __future__ import annotations

from batchling_client.wire import keys
from batchling_client.wire.keys import DRAINED_VERSIONS, WIRE_VERSION

# Set before the app is imported, which reads them once.
vars(keys).update(WIRE_VERSION=WIRE_VERSION + 1, DRAINED_VERSIONS=(*DRAINED_VERSIONS, WIRE_VERSION + 1))

from batchling_worker.app import app_or_exit  # noqa: E402

app = app_or_exit()
