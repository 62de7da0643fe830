"""Public errors, each one sentence fit for a person.

BatchlingError
├── WrongSettings        a setting or parameter is not usable (also a ValueError)
├── QueueUnreachable     Redis, or the embedded stack that holds it, cannot be reached
├── QueueUnfit           Redis is set up in a way that would lose requests
├── NotIntercepted       an HTTP library was changed so that its calls do not reach batchling
├── RequestRefused       the request cannot go into a batch as it is
├── QueueFull            Redis has no room for the request
├── BatchFailed          the provider refused the batch as a whole
├── BatchTooSmall        the provider takes no batch of so few requests
├── BatchExpired         the provider did not get to the request in time, in any of its attempts
├── BatchCancelled       the batch was cancelled before the request was answered
├── RequestLost          Redis or the provider no longer knows the request
├── AnswerUnreadable     the answer is damaged, or its provider's result file cannot be read
├── AnswerUnfit          the provider calls the request a success, and its answer is something else
└── DeadlinePassed       the deadline of the run came before the answer

DryRun (a BaseException) ends a dry run: each of its calls, and at the end of its block the program.

An SDK raises its own exceptions; `of` finds in one of them what HTTP could not say.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from .wire.shown import lines

HEADER: Final = "x-batchling-error"
"""The reply header that carries the code of an error of ours."""


class BatchlingError(Exception):
    """Something that batchling has to say, which the provider did not."""

    code: ClassVar[str] = "batchling_error"
    sentence: ClassVar[str] = "batchling could not get an answer to this request."

    def __init__(self, sentence: str = "") -> None:
        super().__init__(lines(sentence or self.sentence))


class WrongSettings(BatchlingError, ValueError):
    """A setting or parameter is not usable as it is."""

    code = "wrong_settings"
    sentence = "A setting of batchling is not usable as it is."


class QueueUnreachable(BatchlingError):
    """Redis, or the embedded stack that holds it, cannot be reached."""

    code = "queue_unreachable"
    sentence = "The queue (Redis) cannot be reached."


class QueueUnfit(BatchlingError):
    """Redis is set up in a way that would lose requests; nothing was queued."""

    code = "queue_unfit"
    sentence = "The queue (Redis) is set up in a way that would lose requests: see `batchling doctor`."


class NotIntercepted(BatchlingError):
    """An HTTP library's calls do not reach batchling, so they would be sent at full price."""

    code = "not_intercepted"
    sentence = "Calls of an HTTP library do not reach batchling."


class RequestRefused(BatchlingError):
    """The request cannot go into a batch as it is; nothing was queued."""

    code = "request_refused"
    sentence = "The request cannot go into a batch as it is."


class QueueFull(BatchlingError):
    """Redis has no room for the request; nothing was queued."""

    code = "queue_full"
    sentence = "The queue (Redis) is full: give it more memory (maxmemory), or send fewer requests at once."


class BatchFailed(BatchlingError):
    """The provider refused the batch as a whole, for the reason in its answer."""

    code = "batch_failed"
    sentence = "The provider refused the batch as a whole."


class BatchTooSmall(BatchlingError):
    """The provider takes no batch of so few requests, and nothing was sent to it."""

    code = "batch_too_small"
    sentence = (
        "The provider takes no batch of so few requests: send more at once, or say on_too_few='realtime'."
    )


class BatchExpired(BatchlingError):
    """The provider did not get to the request within the completion window, in any of its attempts."""

    code = "batch_expired"
    sentence = "The provider did not get to the request within the completion window."


class BatchCancelled(BatchlingError):
    """The batch was cancelled before the request was answered."""

    code = "batch_cancelled"
    sentence = "The batch was cancelled before the request was answered."


class RequestLost(BatchlingError):
    """Redis or the provider no longer knows the request; it may be sent again."""

    code = "request_lost"
    sentence = "The queue (Redis) no longer holds this request: its memory was lost. Send the request again."


class AnswerUnreadable(BatchlingError):
    """The stored answer is damaged or of another version, and was refused."""

    code = "answer_unreadable"
    sentence = (
        "The stored answer to this request is damaged, and was refused. Send it again with cache=False."
    )


class AnswerUnfit(BatchlingError):
    """The provider reports success, but the body is not an answer of the endpoint."""

    code = "batch_answer_unfit"
    sentence = "The provider calls the request a success, but its body is not an answer of the endpoint."


class DeadlinePassed(BatchlingError):
    """The deadline of the run came before the answer."""

    code = "deadline_passed"
    sentence = "The deadline of the run came before the answer to this request."


class DryRun(BaseException):
    """Ends a dry run: each of its calls, and at the end of its block the program, so that nothing after it runs."""


class DryRunCall(DryRun, asyncio.CancelledError):
    """Ends a call of a dry run; no SDK takes it for a failure to be tried again.

    A cancellation to asyncio, so that tasks which nobody awaits any more end without a complaint.
    """


class DryRunOver(DryRun, SystemExit):
    """Ends the program of a dry run with its block; uncaught, Python prints the sentence and no traceback."""


_BY_CODE: Final[dict[str, type[BatchlingError]]] = {
    **{
        kind.code: kind
        for kind in (
            RequestRefused,
            QueueFull,
            QueueUnreachable,
            BatchFailed,
            BatchTooSmall,
            BatchExpired,
            BatchCancelled,
            RequestLost,
            AnswerUnreadable,
            AnswerUnfit,
            DeadlinePassed,
        )
    },
    "batch_lost": RequestLost,
    "batch_row_lost": RequestLost,
    "batch_model_mismatch": RequestRefused,
    "batch_row_corrupt": RequestRefused,
    "batch_unreadable": AnswerUnreadable,
    "batch_results_unreadable": AnswerUnreadable,
    "batch_answers_too_large": AnswerUnreadable,
    "batch_answer_too_large": AnswerUnreadable,
    "batch_not_found_again": RequestLost,
    "batch_not_submitted": BatchFailed,
    "batch_overdue": BatchExpired,
}


def of(exc: BaseException) -> BatchlingError | None:
    """Return the batchling error inside an SDK's exception, or inside a framework's exception raised from it.

    None if the error came from the provider, or if the framework drops the SDK's exception.
    """
    step: BaseException | None = exc
    while step is not None:
        if isinstance(step, BatchlingError):
            return step
        code = _code_in(step)
        if code is not None:
            return _BY_CODE.get(code, BatchlingError)(_message_in(step))
        step = step.__cause__
    return None


def _holders(exc: BaseException) -> Iterator[Any]:
    """Yield the objects that may be the reply: `response`, `raw_response` (mistralai), or the exception (together)."""
    yield from (getattr(exc, "response", None), getattr(exc, "raw_response", None), exc)


def _code_in(exc: BaseException) -> str | None:
    for holder in _holders(exc):
        headers = getattr(holder, "headers", None)
        code = headers.get(HEADER) if isinstance(headers, Mapping) else None
        if isinstance(code, str):
            return code
    return None


def _message_in(exc: BaseException) -> str:
    for holder in _holders(exc):
        read = getattr(holder, "json", None)
        # aiohttp's `json`, on the reply that google-genai keeps, is a coroutine, and the connection is closed.
        if read is None or inspect.iscoroutinefunction(read):
            continue
        try:
            message = read()["error"]["message"]
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
        if isinstance(message, str):
            return message
    return str(exc)
