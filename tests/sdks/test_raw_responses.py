"""Raw responses: the SDK's view of the HTTP response equals the provider's answer."""

from __future__ import annotations

import inspect

import pytest

from .asking import Way, answers_to
from .books import Books
from .caller import Caller, callers
from .conftest import Saw


@pytest.mark.parametrize("caller", [caller for caller in callers() if caller.raw], ids=str)
async def test_a_raw_response_has_status_headers_and_the_typed_answer(
    caller: Caller, way: Way, key: str, books: Books, saw: Saw
) -> None:
    saw(caller, "raw")
    raw = caller.raw
    assert raw is not None
    prompt = f"{key[3:]}: a question"

    [response] = await answers_to(raw.ask, None, caller, way, key, [prompt])

    assert response.http_response.status_code == 200
    assert response.retries_taken == 0
    assert response.http_request.method == "POST"
    parsed = response.parse()
    answer = await parsed if inspect.isawaitable(parsed) else parsed
    assert caller.holds(answer, prompt), answer
    request_id = response.headers[raw.request_id]
    assert request_id
    if raw.on_answer:
        assert answer._request_id == request_id
    assert len(books.batches()) == 1
