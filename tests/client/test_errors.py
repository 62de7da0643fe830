"""What HTTP cannot say is found wherever an SDK's exception keeps the reply."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from batchling_client import errors
from batchling_client.wire import answer_shape
from batchling_worker.decisions import reasons

HEADERS = {errors.HEADER: "batch_expired", "content-type": "application/json"}
REPLY = httpx.Response(504, headers=HEADERS, json={"error": {"message": "three times too late"}})


class Awaited:
    """A reply whose body only a running event loop can read."""

    headers = REPLY.headers

    async def json(self) -> object:
        raise AssertionError("nobody awaits this")


class SdkError(Exception):
    def __init__(self, text: str = "", **attributes: Any) -> None:
        super().__init__(text)
        for name, value in attributes.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (SdkError(response=REPLY), "three times too late"),
        (SdkError(raw_response=REPLY, headers=REPLY.headers), "three times too late"),
        (SdkError("its own words", headers=HEADERS), "its own words"),
        (SdkError("its own words", response=Awaited()), "its own words"),
        (SdkError("its own words", response=httpx.Response(504, headers=HEADERS)), "its own words"),
    ],
    ids=["response", "raw response", "headers alone", "a body to be awaited", "no body"],
)
def test_an_error_of_ours_is_found_with_its_words(error: Exception, says: str) -> None:
    found = errors.of(error)

    assert isinstance(found, errors.BatchExpired)
    assert str(found) == says


@pytest.mark.parametrize(
    "error",
    [SdkError(), SdkError(response=None), SdkError(headers="none"), SdkError(response=httpx.Response(400))],
    ids=["nothing", "no response", "odd headers", "the provider's own"],
)
def test_errors_of_the_provider_are_not_ours(error: Exception) -> None:
    assert errors.of(error) is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (answer_shape.UNFIT, errors.AnswerUnfit),
        (reasons.UNREADABLE, errors.AnswerUnreadable),
        (reasons.UNFOUND, errors.RequestLost),
        (reasons.UNSENT, errors.BatchFailed),
        (reasons.OVERDUE, errors.BatchExpired),
        (reasons.DEFECT, errors.BatchlingError),
    ],
)
def test_every_code_with_which_workers_end_a_batch_has_its_class(
    code: str, kind: type[errors.BatchlingError]
) -> None:
    reply = httpx.Response(502, headers={errors.HEADER: code}, json={"error": {"message": "why"}})

    found = errors.of(SdkError(response=reply))

    assert type(found) is kind
    assert str(found) == "why"
