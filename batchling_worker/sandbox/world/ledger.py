"""The billing ledger: the rows on a provider's invoice, and every call it got."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

# One price for all models keeps totals easy to check by hand; batch rows cost half of it.
INPUT_USD_PER_TOKEN = 0.10e-6
OUTPUT_USD_PER_TOKEN = 0.40e-6
BATCH_DISCOUNT = 0.5


def cost_usd(input_tokens: int, output_tokens: int, *, batch: bool) -> float:
    """Return the price of one answered request in US dollars."""
    full = input_tokens * INPUT_USD_PER_TOKEN + output_tokens * OUTPUT_USD_PER_TOKEN
    return full * BATCH_DISCOUNT if batch else full


class BilledBatch(msgspec.Struct, kw_only=True):
    """One batch that was created, whether or not its creator got the answer; `owner` is a fingerprint."""

    provider: str
    provider_batch_id: str
    owner: str
    endpoint: str
    model: str | None
    input_file_id: str
    filename: str | None
    metadata: Mapping[str, object] | None
    created_at: float
    n_executed: int = 0
    cost_usd: float = 0.0


class ExecutedRow(msgspec.Struct, frozen=True, gc=False):
    """One row that the provider ran; a row with an HTTP error costs nothing."""

    provider: str
    provider_batch_id: str
    custom_id: str
    status_code: int
    cost_usd: float


class RealtimeCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call that was answered at once, at full price."""

    provider: str
    endpoint: str
    model: str | None
    status_code: int
    cost_usd: float
    at: float


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over a ledger; `n_billed_twice` counts custom_ids paid for more than once at one provider."""

    n_batches: int
    n_rows: int
    n_billed_twice: int
    n_realtime: int
    cost_usd: float


class LedgerPage(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of the ledger at one moment; `calls` counts HTTP calls as `provider METHOD route`."""

    batches: list[BilledBatch]
    rows: list[ExecutedRow]
    realtime: list[RealtimeCall]
    calls: dict[str, int]
    totals: Totals

    def billed(self) -> Counter[str]:
        """Return how many times each custom_id was paid for."""
        return Counter(row.custom_id for row in self.rows if row.cost_usd > 0)

    def executed(self) -> Counter[str]:
        """Return how many times each custom_id was run, with success or not."""
        return Counter(row.custom_id for row in self.rows)


class Ledger:
    """Collects entries from every provider; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batches: dict[str, BilledBatch] = {}
        self._rows: list[ExecutedRow] = []
        self._realtime: list[RealtimeCall] = []
        self._calls: Counter[str] = Counter()

    def call(self, provider: str, method: str, route: str) -> None:
        """Count one HTTP call."""
        with self._lock:
            self._calls[f"{provider} {method} {route}"] += 1

    def batch(self, entry: BilledBatch) -> None:
        """Enter a batch at its creation."""
        with self._lock:
            self._batches[entry.provider_batch_id] = entry

    def rows(self, provider_batch_id: str, rows: Iterable[ExecutedRow]) -> None:
        """Enter the rows that a batch has run, once, at its end."""
        with self._lock:
            start = len(self._rows)
            self._rows.extend(rows)
            entry = self._batches.get(provider_batch_id)
            if entry is not None:
                entry.n_executed += len(self._rows) - start
                entry.cost_usd += sum(row.cost_usd for row in self._rows[start:])

    def realtime(self, entry: RealtimeCall) -> None:
        """Enter one realtime call."""
        with self._lock:
            self._realtime.append(entry)

    def page(self) -> LedgerPage:
        """Return a copy of everything entered so far."""
        with self._lock:
            batches = [msgspec.structs.replace(entry) for entry in self._batches.values()]
            rows, realtime, calls = list(self._rows), list(self._realtime), dict(self._calls)
        paid = Counter((row.provider, row.custom_id) for row in rows if row.cost_usd > 0)
        totals = Totals(
            n_batches=len(batches),
            n_rows=len(rows),
            n_billed_twice=sum(1 for n in paid.values() if n > 1),
            n_realtime=len(realtime),
            cost_usd=sum(row.cost_usd for row in rows) + sum(entry.cost_usd for entry in realtime),
        )
        return LedgerPage(batches=batches, rows=rows, realtime=realtime, calls=calls, totals=totals)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._batches.clear()
            self._rows.clear()
            self._realtime.clear()
            self._calls.clear()
