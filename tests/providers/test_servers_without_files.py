"""A server of the settings that has no files: its callers get an error that says so, at once."""

from __future__ import annotations

import pytest

from batchling_worker.errors import PermanentError

from .desk import Desk
from .wire import Wire, answer

BODIES = {
    "json": b'{"detail":"Not Found"}',
    "error": b'{"error":{"message":"not implemented"}}',
    "html": b"<html>404 page not found</html>",
    "text": b"404 page not found",
    "nothing": b"",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_without_files_is_named_in_the_error(
    wire: Wire, wired: Desk, status: int, body: bytes
) -> None:
    wire.reply = lambda seen: answer(body, status=status)
    with pytest.raises(PermanentError) as caught:
        await wired.upload()
    assert caught.value.status == status
    for said in (str(caught.value), caught.value.body.decode()):
        assert "has no /files and /batches" in said
        assert f"Unset BATCHLING_PROVIDERS__{wired.provider.facts.name.upper()}__BASE_URL" in said
