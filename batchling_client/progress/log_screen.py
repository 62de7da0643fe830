"""The display where no terminal is: a line for each change, in the log or on stderr."""

from __future__ import annotations

from ..wire.keys import BatchId
from ..wire.states import BatchState
from . import batch_lines, printing, wait_reasons
from .picture import Look


class LogScreen:
    """A line for each change of a batch's state, and a warning for each new reason to wait that a provider gives."""

    is_live = False

    def __init__(self, *, to_stderr: bool, rewritten: bool = False) -> None:
        """Print on stderr if asked to; `rewritten` = somebody else rewrites the terminal's last line."""
        self._say = printing.say if to_stderr else printing.log_quietly
        self._rewritten = rewritten
        self._said: dict[BatchId, BatchState] = {}
        self._n_reused = self._n_reused_said = 0
        self._wait_reasons = wait_reasons.WaitReasons()

    def draw(self, look: Look) -> None:
        """Say what is new; the number of reused requests once it has stopped growing."""
        n_reused = look.counts.n_reused
        if self._n_reused_said != n_reused == self._n_reused:
            self._n_reused_said = n_reused
            self._say(reused_line(n_reused), rewritten=self._rewritten)
        self._n_reused = n_reused
        for batch in look.batches:
            if self._said.get(batch.batch_id) is not batch.state:
                self._said[batch.batch_id] = batch.state
                self._say(batch_lines.line_of(batch, look.now), rewritten=self._rewritten)
        for line in self._wait_reasons.news(look.batches):
            printing.warn(line, rewritten=self._rewritten)

    def close(self) -> None:
        """Do nothing: plain lines leave nothing to restore."""


def reused_line(n_reused: int) -> str:
    """Say how many requests cost nothing more."""
    return f"from earlier runs  {n_reused:,}"
