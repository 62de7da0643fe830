"""A run: the requests, counts and answers of one open block."""

from __future__ import annotations

from ..wire.keys import RunId
from .counts import Progress
from .run_handler import RunHandler


class Run:
    """What `batchify` yields: the requests of one block, under one name and id."""

    __slots__ = ("_handler",)

    def __init__(self, handler: RunHandler) -> None:
        self._handler = handler

    @property
    def id(self) -> RunId:
        """The run's id, by which the CLI finds it."""
        return self._handler.id

    @property
    def name(self) -> str | None:
        """The name that was given to the run, if any."""
        return self._handler.name

    @property
    def progress(self) -> Progress:
        """The current counts."""
        return self._handler.progress

    def summary(self) -> str:
        """Return the run in one line."""
        return self._handler.summary()


def handler_of(run: Run) -> RunHandler:
    """Return what answers the calls of a run, for batchling's own modules."""
    return run._handler
