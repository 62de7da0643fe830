"""The requests of one run whose calls left without an answer: withdrawn in time, or running in their batches."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import Final

from ..session.lanes import Terms
from ..wire.keys import RequestId
from .counts import LoopState, LoopStates

_logger = logging.getLogger(__name__)

GRACE_S: Final = 0.1
"""A cancelled request is withdrawn after this long, unless it is asked for again meanwhile, as by an SDK's retry."""
COUNTING_S: Final = 1.0
"""For this long the warning of calls that were given up counts them."""


class GivenUp:
    """Withdraws requests that nobody waits for; every loop changes its sets, in atomic steps."""

    def __init__(self, terms: Terms, loop_states: LoopStates) -> None:
        self._terms = terms
        self._loop_states = loop_states
        self._running: set[RequestId] = set()
        self._withdrawn: set[RequestId] = set()
        self._ever_running: set[RequestId] = set()
        """Requests that were given up while their batch ran, those asked for again since included."""
        self._lock = threading.Lock()
        self.block_ended = False
        """Whether the block has ended: requests are withdrawn at once, and reported by `say_what_continues`."""
        self.detached = False
        """Whether requests stay queued without their callers."""

    def regret(self, loop_state: LoopState, request_id: RequestId) -> None:
        """Count the request of a cancelled call as left, and withdraw it soon."""
        loop_state.n_left += 1
        if self.detached:
            return
        loop_state.regretted.append(request_id)
        if self.block_ended:
            self._withdraw(loop_state)
        elif loop_state.timer is None:
            loop_state.timer = asyncio.get_running_loop().call_later(GRACE_S, self._withdraw, loop_state)

    def withdraw(self, loop_state: LoopState, request_id: RequestId, *, cancel: bool) -> None:
        """Withdraw a request now; with `cancel`, its running batch is cancelled if no other run waits for it."""
        loop_state.session.withdraw([request_id], self._note, cancel=cancel)

    def withdraw_regretted(self, loop_state: LoopState) -> None:
        """Withdraw now what waits to be withdrawn."""
        if loop_state.timer is not None:
            loop_state.timer.cancel()
        if loop_state.regretted:
            self._withdraw(loop_state)

    async def withdraw_from_afar(self) -> None:
        """Withdraw on the running loop what all loops wait for, and what they have regretted."""
        for _, loop_state in self._loop_states.by_loop():
            regretted, loop_state.regretted = loop_state.regretted, []
            n_given_up = await loop_state.session.take_back_from_afar(regretted, self._note)
            loop_state.n_left += min(n_given_up, self._loop_states.n_waiting)

    def asked_again(self, request_id: RequestId) -> None:
        """Note that somebody waits for the request again."""
        self._running.discard(request_id)
        self._withdrawn.discard(request_id)

    def answered(self, request_id: RequestId) -> None:
        """Note that the request has an answer."""
        self._running.discard(request_id)

    def words(self) -> str:
        """Return what became of the requests, for a summary; empty if none was given up while its batch ran."""
        return self._words(len(self._running)) if self._running else ""

    def say_what_continues(self) -> None:
        """Log how many requests were withdrawn, and how many run on without this program."""
        if self._withdrawn:
            _logger.warning(
                "%d requests of run %s were withdrawn before they were submitted: they cost nothing.",
                len(self._withdrawn),
                self._terms.title,
            )
        n_continuing = len(self._running) + self._loop_states.n_waiting
        if n_continuing <= 0:
            return
        # Reported here, so that the summary does not repeat it.
        self._running.clear()
        again = "run it again to get their answers without paying twice, or " if self._terms.cache else ""
        _logger.warning(
            "%d requests of run %s keep running without this program: %ssee them with `batchling show %s`.",
            n_continuing,
            self._terms.title,
            again,
            self._terms.run_id,
        )

    def _withdraw(self, loop_state: LoopState) -> None:
        loop_state.timer = None
        regretted, loop_state.regretted = loop_state.regretted, []
        loop_state.session.withdraw(regretted, self._note)

    def _note(self, withdrawn: Sequence[RequestId], running: Sequence[RequestId]) -> None:
        """Note what became of requests, and warn once of those whose batches run.

        Calls with the same timeout are given up one after the other, so the warning waits until it can count them.
        """
        self._withdrawn.update(withdrawn)
        self._running.update(running)
        if not running or self.block_ended:
            return
        with self._lock:
            first = not self._ever_running
            self._ever_running.update(running)
        if first:
            asyncio.get_running_loop().call_later(COUNTING_S, self._warn)

    def _warn(self) -> None:
        """Warn of the calls given up so far; a run that has ended meanwhile counts them in its summary."""
        if not self.block_ended:
            with self._lock:
                n_calls = len(self._ever_running)
            _logger.warning("Run %s: %s.", self._terms.title, self._words(n_calls))

    def _words(self, n: int) -> str:
        given_up = (
            "1 call was given up, and its batch finishes"
            if n == 1
            else f"{n:,} calls were given up, and their batches finish"
        )
        where = "in this run or the next" if self._terms.cache else "in this run"
        again = f"the same call made again, {where}, gets the answer and costs nothing more"
        return f"{given_up} all the same: {again}"
