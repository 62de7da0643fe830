"""The pages: overview, batches, one batch, lanes and runs, and the two things that a person can do."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tornado.web import HTTPError

from batchling_client.operate import pausing, steering
from batchling_client.views.batch_detail import BatchDetail, detail_of
from batchling_client.views.batch_list import Lanes
from batchling_client.views.batch_list import Page as Some
from batchling_client.views.failures import Failures, failures_of_batch, failures_of_run
from batchling_client.views.inspection import Inspection, RunRecord
from batchling_client.views.lane_view import LaneView, lanes_of
from batchling_client.views.overview import Overview, overview_of
from batchling_client.views.run_view import RunView, run_view
from batchling_client.wire.keys import DRAINED_VERSIONS, WIRE_VERSION, BatchId, Keys, LaneId, RunId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.pause import Pause
from batchling_client.wire.records.row_and_result import LaneSpec
from batchling_client.wire.records.usage_and_failure import Tokens

from ..log_lines import emit
from . import words
from .choice import FACETS, Choice, WrongChoice
from .deployment import Look
from .page import READ_ONLY, Page

logger = logging.getLogger("batchling.pages")

RUNS_PER_PAGE: Final = 50
MOST_LANES: Final = 200
MOST_AT_ONCE: Final = 500
"""So many batches are steered at once, at most: all of them are named in the form that asks."""
MOST_ASKED: Final = 5_000
"""So many are looked at to find them."""
MANY_S: Final = 60.0
"""How long that may take."""
DONE: Final = {
    "cancelled": "Its cancellation was requested.",
    "retried": "It is looked at now.",
    "busy": "A worker is busy with it: try again in a moment.",
    "too-late": "Nothing was changed: it is over already.",
}


class OverviewPage(Page):
    """What needs a person, what waits by itself, what runs."""

    async def get(self) -> None:
        """Show it."""

        async def ask(look: Look) -> Overview:
            deployment = self.deployment
            older = [
                await Inspection(look.scripts.redis, Keys(deployment.namespace, version)).n_unfinished()
                for version in DRAINED_VERSIONS
                if version != WIRE_VERSION
            ]
            return await overview_of(
                look.lists,
                namespace=deployment.namespace,
                redis_at=deployment.place,
                n_older=sum(older),
            )

        seen = await self.deployment.look_together("overview", ask)
        self.show("overview", title="Overview", tab="overview", seen=seen)


class BatchesPage(Page):
    """A list of batches that fit the query of the URL."""

    async def get(self) -> None:
        """Show a page of it."""
        choice = chosen(self.word)

        async def ask(look: Look) -> tuple[Some, Lanes, RunView | None]:
            lanes = await look.lists.lanes()
            run = await look.lists.inspection.run_alone(RunId(choice.run)) if choice.run else None
            return await choice.page(look.lists, lanes), lanes, run_view(run) if run else None

        try:
            page, lanes, run = await self.deployment.look(ask)
        except WrongChoice as wrong:
            raise HTTPError(400, f"{wrong}\n") from None
        specs = [one for one in lanes.specs.values() if one is not None]
        self.show(
            "batches",
            title="Batches",
            tab="batches",
            choice=choice,
            page=page,
            run=run,
            facets=[(word, lanes.n(names, without_state(choice))) for word, names in FACETS.items()],
            providers=sorted({one.provider for one in specs}),
            models=sorted({one.model for one in specs if choice.provider in ("", one.provider)}),
        )


class BatchPage(Page):
    """One batch: why it is where it is, what happens next, what happened, what failed."""

    async def get(self, batch_id: str) -> None:
        """Show it."""

        async def ask(look: Look) -> tuple[BatchDetail, Failures | None, Tokens] | None:
            record = await look.lists.inspection.batch(BatchId(batch_id))
            batch = None if record is None else await detail_of(look.lists, record)
            if record is None or batch is None:
                return None
            failures = await failures_of(look, record) if record.n_failed else None
            return batch, failures, record.tokens

        found = await self.deployment.look(ask)
        if found is None:
            self.set_status(404)
            self.show("missing", title="No such batch", tab="batches", refresh=False, name=batch_id)
            return
        batch, failures, tokens_ = found
        self.show(
            "batch",
            title=batch.batch_id,
            tab="batches",
            batch=batch,
            failures=failures,
            used=tokens_,
            said=DONE.get(self.word("done"), ""),
        )


class FailuresPage(Page):
    """The failed requests of a batch or run, by reason and one by one."""

    async def get(self, name: str) -> None:
        """Show them; a run's are gathered from all its batches, so the page does not renew itself."""

        async def ask(look: Look) -> Failures:
            return await failures_of(look, await steering.find(look.lists.inspection, name))

        try:
            failures = await self.deployment.look(ask, longest_s=MANY_S)
        except steering.UnknownId:
            self.set_status(404)
            self.show("missing", title="Not found", tab="runs", refresh=False, name=name)
            return
        self.show("failures", title=f"Failures of {name}", tab="runs", refresh=False, failures=failures)


class SteerPage(Page):
    """Asks whether a batch is to be cancelled or retried, and does it."""

    async def get(self, batch_id: str, what: str) -> None:
        """Ask."""
        if self.read_only:
            raise HTTPError(405, READ_ONLY)
        batch = await detail_or_none(self, batch_id)
        if batch is None:
            self.set_status(404)
            self.show("missing", title="No such batch", tab="batches", refresh=False, name=batch_id)
            return
        self.show(
            "ask", title=f"{what.title()} a batch", tab="batches", refresh=False, batch=batch, what=what
        )

    async def post(self, batch_id: str, what: str) -> None:
        """Do it, and lead back to the batch."""

        async def ask(look: Look) -> str:
            return await steered(look, BatchId(batch_id), what, self.who)

        outcome = await self.deployment.look(ask)
        log_steered(self.who, what, {outcome: 1}, batch_id)
        self.redirect(f"{self.reverse_url('batchling-batch', batch_id)}?done={outcome}", status=303)


class BulkPage(Page):
    """Asks whether all batches that fit a query are to be cancelled or retried, and does it."""

    async def get(self, what: str) -> None:
        """Name and count them, and ask for that number."""
        if self.read_only:
            raise HTTPError(405, READ_ONLY)
        await self._ask(what, chosen(self.word), "")

    async def post(self, what: str) -> None:
        """Steer those of the named batches that still fit, if the number is right."""
        choice = chosen(lambda name: str(self.get_body_argument(name, ""))[:200])
        ids = [BatchId(one) for one in self.get_body_argument("ids", "").split()][:MOST_AT_ONCE]
        typed = self.get_body_argument("n", "").replace(",", "")
        if not ids or typed != str(len(ids)):
            self.set_status(409)
            await self._ask(what, choice, "That is not the number of these batches: nothing was changed.")
            return

        async def ask(look: Look) -> dict[str, int]:
            lanes = await look.lists.lanes()
            views = await look.lists.views(ids, lanes)
            fitting = [one.batch_id for one in views if choice.fits(one, lanes)]
            outcomes = {"changed": len(ids) - len(fitting)}
            for batch_id in fitting:
                outcome = await steered(look, batch_id, what, self.who)
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
            return outcomes

        outcomes = await self.deployment.look(ask, longest_s=MANY_S)
        log_steered(self.who, what, outcomes, choice.query())
        self.show("bulk_done", title="Done", tab="batches", refresh=False, outcomes=outcomes, choice=choice)

    async def _ask(self, what: str, choice: Choice, said: str) -> None:
        async def ask(look: Look) -> Some:
            first = dataclasses.replace(choice, after="")
            lanes = await look.lists.lanes()
            return await first.page(look.lists, lanes, limit=MOST_AT_ONCE, most_searched=MOST_ASKED)

        try:
            page = await self.deployment.look(ask)
        except WrongChoice as wrong:
            raise HTTPError(400, f"{wrong}\n") from None
        self.show(
            "bulk",
            title=f"{what.title()} batches",
            tab="batches",
            refresh=False,
            what=what,
            choice=choice,
            page=page,
            said=said,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """The lanes of one provider and key, counted."""

    provider: str
    credential: str
    lanes: tuple[LaneView, ...]

    @property
    def key(self) -> str:
        """The beginning of the key's fingerprint, and the end of the key as far as it is stored."""
        return words.key(self.lanes[0].lane)

    @property
    def n_waiting(self) -> int:
        """How many requests no provider has taken yet."""
        return sum(one.queue.n_waiting for one in self.lanes)

    @property
    def n_running(self) -> int:
        """How many requests are at the provider."""
        return sum(one.queue.n_running for one in self.lanes)

    @property
    def hold(self) -> str:
        """What holds up one of its lanes, such as a refused key; '' if nothing does."""
        return next(filter(None, (words.hold(one.lane) for one in self.lanes)), "")


class LanesPage(Page):
    """Lanes and accounts, the last used first."""

    async def get(self) -> None:
        """Show them."""

        async def ask(look: Look) -> tuple[list[LaneView], list[Pause]]:
            redis, keys = look.scripts.redis, look.scripts.keys
            return await lanes_of(look.lists, MOST_LANES), await pausing.pauses_of(redis, keys)

        lanes, pauses = await self.deployment.look_together("lanes", ask)
        by_key: dict[tuple[str, str], list[LaneView]] = {}
        for one in lanes:
            by_key.setdefault((one.lane.spec.provider, one.lane.spec.fingerprint), []).append(one)
        accounts = [
            AccountView(provider=provider, credential=key, lanes=tuple(some))
            for (provider, key), some in by_key.items()
        ]
        self.show("lanes", title="Lanes", tab="lanes", lanes=lanes, accounts=accounts, pauses=pauses)


class PausePage(Page):
    """Asks what is to be paused or resumed, and does it."""

    async def get(self, what: str) -> None:
        """Ask whether a lane, its model, its key or its provider is to be paused, or whether a pause is to end."""
        if self.read_only:
            raise HTTPError(405, READ_ONLY)
        lane = await self._lane(self.word("lane")) if what == "pause" else None
        self.show(
            "pause",
            title=f"{what.title()} submissions",
            tab="lanes",
            refresh=False,
            what=what,
            lane=lane,
            name=self.word("name"),
        )

    async def post(self, what: str) -> None:
        """Do it, and lead back to the lanes."""
        name, reason = (str(self.get_body_argument(one, ""))[:200].strip() for one in ("name", "reason"))
        by = f"{self.who or 'a person'} in Flower"

        async def ask(look: Look) -> list[Pause]:
            redis, keys = look.scripts.redis, look.scripts.keys
            if what == "pause":
                return [await pausing.pause(look.lists, redis, keys, name, by=by, reason=reason)]
            return await pausing.resume(look.lists, look.scripts, name, by=by)

        if not name:
            raise HTTPError(400, f"Choose what to {what}.\n")
        try:
            done = await self.deployment.look(ask, longest_s=MANY_S)
        except pausing.UnknownPlace as unknown:
            raise HTTPError(409, f"{unknown}\n") from None
        log_steered(self.who, what, {what: len(done)}, name)
        self.redirect(self.reverse_url("batchling-lanes"), status=303)

    async def _lane(self, lane_id: str) -> LaneSpec:
        async def ask(look: Look) -> LaneSpec | None:
            return (await look.lists.lanes()).specs.get(LaneId(lane_id))

        spec = await self.deployment.look(ask)
        if spec is None:
            raise HTTPError(404, "There is no such lane.\n")
        return spec


class RunsPage(Page):
    """Runs, the newest first."""

    async def get(self) -> None:
        """Show a page of them."""
        after = self.word("after")

        async def ask(look: Look) -> list[RunView]:
            return [run_view(one) for one in await look.lists.inspection.runs(RUNS_PER_PAGE, after)]

        runs = await self.deployment.look(ask)
        self.show("runs", title="Runs", tab="runs", runs=runs, after=after, more=len(runs) == RUNS_PER_PAGE)


class FindPage(Page):
    """Leads to the batch or run of an id, its beginning, a run's name or a provider's id."""

    async def get(self) -> None:
        """Look for it."""
        name = self.word("q")

        async def ask(look: Look) -> Any:
            return await steering.find(look.lists.inspection, name)

        try:
            found = await self.deployment.look(ask) if name else None
        except steering.UnknownId:
            self.set_status(404)
            self.show("missing", title="Not found", tab="batches", refresh=False, name=name)
            return
        if found is None:
            self.redirect(self.reverse_url("batchling-batches"))
        elif isinstance(found, RunRecord):
            self.redirect(
                f"{self.reverse_url('batchling-batches')}?{Choice(run=found.run_id, state='all').query()}"
            )
        else:
            self.redirect(self.reverse_url("batchling-batch", found.batch_id))


def chosen(given: Callable[[str], str]) -> Choice:
    """Read what is asked for; answer 400 for what no batch has."""
    try:
        return Choice.of(given)
    except WrongChoice as wrong:
        raise HTTPError(400, f"{wrong}\n") from None


def without_state(choice: Choice) -> Any:
    """Return the filter for the counts beside the states: lane, model, provider and key count, the state does not."""
    return dataclasses.replace(choice.filter, lists=(), statuses=frozenset())


async def failures_of(look: Look, found: Batch | RunRecord) -> Failures:
    """Return the failures of a batch or run."""
    redis, keys = look.scripts.redis, look.scripts.keys
    if isinstance(found, RunRecord):
        return await failures_of_run(redis, keys, found)
    return await failures_of_batch(redis, keys, found)


async def detail_or_none(page: Page, batch_id: str) -> BatchDetail | None:
    """Return everything about a batch, None if it is gone."""

    async def ask(look: Look) -> BatchDetail | None:
        batch = await look.lists.inspection.batch(BatchId(batch_id))
        return None if batch is None else await detail_of(look.lists, batch)

    return await page.deployment.look(ask)


async def steered(look: Look, batch_id: BatchId, what: str, who: str) -> str:
    """Cancel or retry a batch; return a key of `DONE`."""
    batch = await look.lists.inspection.batch(batch_id)
    if batch is None:
        return "too-late"
    if what == "cancel":
        cancelled = await steering.cancel(look.scripts, batch, by=f"{who or 'a person'} in Flower")
        return "cancelled" if cancelled.batch_ids else "too-late"
    retried = await steering.retry(
        look.lists.inspection, look.scripts, batch_id, by=f"{who or 'a person'} in Flower"
    )
    return "retried" if retried.batch_ids else "busy" if retried.busy else "too-late"


def log_steered(who: str, what: str, outcomes: dict[str, int], of: str) -> None:
    """Leave a line in Flower's log of who did what."""
    counts = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items() if n)
    emit(logger, logging.WARNING, "batches_steered", {"by": who, "what": what, "of": of, "outcome": counts})
