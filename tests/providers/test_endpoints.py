"""An endpoint that is read back out of a lane is one of its provider's, or no call is made of it."""

from __future__ import annotations

import dataclasses

import httpx
import pytest

from batchling_worker import providers
from batchling_worker.errors import PermanentError
from batchling_worker.provider import Account, Source

from .desk import submission
from .wire import Wire


@pytest.mark.parametrize(
    ("provider", "endpoint"),
    [
        ("gemini", "/../models:generateContent"),
        ("gemini", "/v1?a/models:generateContent"),
        ("gemini", "/v1/../models:generateContent"),
        ("gemini", "/v1/models:deleteContent"),
        ("gemini", ""),
        ("vertex", "/../projects/p/locations/l:generateContent"),
        ("vertex", "/v1/projects/../locations/l:generateContent"),
        ("vertex", "/v1/projects/p?/locations/l:generateContent"),
        ("vertex", "/v1/projects/p/locations/..:generateContent"),
    ],
)
async def test_no_call_is_made_of_an_endpoint_that_leads_elsewhere(
    wire: Wire, http: httpx.AsyncClient, provider: str, endpoint: str
) -> None:
    account = Account(base_url=f"{wire.url}/gw", headers={}, http=http, digest="a", staging="gs://bucket")
    asked = dataclasses.replace(submission(), endpoint=endpoint)
    with pytest.raises(PermanentError, match="endpoint"):
        await providers.load(provider).create(account, asked, Source(file_id="files/1", lines=None))
    assert wire.seen == []
