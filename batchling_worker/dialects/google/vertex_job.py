"""A batch prediction job of Vertex AI: read leniently, told as a look."""

from __future__ import annotations

import msgspec

from batchling_client.wire.states import Outcome

from ...decisions import status_words
from ...provider import Ended, Ending, Other, Running
from .. import bounds
from . import rpc_status


class Job(msgspec.Struct, frozen=True):
    """A job as its provider shows it; every field may be absent or of a type that nobody documented."""

    name: object = None
    displayName: object = None  # noqa: N815 - Google's spelling
    state: object = None
    error: object = None
    outputInfo: object = None  # noqa: N815
    completionStats: object = None  # noqa: N815
    createTime: object = None  # noqa: N815
    endTime: object = None  # noqa: N815

    @property
    def known_name(self) -> str:
        """The provider's name of the job, or ''."""
        name = bounds.identifier(self.name)
        return name if name.startswith("projects/") and "/batchPredictionJobs/" in name else ""

    @property
    def made(self) -> str:
        """When it was created, as the provider spells it."""
        return bounds.text(self.createTime)

    def look(self) -> Running | Ended:
        """Return the state of the job; an unknown state counts as an end once the job has an end time.

        Rows can be read while the job runs.
        """
        state = bounds.text(self.state).removeprefix("JOB_STATE_")
        stats = self.completionStats if isinstance(self.completionStats, dict) else {}
        n_succeeded, n_failed, n_open = (
            bounds.count(stats.get(name)) for name in ("successfulCount", "failedCount", "incompleteCount")
        )
        n_done = n_succeeded + n_failed
        results = self._results()
        outcome = status_words.outcome_of(state)
        if outcome is None and not status_words.is_running(state) and self._has_ended:
            outcome = Outcome.FAILED if self.error else Outcome.COMPLETED
        if outcome is Outcome.COMPLETED and self.error and not (results or n_done):
            outcome = Outcome.FAILED
        if outcome is None:
            early = Ending(results=results) if results else None
            return Running(
                status=state.lower() or "unknown", n_done=n_done, n_total=n_done + n_open, early=early
            )
        ending = Ending(results=results)
        if outcome is Outcome.FAILED:
            ending = rpc_status.failed_ending(self.error, results, n_succeeded)
        if n_done:
            ending = msgspec.structs.replace(ending, n_succeeded=n_succeeded)
        return Ended(
            status=state.lower(), outcome=outcome, ending=ending, n_done=n_done, n_total=n_done + n_open
        )

    @property
    def named(self) -> Other:
        """What tells it from other jobs."""
        label = bounds.text(self.displayName)
        return Other(provider_batch_id=self.known_name, label=label)

    @property
    def _has_ended(self) -> bool:
        return isinstance(self.endTime, str) and bool(self.endTime)

    def _results(self) -> tuple[str, ...]:
        output = self.outputInfo if isinstance(self.outputInfo, dict) else {}
        folder = output.get("gcsOutputDirectory")
        return (folder,) if isinstance(folder, str) and folder.startswith("gs://") else ()


class JobPage(msgspec.Struct, frozen=True):
    """A page of the list of a location's jobs."""

    batchPredictionJobs: list[Job] | None = None  # noqa: N815
    nextPageToken: object = None  # noqa: N815
    error: object = None
    """Set if a 200 carries an error: such a page does not mean that the list is empty."""

    @property
    def jobs(self) -> list[Job]:
        """Those that have a name."""
        return [one for one in self.batchPredictionJobs or [] if one.known_name]

    @property
    def next_token(self) -> str:
        """What the next page is asked for with, or ''."""
        return bounds.cursor(self.nextPageToken)
