"""What a step is given: the batch it holds, the way to the provider, and the knobs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from batchling_client.wire.batches import Batch

from . import providers
from .provider import Account, Provider, Submission
from .store import Held, Store
from .telemetry import Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """The settings a step reads, as values."""

    namespace: str
    poll_interval_s: float
    max_attempts: int
    reconcile_patience_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step on one batch, under one claim."""

    held: Held
    batch: Batch
    store: Store
    account: Account | None
    """None where the step needs no provider, or the credential cannot be had."""
    knobs: Knobs
    telemetry: Telemetry
    reach: Callable[[str], None]
    """Names a point a crash test may die at."""

    @property
    def provider(self) -> Provider:
        """The batch's provider; raises `PermanentError` where there is none of its name, as in a foreign record."""
        return providers.load(self.batch.spec.provider)

    @property
    def now(self) -> dt.datetime:
        """The server's time when the step began: workers' own clocks may differ."""
        return self.batch.read_at or dt.datetime.now(dt.UTC)

    def submission(self, label: str, n_lines: int) -> Submission:
        """The batch as the provider is told of it."""
        spec = self.batch.spec
        return Submission(
            batch_id=self.batch.batch_id,
            label=label,
            endpoint=spec.endpoint,
            model=spec.model,
            completion_window=spec.completion_window,
            n_lines=n_lines,
        )

    def way(self) -> Account:
        """The account; a step that needs one is never started without."""
        if self.account is None:
            raise RuntimeError(f"{self.batch.batch_id} was started without an account")
        return self.account
