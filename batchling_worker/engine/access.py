"""The way of a step to its account: the account itself, its circuit, and what a silent provider shows."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from batchling_client.wire.keys import LaneId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.row_cipher import RowCipher

from ..decisions.after_error import SUBMIT_STATES
from ..errors import Denied, PermanentError, Waiting
from ..pipeline.step import AccountStep, Step
from ..provider import Account
from ..providers import Providers
from . import silences
from .accounts import Accounts
from .circuit import Circuits


class Access:
    """Opens accounts, and encloses the calls that steps make to them."""

    def __init__(
        self, accounts: Accounts, circuits: Circuits, providers: Providers, longest_answer_bytes: int
    ) -> None:
        self._accounts = accounts
        self._circuits = circuits
        self._providers = providers
        self._longest_answer_bytes = longest_answer_bytes

    async def account(self, batch: Batch) -> Account:
        """Return the account of a batch; raises `PermanentError` if it has no usable host or credential."""
        account = await self._accounts.open(batch.spec, self._providers.load(batch.spec.provider).facts)
        return dataclasses.replace(account, longest_answer_bytes=self._longest_answer_bytes)

    async def cipher(self, batch: Batch) -> RowCipher | None:
        """Return what encrypts the results of a batch; None in wire version 1, or without a credential."""
        with contextlib.suppress(PermanentError):
            return await self._accounts.cipher(batch.spec)
        return None

    @contextlib.asynccontextmanager
    async def through(
        self, account: Account, steps: Sequence[Step], lane_id: LaneId | None = None
    ) -> AsyncIterator[None]:
        """Enclose the calls of steps to their account; the batches show which call the provider leaves unanswered."""
        async with (
            self._circuits.through(account, steps[0].batch.spec, lane_id),
            silences.shown([step.claim for step in steps], account.calls),
        ):
            yield

    async def run(self, step: Step, work: Callable[[AccountStep], Awaitable[None]]) -> None:
        """Run the work of a step that calls its provider."""
        batch = step.batch
        bound = step.at(await self.account(batch))
        lane_id = batch.lane_id if batch.state in SUBMIT_STATES else None
        try:
            async with self.through(bound.account, [step], lane_id):
                await work(bound)
        except (Denied, PermanentError, Waiting):
            if not bound.estranged:
                raise
            raise bound.estrangement() from None
