"""The wire versions that a worker serves: its own, and older ones until their batches are drained."""

from __future__ import annotations

from typing import Final

from batchling_client.wire.keys import DRAINED_VERSIONS

FIRST: Final = 1
"""The wire version of a message without a version."""
SERVED: Final = tuple(sorted(DRAINED_VERSIONS, reverse=True))
"""The worker's own version first."""


def queue_of(version: int) -> str:
    """Return the Celery queue that workers of a wire version send to; those of older versions never read it."""
    return "batchling" if version == FIRST else f"batchling.{version}"
