"""A hint is the end of a plain, long key; it never tells more, and nothing else passes for one."""

from __future__ import annotations

import pytest

from batchling_client.wire import key_hints

KEY = "sk-proj-0123456789abcdef"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"authorization": f"Bearer {KEY}"}, "cdef"),
        ({"x-api-key": KEY}, "cdef"),
        ({"authorization": f"Bearer {KEY}", "x-api-key": KEY}, "cdef"),
        ({"authorization": f"Bearer {KEY}", "x-api-key": KEY[::-1]}, ""),
        ({"authorization": "Bearer " + "k" * 15}, ""),
        ({"authorization": "Bearer " + "k" * 16}, "kkkk"),
        ({"authorization": "Bearer eyJhbGciOi.eyJvaWQiOiJ1In0.c2lnbmF0dXJl"}, ""),
        ({"authorization": "Basic dXNlcjpodW50ZXIyaHVudGVyMg=="}, ""),
        ({"authorization": "Bearer pass word pass word"}, ""),
        ({}, ""),
    ],
)
def test_only_the_end_of_a_plain_long_key_is_told(headers: dict[str, str], said: str) -> None:
    assert key_hints.hint(headers) == said
    assert not said or key_hints.is_hint(said)


@pytest.mark.parametrize("stored", ["", "abc", "abcde", "a\x1b[2", "ab\u202ec", "<b>1", "é123"])
def test_whatever_else_is_stored_in_its_place_is_not_shown(stored: str) -> None:
    assert not key_hints.is_hint(stored)
