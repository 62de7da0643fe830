"""The counts of a run: what each event loop counts for itself, and their sum."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from .. import session
from ..intercept.passed import Passing
from ..progress.overdue import Overdue
from ..session import Deployment, Session
from ..wire.keys import RequestId
from .failures import Failure, Failures
from .full_price import FullPrice


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Counts of a run's requests by state; those that nobody waits for any more are `n_left`."""

    n_requests: int = 0
    n_waiting: int = 0
    n_succeeded: int = 0
    n_failed: int = 0
    n_left: int = 0
    n_realtime: int = 0
    """How many of the requests their provider has answered at full price, as `on_deadline` or `on_too_few` asks."""
    n_reused: int = 0
    """How many of the requests earlier runs had made: their answers are not paid for again."""
    reasons: tuple[str, ...] = ()
    """Why batches with waiting requests are held up, in their providers' words; empty if they are not."""
    failures: tuple[Failure, ...] = ()
    """Why requests failed, the most frequent reason first."""
    passed: tuple[Passing, ...] = ()
    """The calls that reached their provider at full price, by reason and host, the most frequent first."""

    @property
    def n_passed(self) -> int:
        """How many calls reached their provider at full price."""
        return sum(one.n_calls for one in self.passed)

    @property
    def n_answered(self) -> int:
        """How many requests have an answer: a success, an error, or the one for which the full price was paid."""
        return self.n_succeeded + self.n_failed + self.n_realtime


@dataclass(slots=True, eq=False)
class LoopState:
    """A run's session and counts on one event loop, which alone changes them."""

    session: Session
    n_requests: int = 0
    n_succeeded: int = 0
    n_failed: int = 0
    n_left: int = 0
    regretted: list[RequestId] = field(default_factory=list)
    """Requests of cancelled calls, to be withdrawn when `timer` is over."""
    timer: asyncio.TimerHandle | None = None
    left: bool = False
    overdue: Overdue = field(default_factory=Overdue)


class LoopStates:
    """The states of one run on all event loops that have asked for answers."""

    def __init__(self, deployment: Deployment | None) -> None:
        self._deployment = deployment
        self.full_price: Final = FullPrice()
        self.failures: Final = Failures()
        self._states: dict[asyncio.AbstractEventLoop, LoopState] = {}

    def here(self) -> LoopState:
        """Return the state of the running loop, with a session that is open."""
        loop = asyncio.get_running_loop()
        state = self._states.get(loop)
        if state is None or state.session.over:
            if self._deployment is None:
                raise RuntimeError("a dry run has no queue")
            held = session.hold(self._deployment)
            if state is None:
                state = self._states[loop] = LoopState(session=held)
            state.session = held
        return state

    def by_loop(self) -> list[tuple[asyncio.AbstractEventLoop, LoopState]]:
        """Return each loop with its state, also from a thread in which no loop runs."""
        return list(self._states.items())

    @property
    def n_unsent(self) -> int:
        """How many calls are not in Redis yet."""
        return sum(state.session.n_unsent for _, state in self.by_loop())

    @property
    def n_waiting(self) -> int:
        """How many requests wait for a batch; those that are on their way at full price do not."""
        return self.progress().n_waiting - self.full_price.n_under_way

    def progress(self, n_refused: int = 0) -> Progress:
        """Return the counts of all loops; `n_refused` calls have failed before they came to one."""
        states = [state for _, state in self.by_loop()]
        n_requests = sum(state.n_requests for state in states) + n_refused
        n_succeeded = sum(state.n_succeeded for state in states)
        n_failed = sum(state.n_failed for state in states) + n_refused
        n_left = sum(state.n_left for state in states)
        n_realtime = self.full_price.n_answered
        return Progress(
            n_requests=n_requests,
            n_waiting=n_requests - n_succeeded - n_failed - n_left - n_realtime,
            n_succeeded=n_succeeded,
            n_failed=n_failed,
            n_left=n_left,
            n_realtime=n_realtime,
            failures=self.failures.counts(),
        )
