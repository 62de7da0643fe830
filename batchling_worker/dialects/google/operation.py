"""A batch of the Gemini API, which is a long-running operation: read leniently, told as a look."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from batchling_client.wire.states import Outcome

from ...decisions import status_words
from ...provider import Ended, Ending, Other, Running
from .. import bounds
from . import rpc_status

LATE_RESULTS: Final = dt.timedelta(minutes=10)
"""For so long after its end a batch that succeeded may yet show its results (reported 2026; ellmer #926)."""

_STATE: Final = re.compile(r"^(?:BATCH|JOB)_STATE_")
_RESULTS: Final = re.compile(r"files/[\w.-]+")
_CAPITAL: Final = re.compile(r"([A-Z])")


class Operation(msgspec.Struct, frozen=True):
    """An operation as its provider shows it; every field may be absent or of a type that nobody documented."""

    name: object = None
    metadata: object = None
    done: object = None
    response: object = None
    error: object = None

    @property
    def known_name(self) -> str:
        """The provider's name of the batch, or ''."""
        name = bounds.identifier(self.name)
        return name if name.startswith("batches/") else ""

    @property
    def named(self) -> Other:
        """What tells it from other batches."""
        metadata = fields(self.metadata)
        return Other(
            provider_batch_id=self.known_name,
            label=_text(metadata, "displayName"),
            input_file_id=_text(fields(metadata.get("inputConfig")), "fileName"),
        )

    @property
    def made_at(self) -> dt.datetime | None:
        """When the batch was created; None if the operation does not say."""
        return bounds.aware(_text(fields(self.metadata), "createTime"))

    def look(self, now: dt.datetime) -> Running | Ended:
        """Return the state of the batch; an unknown state counts as an end only if the operation is done."""
        metadata = fields(self.metadata)
        state = _STATE.sub("", _text(metadata, "state").upper())
        stats = fields(metadata.get("batchStats"))
        n_total = bounds.count(stats.get("requestCount"))
        n_done = bounds.count(stats.get("successfulRequestCount")) + bounds.count(
            stats.get("failedRequestCount")
        )
        outcome = status_words.outcome_of(state)
        if outcome is None and self.done is True:
            outcome = Outcome.FAILED if self.error else Outcome.COMPLETED
        results = self._results()
        if outcome is Outcome.COMPLETED and self.error and not (results or n_done):
            outcome = Outcome.FAILED
        awaited = outcome is Outcome.COMPLETED and not results and self._ended_just_now(now)
        if outcome is None or awaited:
            return Running(status=state.lower() or "unknown", n_done=n_done, n_total=n_total)
        ending = (
            rpc_status.failed_ending(self.error, results)
            if outcome is Outcome.FAILED
            else Ending(results=results)
        )
        if n_done:
            ending = msgspec.structs.replace(
                ending, n_succeeded=bounds.count(stats.get("successfulRequestCount"))
            )
        return Ended(status=state.lower(), outcome=outcome, ending=ending, n_done=n_done, n_total=n_total)

    def _results(self) -> tuple[str, ...]:
        """Return where the results are: the SDK reads one field, the documents name another."""
        response = fields(self.response)
        for output in (fields(self.metadata).get("output"), response, response.get("output")):
            name = _text(fields(output), "responsesFile")
            if _RESULTS.fullmatch(name):
                return (name,)
        return ()

    def _ended_just_now(self, now: dt.datetime) -> bool:
        metadata = fields(self.metadata)
        ended_at = bounds.aware(_text(metadata, "endTime") or _text(metadata, "updateTime"))
        return ended_at is not None and abs(now - ended_at) < LATE_RESULTS


class OperationPage(msgspec.Struct, frozen=True, rename="camel"):
    """A page of the list of batches."""

    operations: list[Operation] | None = None
    next_page_token: object = None
    token_in_snake_case: object = msgspec.field(default=None, name="next_page_token")
    error: object = None
    """Set if a 200 carries an error: such a page does not mean that the list is empty."""

    @property
    def batches(self) -> list[Operation]:
        """Those that have a name."""
        return [one for one in self.operations or [] if one.known_name]

    @property
    def next_token(self) -> str:
        """What the next page is asked for with, or ''."""
        tokens = (self.next_page_token, self.token_in_snake_case)
        return next((one for one in tokens if isinstance(one, str)), "")


def fields(said: object) -> dict[str, object]:
    """Return the fields of an object; an empty dict for anything else."""
    return said if isinstance(said, dict) else {}


def _text(said: Mapping[str, object], name: str) -> str:
    """Return a field as text, in camel case or in snake case, as proto-JSON allows both; '' if the field is absent."""
    snake = _CAPITAL.sub(lambda found: f"_{found[1].lower()}", name)
    found = said.get(name, said.get(snake))
    return bounds.text(found)
