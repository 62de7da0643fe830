"""The batches of one provider: checked and run in a thread once created, shown as of the clock's time."""

from __future__ import annotations

import asyncio
import bisect
from collections import defaultdict, deque
from pathlib import Path

from ..world.ledger import BilledBatch
from ..world.world import World
from . import timing
from .dialect import Dialect, Refusal
from .execute import Executed, Job, execute
from .file_store import FileShelf
from .lines import reshape
from .planning import plan_batch
from .records import Batch, BatchView, CreateAsk, Outcome, StoredFile, Written
from .scan import LineError, Scan, scan

_HOUR_S = 3600.0


class BatchBook:
    """Creates, advances and cancels batches; call every method on the server's event loop."""

    def __init__(self, world: World, dialect: Dialect, shelf: FileShelf) -> None:
        self._world = world
        self._dialect = dialect
        self._shelf = shelf
        self._provider = dialect.traits.name
        self._batches: dict[str, Batch] = {}
        self._created_at: defaultdict[str, deque[float]] = defaultdict(deque)

    def check_rate(self, owner: str) -> None:
        """Raise Refusal when this owner has created too many batches within an hour."""
        if not self._dialect.traits.limits_creates:
            return
        recent, now = self._created_at[owner], self._world.clock.now()
        while recent and recent[0] <= now - _HOUR_S:
            recent.popleft()
        if len(recent) >= self._world.limits.max_creates_per_hour:
            wait_s = str(max(1, int(recent[0] + _HOUR_S - now)))
            message = "Too many batches were created within an hour."
            raise Refusal(429, message, code="rate_limit_exceeded", retry_after=wait_s)
        recent.append(now)

    def create(
        self,
        ask: CreateAsk,
        owner: str,
        window_s: float,
        source: StoredFile | LineError,
        tokens: int = 0,
        *,
        batch_id: str | None = None,
    ) -> Batch:
        """Add a batch and start to run it; its input may be replaced by the error that it must fail with.

        `tokens` count against the quota from now on if they are known, else once the batch is validated.
        """
        now = self._world.clock.now()
        input_file = source if isinstance(source, StoredFile) else None
        model = input_file.model if input_file else None
        plan = plan_batch(self._world, self._provider, model, now)
        batch = Batch(
            id=batch_id or self._dialect.new_batch_id(),
            owner=owner,
            ask=ask,
            model=model,
            created_at=now,
            expires_at=now + window_s,
            timeline=timing.timeline(now, self._world.speeds.of(model), plan.stick),
            plan=plan,
            failures=(source,) if isinstance(source, LineError) else plan.failures,
            enqueued_tokens=tokens,
            works_late=self._dialect.traits.works_late,
        )
        if self._dialect.traits.early_files:
            batch.early_ids = (self._shelf.new_id(), self._shelf.new_id())
        self._batches[batch.id] = batch
        self._world.ledger.batch(self._billed(batch, input_file))
        if input_file is not None and not batch.failures:
            # A link of its own, because the caller may delete the input file while the batch still needs it.
            batch.input_path = self._shelf.scratch()
            batch.input_path.hardlink_to(input_file.path)
            batch.checked = asyncio.create_task(self._check(batch, batch.input_path))
            batch.executed = asyncio.create_task(self._execute(batch, batch.checked))
        return batch

    def find(self, batch_id: str, owner: str) -> Batch | None:
        """Return the batch if this owner can see it now."""
        batch, now = self._batches.get(batch_id), self._world.clock.now()
        if batch is None or batch.owner != owner:
            return None
        return batch if batch.plan.hidden_until <= now < batch.plan.lost_from else None

    def newest_first(self, owner: str) -> list[Batch]:
        """Return every batch that a list call of this owner shows now."""
        now = self._world.clock.now()
        batches = (self.find(batch_id, owner) for batch_id in reversed(self._batches))
        return [batch for batch in batches if batch is not None and batch.plan.listed_from <= now]

    def remove(self, batch: Batch) -> None:
        """Delete a batch that has ended; its cost stays in the ledger."""
        self._batches.pop(batch.id, None)

    def cancel(self, batch: Batch) -> None:
        """Cancel a running batch; rows that are answered by now stay answered."""
        if batch.outcome is None and batch.cancelling_at is None:
            batch.cancelling_at = self._world.clock.now()

    async def show(self, batch: Batch) -> BatchView:
        """Move the batch on to now and return it as the provider shows it."""
        now = self._world.clock.now()
        async with batch.lock:
            await self._catch_up(batch, now)
        n_total = n_failed = 0
        if batch.checked is not None and batch.checked.done():
            found = batch.checked.result()
            n_total, n_failed = found.n_lines, found.n_skipped
            executed = (
                batch.executed.result() if batch.executed is not None and batch.executed.done() else None
            )
            if executed is not None:
                n_run = int(len(found.starts) * timing.done_share(batch, now))
                n_failed += bisect.bisect_left(executed.failed_at, n_run)
        return timing.view(batch, now, n_total, n_failed)

    async def listed(self, batch: Batch) -> BatchView:
        """Move the batch on to now and return it as the provider's lists show it."""
        return timing.listed(batch, await self.show(batch), self._world.clock.now())

    async def written(self, batch: Batch) -> tuple[Written, Written] | None:
        """Return output and error lines of the rows that have run by now, in the order of execution.

        Return None if nothing has run. A file that does not exist because it had no lines has 0 bytes.
        """
        await self.show(batch)
        job, outcome = batch.job, batch.outcome
        if job is None or batch.executed is None:
            return None
        executed = await batch.executed
        if executed is None:
            return None
        paths = (job.output_path, job.error_path)
        if outcome is not None:
            sizes = tuple(path.stat().st_size if path.exists() else 0 for path in paths)
        else:
            n_run = int(len(executed.output_ends) * timing.done_share(batch, self._world.clock.now()))
            ends = (executed.output_ends, executed.error_ends)
            sizes = tuple(end[n_run - 1] if n_run else 0 for end in ends)
        output, errors = (
            Written(
                path=path, n_bytes=size, model=batch.model, complete=outcome is not None, refusing=refusing
            )
            for path, size, refusing in zip(paths, sizes, (None, batch.plan.bad_error_file), strict=True)
        )
        return output, errors

    async def growing(self, file_id: str, owner: str) -> Written | None:
        """Return the result file with that id, of a batch that still runs."""
        for batch in self.newest_first(owner):
            if batch.early_ids is None or file_id not in batch.early_ids:
                continue
            written = await self.written(batch)
            return None if written is None else written[batch.early_ids.index(file_id)]
        return None

    async def catch_up(self) -> list[BatchView]:
        """Move every batch on to now, so that the ledger is complete, and return them all, oldest first."""
        return [view for _, view in await self.shown()]

    async def shown(self) -> list[tuple[Batch, BatchView]]:
        """Move every batch on to now, and return each with its view, oldest first."""
        return [(batch, await self.show(batch)) for batch in list(self._batches.values())]

    async def clear(self) -> None:
        """Forget every batch, once the work that is under way has ended."""
        batches = list(self._batches.values())
        self._batches.clear()
        self._created_at.clear()
        await asyncio.gather(*(batch.executed for batch in batches if batch.executed), return_exceptions=True)

    async def _check(self, batch: Batch, input_path: Path) -> Scan:
        loop = asyncio.get_running_loop()
        rules, limits = self._dialect.line_rules(batch.ask), self._world.limits
        most = self._dialect.traits.row_limit(limits)
        found = await loop.run_in_executor(self._world.pool, scan, input_path, rules, limits, most)
        if not found.fatal:
            self._check_enqueued(batch, found)
        if not found.fatal:
            batch.enqueued_tokens = found.input_tokens
            batch.job = self._job(batch, input_path)
        return found

    async def _execute(self, batch: Batch, checked: asyncio.Task[Scan]) -> Executed | None:
        found = await checked
        if batch.job is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._world.pool, execute, batch.job, found)

    async def check_quota(self, ask: CreateAsk, owner: str, input_file: StoredFile) -> int:
        """Return the file's tokens if they are checked before the create; raise Refusal if there are too many."""
        limits = self._world.limits
        if limits.max_enqueued_tokens is None or not limits.quota_at_create:
            return 0
        rules, loop = self._dialect.line_rules(ask), asyncio.get_running_loop()
        most = self._dialect.traits.row_limit(limits)
        found = await loop.run_in_executor(self._world.pool, scan, input_file.path, rules, limits, most)
        complaint = self._over_quota(owner, input_file.model, found.input_tokens)
        if complaint is not None:
            raise Refusal(self._dialect.traits.quota_status, complaint, code="token_limit_exceeded")
        return found.input_tokens

    def _check_enqueued(self, batch: Batch, found: Scan) -> None:
        if self._world.limits.quota_at_create:
            return
        complaint = self._over_quota(batch.owner, batch.model, found.input_tokens)
        if complaint is not None:
            found.errors, found.fatal = [LineError("token_limit_exceeded", complaint)], True

    def _over_quota(self, owner: str, model: str | None, tokens: int) -> str | None:
        """Return the provider's error message if so many more tokens exceed the limit, else None."""
        limits, now = self._world.limits, self._world.clock.now()
        if limits.max_enqueued_tokens is None:
            return None
        waiting = sum(
            other.enqueued_tokens
            for other in self._batches.values()
            if other.owner == owner and other.model == model and now < self._end(other).at
        )
        if waiting + tokens <= limits.max_enqueued_tokens:
            return None
        reached = "Enqueued token limit reached"
        if limits.quota_named:
            figure = f"{limits.max_enqueued_tokens:,} enqueued tokens"
            reached = f"{reached} for {model} in organization sandbox. Limit: {figure}"
        return f"{reached}. Please try again once some in_progress batches have been completed."

    def _end(self, batch: Batch) -> timing.End:
        if batch.outcome is not None:
            return timing.End(batch.outcome.ended_at, batch.outcome.status)
        return timing.end(batch, self._world.limits.cancel_seconds)

    async def _catch_up(self, batch: Batch, now: float) -> None:
        if batch.outcome is not None:
            return
        checked_at = batch.timeline.in_progress_at
        if batch.failures:
            failed_at = max(checked_at, batch.plan.failed_at)
            if now >= failed_at:
                batch.outcome = Outcome(status="failed", ended_at=failed_at, errors=[*batch.failures])
            return
        end = self._end(batch)
        if batch.checked is None or batch.executed is None or now < min(checked_at, end.at):
            return
        found = await batch.checked
        if found.fatal:
            batch.outcome = Outcome(status="failed", ended_at=checked_at, errors=found.errors)
        elif now >= end.at and (executed := await batch.executed) is not None:
            batch.outcome = await self._finish(batch, end, found, executed)
        if batch.outcome is not None and batch.input_path is not None:
            batch.input_path.unlink(missing_ok=True)

    async def _finish(self, batch: Batch, end: timing.End, found: Scan, executed: Executed) -> Outcome:
        job = batch.job
        if job is None:
            raise RuntimeError("a batch that ran has a job")
        if end.status != "completed":
            code = "batch_expired" if end.status == "expired" else "batch_cancelled"
            job = job.cut_short(
                timing.done_share(batch, end.at),
                code if self._dialect.traits.names_undone else None,
                forget_done=batch.plan.forget_done_on_cancel and end.status == "cancelled",
            )
        job = job.healed()
        if job is not batch.job:
            # A client that reads the files of the first run must not see them change.
            for path in (job.output_path, job.error_path):
                path.unlink()
            job = batch.job = job.elsewhere(self._shelf.scratch(), self._shelf.scratch())
            loop = asyncio.get_running_loop()
            executed = await loop.run_in_executor(self._world.pool, execute, job, found)
        await self._reshape(job)
        self._world.ledger.rows(batch.id, executed.rows)
        outcome = Outcome(
            status="failed" if batch.plan.fails_in_file and end.status == "completed" else end.status,
            ended_at=end.at,
            errors=found.errors,
            n_total=found.n_lines,
            n_completed=0 if job.forget_done else executed.n_completed,
            n_failed=executed.n_failed + found.n_skipped,
            n_undone=executed.n_undone,
            input_tokens=executed.input_tokens,
            output_tokens=executed.output_tokens,
            output_file_id=self._publish(batch, job, "output", end.at),
            error_file_id=self._publish(batch, job, "error", end.at),
        )
        executed.rows = []
        return outcome

    async def _reshape(self, job: Job) -> None:
        """Rewrite the result files at providers whose lines differ from OpenAI's."""
        result_line = self._dialect.traits.result_line
        if result_line is None:
            return
        loop = asyncio.get_running_loop()
        for path in (job.output_path, job.error_path):
            await loop.run_in_executor(self._world.pool, reshape, path, result_line)

    def _publish(self, batch: Batch, job: Job, which: str, at: float) -> str | dict[str, str] | None:
        path = job.output_path if which == "output" else job.error_path
        refusing = batch.plan.bad_error_file if which == "error" else None
        kept_empty = batch.plan.empty_files or self._dialect.traits.empty_files or refusing is not None
        if path.stat().st_size == 0 and not kept_empty:
            path.unlink()
            return batch.plan.blank_file_id
        retention_s = self._dialect.traits.output_retention_s
        wanted = batch.ask.output_expires_after
        if wanted is not None and isinstance(seconds := wanted.get("seconds"), int):
            retention_s = seconds
        file = self._shelf.add(
            path,
            owner=batch.owner,
            filename=f"{batch.id}_{which}.jsonl",
            purpose="batch_output",
            retention_s=retention_s,
            model=batch.model,
            hidden_s=batch.plan.hide_output_s,
            at=at,
            file_id=None if batch.early_ids is None else batch.early_ids[which == "error"],
        )
        file.refusing = refusing
        return file.id

    def _job(self, batch: Batch, input_path: Path) -> Job:
        return Job(
            provider=self._provider,
            batch_id=batch.id,
            input_path=input_path,
            output_path=self._shelf.scratch(),
            error_path=self._shelf.scratch(),
            created=int(batch.created_at),
            plan=batch.plan.rows,
            error_body=self._dialect.error_body,
            decorate=self._dialect.decorate,
            markers=self._world.markers,
            perform=self._dialect.traits.perform,
            row_error=self._dialect.traits.row_error,
        )

    def _billed(self, batch: Batch, input_file: StoredFile | None) -> BilledBatch:
        return BilledBatch(
            provider=self._provider,
            provider_batch_id=batch.id,
            owner=batch.owner,
            endpoint=batch.ask.endpoint,
            model=batch.model,
            input_file_id=batch.ask.input_file_id,
            filename=input_file.filename if input_file else None,
            metadata=batch.ask.metadata,
            created_at=batch.created_at,
        )
