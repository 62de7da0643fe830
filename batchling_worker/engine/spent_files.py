"""Deletes files at providers that batches no longer need; the outcome never affects a batch."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from redis.exceptions import RedisError

from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_client.wire.keys import BatchId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import CorruptRecord
from batchling_client.wire.states import BatchState

from ..claim import SPENT_RESULTS_MS
from ..errors import PermanentError, TemporaryError
from ..provider import Ending, SpentFiles
from ..providers import Providers
from ..store import Store
from ..telemetry import Telemetry
from .accounts import Accounts

INPUTS: Final = "inputs"
RESULTS: Final = "results"
PATIENCE: Final = dt.timedelta(days=1)
"""How long a delete with a temporary error is tried again, once an hour."""


class Deletion:
    """Deletes files of settled batches: input files at once, result files a week later."""

    def __init__(self, store: Store, accounts: Accounts, providers: Providers, telemetry: Telemetry) -> None:
        self._store = store
        self._accounts = accounts
        self._providers = providers
        self._telemetry = telemetry

    async def delete(self, members: Sequence[str]) -> None:
        """Delete files that were claimed, by `inputs:` or `results:` and the id of their batch."""
        try:
            for member in members:
                if await self._deleted(member):
                    await self._store.deleted(member)
        except (*UNREACHABLE, RedisError) as error:
            # They become due again after a while.
            self._telemetry.warn("files_not_deleted", reason=type(error).__name__)

    async def _deleted(self, member: str) -> bool:
        """Return whether nothing is left to do: the files are deleted, or are to stay."""
        kind, _, name = member.partition(":")
        try:
            batch = await self._store.batch(BatchId(name)) if name.isascii() else None
            if batch is None or kind not in (INPUTS, RESULTS):
                return True
            if not batch.state.terminal:
                # A reopened batch is read again and then schedules its files anew.
                return batch.state is not BatchState.ENDED
            return await self._delete(batch, kind)
        except CorruptRecord:
            return True
        except (*UNREACHABLE, RedisError):
            raise
        except Exception as error:  # noqa: BLE001 - a defect of ours must not make a delete be tried for ever
            self._telemetry.warn("files_not_deleted", batch=BatchId(name), reason=type(error).__name__)
            return True

    async def _delete(self, batch: Batch, kind: str) -> bool:
        spent = await self._spent(batch, kind)
        if not spent.inputs and not spent.results:
            return True
        try:
            provider = self._providers.load(batch.spec.provider)
            account = await self._accounts.open(batch.spec, provider.facts)
            if account.digest != batch.account or account.keeps_files:
                return True
            await provider.delete(account, spent)
        except PermanentError as error:
            self._telemetry.warn("files_not_deleted", batch=batch, files=kind, reason=error.recorded)
            return True
        except TemporaryError as error:
            self._telemetry.log("files_not_deleted", batch=batch, files=kind, reason=error.recorded)
            return _tried_long(batch, kind)
        self._telemetry.log(
            "files_deleted", batch=batch, files=kind, n=len(spent.inputs) + len(spent.results)
        )
        return True

    async def _spent(self, batch: Batch, kind: str) -> SpentFiles:
        inputs: tuple[str, ...] = ()
        if kind == INPUTS:
            inputs = tuple(one for one in (batch.input_file_id, batch.former_file_id) if one)
            if self._providers.load(batch.spec.provider).facts.equal_files_are_one:
                used = [await self._store.uses_file(one, batch.batch_id) for one in inputs]
                inputs = tuple(one for one, is_used in zip(inputs, used, strict=True) if not is_used)
        return SpentFiles(
            endpoint=batch.spec.endpoint,
            label=batch.label,
            provider_batch_id=batch.provider_batch_id,
            inputs=inputs,
            results=Ending.decode(batch.ending).results if kind == RESULTS else (),
        )


def _tried_long(batch: Batch, kind: str) -> bool:
    due = dt.timedelta(milliseconds=SPENT_RESULTS_MS) if kind == RESULTS else dt.timedelta()
    settled_at = batch.settled_at or batch.updated_at
    return dt.datetime.now(dt.UTC) - settled_at >= due + PATIENCE
