"""What the page of batches is asked for, as the query of its URL spells it, and the batches that fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from batchling_client.views.batch_list import (
    FAILED,
    OVER,
    UNFINISHED,
    BatchLists,
    Filter,
    Lanes,
    Page,
    list_of,
)
from batchling_client.views.batch_view import NEED_YOU, BatchView, Status
from batchling_client.wire.keys import RunId
from batchling_client.wire.states import LISTS, QUARANTINED, SETTLED_WITH_FAILURES, BatchState

PER_PAGE: Final = 50
MOST_SEARCHED: Final = 600
"""A filter that no list answers looks at so many batches for one page; the page reads on from there."""
LONGEST: Final = 200
NEEDS_YOU: Final = "needs-you"
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "unfinished": UNFINISHED,
    "over": OVER,
    "with-failures": FAILED,
    "all": LISTS,
}
_LISTS_OF_STATUS: Final[Mapping[Status, tuple[str, ...]]] = {
    Status.COLLECTING: (BatchState.OPEN.value,),
    Status.QUARANTINED: (QUARANTINED,),
    Status.QUEUED: (BatchState.SEALED.value,),
    Status.SENDING: (BatchState.SUBMITTING.value,),
    Status.RUNNING: (BatchState.SUBMITTED.value,),
    Status.OVERDUE: (BatchState.SUBMITTED.value,),
    Status.READING: (BatchState.ENDED.value,),
    Status.HELD: (BatchState.ENDED.value,),
    Status.DONE: (BatchState.SETTLED.value,),
    Status.DONE_WITH_FAILURES: (SETTLED_WITH_FAILURES,),
    Status.FAILED: (BatchState.FAILED.value,),
    Status.CANCELLED: (BatchState.CANCELLED.value,),
}
"""Where batches of a status can only be."""
FACETS: Final[Mapping[str, tuple[str, ...]]] = {
    "unfinished": UNFINISHED,
    QUARANTINED: (QUARANTINED,),
    **{state.value: (state.value,) for state in BatchState if not state.terminal},
    "over": OVER,
    "with-failures": FAILED,
    "all": LISTS,
}
"""The states that the page offers with the number of their batches."""
STATUSES: Final = {one.value.replace(" ", "-"): one for one in Status}
NAMES: Final = ("state", "provider", "model", "lane", "key", "run", "sort")


class WrongChoice(ValueError):
    """The URL asks for something that no batch has; the text is a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which batches to show; the fields are those of the URL."""

    state: str = "unfinished"
    provider: str = ""
    model: str = ""
    lane: str = ""
    key: str = ""
    run: str = ""
    sort: str = ""
    after: str = ""
    filter: Filter = field(default_factory=Filter)

    @classmethod
    def of(cls, given: Callable[[str], str]) -> Choice:
        """Read the query of a URL; raise `WrongChoice`."""
        words = {name: given(name)[:LONGEST] for name in (*NAMES, "after")}
        words["state"] = words["state"] or ("all" if words["run"] else "unfinished")
        if words["sort"] not in ("", "oldest", "newest"):
            raise WrongChoice("`sort` takes oldest or newest.")
        lists, statuses = _meant(words["state"])
        wanted = Filter(
            lists=lists,
            statuses=statuses,
            provider=words["provider"],
            model=words["model"],
            lane=words["lane"],
            key=words["key"],
        )
        return cls(**words, filter=wanted)

    @property
    def newest_first(self) -> bool:
        """Whether the newest comes first: unless asked, what is unfinished is shown oldest first."""
        return self.sort == "newest" if self.sort else any(name in OVER for name in self.filter.names)

    def query(self, **changed: str) -> str:
        """Return the query of the URL with some of its words changed; `after` is kept only if it is given."""
        words = {name: str(getattr(self, name)) for name in NAMES} | changed
        return urlencode({name: word for name, word in words.items() if word})

    def fits(self, batch: BatchView, lanes: Lanes) -> bool:
        """Return whether the batch is among those asked for, whatever its run."""
        wanted = self.filter
        return (
            wanted.takes_lane(batch.lane_id, lanes.specs.get(batch.lane_id))
            and list_of(batch) in wanted.names
            and (not wanted.statuses or batch.status in wanted.statuses)
        )

    async def page(
        self, lists: BatchLists, lanes: Lanes, *, limit: int = PER_PAGE, most_searched: int = MOST_SEARCHED
    ) -> Page:
        """Return the batches of a page; raise `WrongChoice`."""
        if self.run:
            return await self._page_of_run(lists, lanes, limit, most_searched)
        try:
            return await lists.page(
                self.filter,
                limit=limit,
                newest_first=self.newest_first,
                after=self.after,
                lanes=lanes,
                most_searched=most_searched,
            )
        except ValueError:
            raise WrongChoice("`after` names no place in the list: begin at the first page.") from None

    async def _page_of_run(self, lists: BatchLists, lanes: Lanes, limit: int, most_searched: int) -> Page:
        ids = await lists.inspection.batch_ids_of(RunId(self.run))
        n_all = len(ids)
        if self.newest_first:
            ids.reverse()
        if self.after:
            ids = [one for one in ids if (one < self.after if self.newest_first else one > self.after)]
        found: list[BatchView] = []
        seen = ""
        for first in range(0, min(len(ids), most_searched), PER_PAGE):
            some = ids[first : first + PER_PAGE]
            fitting = [one for one in await lists.views(some, lanes) if self.fits(one, lanes)]
            left = limit - len(found)
            found += fitting[:left]
            seen = found[-1].batch_id if len(fitting) >= left else some[-1]
            if len(found) == limit:
                break
        return Page(batches=tuple(found), n_all=n_all, after=seen if ids and seen != ids[-1] else "")


def _meant(word: str) -> tuple[tuple[str, ...], frozenset[Status]]:
    """Return the lists and the statuses that a word of `state` names; raise `WrongChoice`."""
    if word in GROUPS:
        return GROUPS[word], frozenset()
    if word == NEEDS_YOU:
        return UNFINISHED, NEED_YOU
    if word in LISTS and word not in STATUSES:
        return (word,), frozenset()
    status = STATUSES.get(word)
    if status is None:
        known = ", ".join(sorted({*GROUPS, *LISTS, *STATUSES, NEEDS_YOU}))
        raise WrongChoice(f"`state` does not know that word. It takes {known}.")
    return _LISTS_OF_STATUS.get(status, ()), frozenset({status})
