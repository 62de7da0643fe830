"""The input of a step: the batch it holds, the way to the provider, and the settings."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from typing import Final

from batchling_client.wire.answer_shape import LONGEST_ANSWER_BYTES
from batchling_client.wire.keys import BatchId, ProviderBatchId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.row_cipher import RowCipher
from batchling_client.wire.states import BatchState

from .. import backoff
from ..claim import Claim
from ..decisions import submission
from ..errors import TemporaryError
from ..provider import (
    Account,
    Ended,
    Provider,
    Running,
    SearchCriteria,
    Seen,
    Submission,
)
from ..providers import Providers
from ..store import Store
from ..telemetry import Telemetry

MOST_SHOWN: Final = 100
"""How many characters of a foreign id are shown."""
ESTRANGED_LONGEST_S: Final = 60.0
"""The longest time until a restored key is noticed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """The settings a step reads, as values."""

    namespace: str
    poll_interval_s: float
    max_attempts: int
    reconcile_patience_s: float
    results_patience_s: float
    longest_answer_bytes: int = LONGEST_ANSWER_BYTES
    """Bytes of a row of results; a longer one is not read."""
    batch_answers_bytes: int = 1024**3
    """Bytes that the answers of a batch may take in Redis."""
    keeps_files: bool = False
    poll_unnamed: bool = False
    """Whether no setting names the interval between looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step on one batch, under one claim."""

    claim: Claim
    batch: Batch
    store: Store
    settings: StepSettings
    providers: Providers
    telemetry: Telemetry
    reach: Callable[[str], None]
    """Marks a point at which a crash test may kill the process."""
    cipher: RowCipher | None = field(default=None, repr=False)
    """What opens rows and encrypts results; None in wire version 1, and where the credential cannot be opened: then
    batchling's own errors stand in clear."""
    began_s: float = field(default_factory=time.monotonic)
    """When the step began, by this process' monotonic clock."""

    @property
    def provider(self) -> Provider:
        """The batch's provider; raises `PermanentError` if none has its name, as in a foreign record."""
        return self.providers.load(self.batch.spec.provider)

    @property
    def least_look_s(self) -> float:
        """The shortest pause between two looks at a batch that the provider asks for, in seconds."""
        return self.providers.least_look_s(self.batch.spec.provider)

    @property
    def now(self) -> dt.datetime:
        """The server's time when the step began: workers' own clocks may differ."""
        return self.batch.read_at or dt.datetime.now(dt.UTC)

    @property
    def elapsed_s(self) -> float:
        """How long the step has been running, in seconds."""
        return time.monotonic() - self.began_s

    def submission(self, label: str, n_lines: int) -> Submission:
        """Return the description of the batch that the provider gets."""
        spec = self.batch.spec
        return Submission(
            batch_id=self.batch.batch_id,
            label=label,
            endpoint=spec.endpoint,
            model=spec.model,
            completion_window=spec.completion_window,
            n_lines=n_lines,
        )

    def criteria(self, label: str) -> SearchCriteria:
        """Return what identifies the batch of an earlier create in a search."""
        batch = self.batch
        others: dict[ProviderBatchId, BatchId] | None = None

        async def is_another(provider_batch_id: ProviderBatchId) -> bool:
            nonlocal others
            if others is None:
                others = await self.store.provider_batches()
            return others.get(provider_batch_id, batch.batch_id) != batch.batch_id

        async def holds(custom_ids: Collection[str]) -> bool:
            return await self.store.waits_in(batch.batch_id, custom_ids)

        return SearchCriteria(
            submission=self.submission(label, batch.n_lines),
            input_file_ids=tuple(one for one in (batch.input_file_id, batch.former_file_id) if one),
            since=batch.create_at or batch.created_at,
            is_another=is_another,
            holds=holds,
        )

    @property
    def surely_unmade(self) -> bool:
        """Whether surely no create was sent for the batch before this step, and Redis cannot have forgotten any."""
        return not submission.may_be_made(self.batch)

    def at(self, account: Account) -> AccountStep:
        """Return the step with the account whose provider it may call."""
        known = {one.name: getattr(self, one.name) for one in fields(Step)}
        return AccountStep(**{**known, "cipher": account.cipher}, account=account)

    @property
    def estranged(self) -> bool:
        """Whether the batch was created under another key or host, so that not seeing it proves nothing."""
        return False

    def estrangement(self) -> TemporaryError:
        """Return the error with which a batch waits that only another account can see."""
        batch = self.batch
        way_out = "" if batch.state is BatchState.ENDED else f", or `batchling cancel {batch.batch_id}`"
        return TemporaryError(
            f"{batch.batch_id} was created with a different API key or host of {batch.spec.provider}: "
            f"restore it{way_out}",
            delay_s=min(backoff.pause_s(batch.n_stumbles), ESTRANGED_LONGEST_S),
        )

    def own(self, seen: Seen) -> Seen:
        """Return what a look at the batch showed; an answer that shows another batch shows nothing of this one."""
        other = seen.other if isinstance(seen, Running | Ended) else None
        files = [one for one in (self.batch.input_file_id, self.batch.former_file_id) if one]
        if other is None or other.is_of(self.batch.label, files):
            return seen
        return TemporaryError(
            f"{self.batch.spec.provider} answered the look at {self.batch.provider_batch_id} with another batch "
            f"({other.provider_batch_id[:MOST_SHOWN]}), as a cache on the way may: it is looked at again"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountStep(Step):
    """A step that may call its provider."""

    account: Account

    @property
    def estranged(self) -> bool:
        batch = self.batch
        return batch.create_at is not None and batch.account not in ("", self.account.digest)
