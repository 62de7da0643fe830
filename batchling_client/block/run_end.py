"""Ends a run: releases its threads, withdraws what nobody waits for, and reports what continues."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from functools import partial
from typing import Final

from ..intercept.open_block import running_loop
from ..session.lanes import Terms
from ..wire.deployment.cancellation import carry_through
from ..wording import counted
from . import background_loop, relay
from .counts import LoopState, LoopStates
from .given_up import GivenUp

_logger = logging.getLogger(__name__)


class RunEnd:
    """What one run has open beside its loops' sessions, until it is closed."""

    def __init__(self, terms: Terms, loop_states: LoopStates, given_up: GivenUp, *, is_dry: bool) -> None:
        self._terms = terms
        self._loop_states = loop_states
        self._given_up = given_up
        self._is_dry = is_dry
        self.blocked: Final = background_loop.Blocked()
        self.relays: Final = relay.Relays()
        self._holds_background_loop = False
        self._lock = threading.Lock()
        self._reporting: asyncio.Task[None] | None = None

    def hold_background_loop(self) -> None:
        """Keep the background loop for calls of threads and other loops until the run has ended."""
        with self._lock:
            if not self._holds_background_loop and not self._given_up.block_ended:
                background_loop.hold()
                self._holds_background_loop = True

    def words_of_in_flight(self, n: int) -> str:
        """Return what to say at the end of a block that waits for `n` calls."""
        return (
            f"Run {self._terms.title} has ended and waits for {counted(n, 'call')} in flight. Ctrl-C stops waiting; "
            "batchify(detach=True) does not wait."
        )

    def words_of_terminated(self, n_unsent: int) -> str:
        """Return what to say when the process is being ended by SIGTERM; '' if no call is in flight."""
        n = self._loop_states.n_waiting - n_unsent
        lost = f" {counted(n_unsent, 'call')} had not been queued yet." if n_unsent else ""
        if n <= 0:
            return f"Run {self._terms.title} was ended by SIGTERM.{lost}" if lost else ""
        again = (
            "Run the program again to get the answers without paying twice, or see them with "
            if self._terms.cache
            else "See them with "
        )
        goes_on = "stays queued or runs" if n == 1 else "stay queued or run"
        return (
            f"Run {self._terms.title} was ended by SIGTERM: {counted(n, 'request')} {goes_on} without this program. "
            f"{again}`batchling show {self._terms.run_id}`.{lost}"
        )

    def detach(self) -> None:
        """Keep the waiting calls' requests queued without their callers: release threads, withdraw nothing."""
        if self._is_dry:
            return
        self._given_up.detached = True
        n = self._loop_states.n_waiting
        if n:
            requests = (
                "1 request stays queued and needs" if n == 1 else f"{n:,} requests stay queued and need"
            )
            again = (
                "Run the program again to get the answers without paying twice; " if self._terms.cache else ""
            )
            _logger.warning(
                "%s this block no longer (run %s). %s`batchling show %s` shows what became of them.",
                requests,
                self._terms.title,
                again,
                self._terms.run_id,
            )
        self.release()

    def release(self) -> None:
        """Make calls that threads wait for, and later calls, raise CancelledError; safe in a signal handler."""
        self.blocked.release()

    def holds_up(self) -> bool:
        """Say whether calls wait on the event loop that the calling thread holds up and cannot turn."""
        loop = running_loop()
        return loop is not None and self.relays.waits_on(loop)

    def report_late(self) -> None:
        """Report the requests that continue, once the blocked event loop runs again or has ended."""
        self._reporting = asyncio.get_running_loop().create_task(self._report_late())

    async def _report_late(self) -> None:
        leave = partial(self.relays.wait, self._leave_all)
        # Held to the end: the background loop would stop after its last call, and its withdrawals would not be counted.
        background_loop.hold()
        try:
            await carry_through(leave)
        except asyncio.CancelledError:
            # The loop is ending and cancels its other calls too: their requests are withdrawn as well.
            await carry_through(self.relays.ended_here)
            await carry_through(leave)
            raise
        finally:
            self._given_up.say_what_continues()
            background_loop.let_go()

    async def close(self, *, interrupted: bool, say: bool = True) -> None:
        """End the run: withdraw cancelled requests that are not submitted yet, and let the others run.

        Tasks that still await answers get them. If an exception left the block, release the waiting threads and
        report the requests that keep running.
        """
        self._given_up.block_ended = True
        if interrupted:
            self.release()
        await self._leave_all()
        if interrupted and say:
            self._given_up.say_what_continues()
        self._let_go()

    def close_from_afar(self) -> None:
        """Do what `close` does without awaiting anything, and without a turn of the loop on which the block was open.

        Raises `QueueUnreachable` where no background loop can be started for it.
        """
        self._given_up.block_ended = True
        self.release()
        if running_loop() is None:
            # An interpreter that is exiting starts no thread.
            with asyncio.Runner() as runner:
                runner.run(carry_through(self._given_up.withdraw_from_afar))
        else:
            shared = background_loop.hold()
            try:
                shared.finish(self._given_up.withdraw_from_afar)
            finally:
                background_loop.let_go()
        for loop, loop_state in self._loop_states.by_loop():
            if not loop_state.left:
                loop_state.left = True
                # If the loop runs again, the session ends later; if it is closed, there is nothing to end.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(loop_state.session.let_go)
        self._given_up.say_what_continues()
        self._let_go()

    async def _leave_all(self) -> None:
        here = asyncio.get_running_loop()
        for loop, loop_state in self._loop_states.by_loop():
            if loop is here:
                await self._leave(loop_state)
            else:
                await background_loop.on(loop, partial(self._leave, loop_state))

    async def _leave(self, loop_state: LoopState) -> None:
        await self.blocked.gone()
        await self.relays.gone()
        self._given_up.withdraw_regretted(loop_state)
        await loop_state.session.withdrawals_done()
        if not loop_state.left:
            loop_state.left = True
            loop_state.session.let_go()
        await loop_state.session.ended()

    def _let_go(self) -> None:
        if self._holds_background_loop:
            self._holds_background_loop = False
            background_loop.let_go()
