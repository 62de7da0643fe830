"""The cost of one test: at the sandbox, and in calls that reached a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from batchling_client.intercept.interceptor import HttpCall
from batchling_worker.sandbox import LedgerPage, Sandbox
from batchling_worker.sandbox.world.ledger import BilledBatch, ExecutedRow


@dataclass(slots=True, kw_only=True)
class Books:
    """The sandbox's ledger since the start of a test, the caught calls, and the calls past batchling."""

    sandbox: Sandbox
    slipped: list[str]
    """Hosts that were called past batchling."""
    calls: list[HttpCall] = field(default_factory=list)
    before: LedgerPage = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.sandbox.ledger()

    def batches(self) -> list[BilledBatch]:
        """Return the provider batches of this test."""
        known = {batch.provider_batch_id for batch in self.before.batches}
        return [batch for batch in self.sandbox.ledger().batches if batch.provider_batch_id not in known]

    def rows(self) -> list[ExecutedRow]:
        """Return the rows that the provider ran for this test."""
        known = {batch.provider_batch_id for batch in self.before.batches}
        return [row for row in self.sandbox.ledger().rows if row.provider_batch_id not in known]

    def check_nothing_at_full_price(self) -> None:
        """Fail if a call went to the real provider, or to its realtime endpoints."""
        assert self.slipped == []
        assert self.sandbox.ledger().totals.n_realtime == self.before.totals.n_realtime
