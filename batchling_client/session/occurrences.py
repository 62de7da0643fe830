"""Numbers the equal calls of a run, so that a rerun meets each one again and a repeated call meets its own request."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from typing import NamedTuple


class Occurrence(NamedTuple):
    """The place of a call among the equal calls of its run."""

    equal: bytes
    """Digest of lane and body, the same for all equal calls."""
    number: int
    """From 1 on."""
    again: bool
    """Whether an earlier call had this place and left it without an answer."""
    left: bool = False
    """Whether the run counts that earlier call among those nobody waits for."""
    shared: bool = False
    """Whether another call has this place, too, and frees it."""


class Occurrences:
    """The places of one run; a call takes the lowest free one of its equals, in any thread.

    A call that waits or has its answer keeps its place: twenty equal prompts that wait together are twenty requests.
    A call that leaves without an answer frees its place, and the next equal call joins the request that it left.
    """

    def __init__(self) -> None:
        self._highest: dict[bytes, int] = {}
        self._free: dict[bytes, list[tuple[int, bool]]] = {}
        # Append without the lock: the garbage collector may close a coroutine at any line of any thread.
        self._freed: deque[tuple[bytes, int, bool]] = deque()
        self._lock = threading.Lock()

    def take(self, equal: bytes, *, is_retry: bool) -> Occurrence:
        """Return the place of a call; an SDK's own retry means the request that it sent, not one more."""
        with self._lock:
            self._sort_freed()
            free = self._free.get(equal)
            if free:
                number, left = heapq.heappop(free)
                if not free:
                    del self._free[equal]
                return Occurrence(equal, number, again=True, left=left)
            number = self._highest.get(equal, 0)
            if number and is_retry:
                return Occurrence(equal, number, again=True, shared=True)
            self._highest[equal] = number + 1
            return Occurrence(equal, number + 1, again=False)

    def free(self, place: Occurrence, *, left: bool) -> None:
        """Free the place of a call that got no answer; the caller frees it once."""
        if not place.shared:
            self._freed.append((place.equal, place.number, left))

    def _sort_freed(self) -> None:
        while self._freed:
            equal, number, left = self._freed.popleft()
            heapq.heappush(self._free.setdefault(equal, []), (number, left))
