"""What a worker's heartbeat says; the seal keys in it follow their file."""

from __future__ import annotations

import msgspec

from batchling_client.wire.deployment.keyring import Keyring
from batchling_client.wire.records.row_and_result import WorkerPresence

from ..telemetry import Telemetry


class Presence:
    """Makes the heartbeats of one worker, and logs when its seal keys have changed or cannot be read again."""

    def __init__(self, worker: WorkerPresence, keyring: Keyring, telemetry: Telemetry) -> None:
        self._keyring = keyring
        self._telemetry = telemetry
        self._trouble = ""
        self.last = _with_keys(worker, keyring.digests())

    def now(self) -> WorkerPresence:
        """Return the next heartbeat."""
        digests = self._keyring.digests()
        if digests != self.last.opens:
            self._telemetry.log("seal_keys_changed", seal_for=digests[0], opens=" ".join(digests))
            self.last = _with_keys(self.last, digests)
        trouble = self._keyring.trouble
        if trouble and trouble != self._trouble:
            self._telemetry.warn("seal_keys_unreadable", error=trouble)
        self._trouble = trouble
        return self.last


def _with_keys(worker: WorkerPresence, digests: tuple[str, ...]) -> WorkerPresence:
    return msgspec.structs.replace(worker, seal_public_key=digests[0], opens=digests)
