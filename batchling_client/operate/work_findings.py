"""The doctor's findings on the work itself: what waits for a person, what has waited long, looks that are late."""

from __future__ import annotations

import datetime as dt
from typing import Final

from ..views.batch_list import BatchLists
from ..views.overview import LATE_S, Group, Overview, overview_of
from ..views.sent_again import in_words
from ..wire.deployment.finding import Finding, Health, judge
from ..wording import counted, span

CHECK: Final = "work"
LONG_WAIT: Final = dt.timedelta(hours=6)
"""A batch that something holds up for longer is worth a look, even if nobody has to act."""


async def of_work(lists: BatchLists, namespace: str) -> list[Finding]:
    """Return findings on the batches of a deployment. Raise redis-py's own errors when Redis is away."""
    seen = await overview_of(lists, namespace=namespace, redis_at="")
    now, _ = await lists.clock_and_lag()
    found = [_of_group(group, now) for group in seen.needs_you]
    found += [_of_wait(group, now) for group in seen.waits if now - group.oldest_at > LONG_WAIT]
    return [*found, *([] if found else [_all_well(seen, now)]), _of_schedule(seen)]


def _of_group(group: Group, now: dt.datetime) -> Finding:
    return Finding(
        check=CHECK,
        health=Health.FAILURE,
        says=_says(group, now),
        mend=" or ".join(f"`{command}`" for command in group.commands),
    )


def _of_wait(group: Group, now: dt.datetime) -> Finding:
    return Finding(
        check=CHECK,
        health=Health.NOTE,
        says=_says(group, now),
        mend=f"`batchling show {group.oldest_batch_id}` says what it waits for.",
    )


def _says(group: Group, now: dt.datetime) -> str:
    some = f"{counted(group.n_waiting, 'request')} in {counted(group.n_batches, 'batch')}"
    why = f": {' '.join(group.why.split())}" if group.why else ""
    return f"{group.provider}/{group.model}: {group.status.value}, {some}, oldest {span(now - group.oldest_at)}{why}"


def _all_well(seen: Overview, now: dt.datetime) -> Finding:
    unfinished = (
        f"{counted(seen.n_unfinished, 'batch')} unfinished" if seen.n_unfinished else "no batch is unfinished"
    )
    oldest = f"; the oldest request waits for {span(now - seen.oldest_at)}" if seen.oldest_at else ""
    again = f"; {in_words(seen.sent_again)}" if seen.sent_again else ""
    return Finding(check=CHECK, health=Health.OK, says=f"nothing needs you; {unfinished}{oldest}{again}")


def _of_schedule(seen: Overview) -> Finding:
    late = seen.lag_s > LATE_S and seen.n_workers > 0
    return judge(
        "schedule",
        sound=not late,
        says=f"looks at batches are {seen.lag_s:,.0f} s late" if late else "looks at batches are on time",
        mend="Start more workers, or raise their `--concurrency`; see the workers' logs for what holds them up.",
    )
