"""Whom a complaint blames: the row it names by line, index or custom_id, or all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchling_worker.decisions import blame
from batchling_worker.provider import Complaint

ID = "abcdefghijklmnopqrstuvwx23"
NOBODY = blame.Pointer()


def at(
    message: str = "", *, code: str = "odd", line: int | None = None, param: str | None = None
) -> blame.Pointer:
    return blame.pointer(Complaint(code=code, message=message, line=line, param=param))


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("input format error: Line 2 is not valid", 2),
        ("line 17: missing model", 17),
        ("Error on row #3", 3),
        ("line number 4 is bad", 4),
        ("Line 2: Expecting value: line 1 column 5 (char 4)", 2),
        ("requests[3]: bad", 4),
        ("requests.0.params.max_tokens: too large", 1),
        ("batch_requests[9].custom_id", 10),
        ("Expecting value: line 1 column 5 (char 4)", None),
        ("at most 50000 rows and 200 lines", None),
        ("line 0", None),
        ("the deadline 5 passed", None),
        ("", None),
    ],
)
def test_a_line_is_read_in_words(message: str, line: int | None) -> None:
    assert at(message).line == line


def test_a_line_that_is_given_wins_over_words() -> None:
    assert at("line 9", line=3).line == 3


@pytest.mark.parametrize("param", ["requests[4]", "requests[4].body.model", "requests.4.params"])
def test_an_index_counts_from_nought(param: str) -> None:
    assert at("bad", param=param).line == 5


def test_custom_ids_are_read_in_message_and_param() -> None:
    assert at(f"The custom_id '{ID}' is twice here").custom_ids == (ID,)
    assert at("bad", param=f"{ID}.body").custom_ids == (ID,)
    for close in (ID[:-1], ID + "a", "A" * 26, ID.replace("2", "1")):
        assert at(f"The custom_id '{close}'").custom_ids == ()


@pytest.mark.parametrize("code", sorted(blame.BATCH_COMPLAINTS))
def test_what_the_rows_share_blames_none_of_them(code: str) -> None:
    assert at(f"line 1, {ID}", code=code, line=1) == NOBODY


@pytest.mark.parametrize("param", sorted(blame.SHARED_PARAMS))
def test_a_parameter_that_the_rows_share_blames_none_of_them(param: str) -> None:
    assert at("bad", line=1, param=param) == NOBODY


def test_a_code_that_speaks_of_one_row_does_so_whatever_its_parameter() -> None:
    for code in blame.ROW_COMPLAINTS:
        assert at("bad", code=code, line=3, param="body.model").line == 3


@given(st.text(), st.none() | st.text(), st.none() | st.integers(1, 10**9))
def test_any_words_point_somewhere_or_nowhere(message: str, param: str | None, line: int | None) -> None:
    there = at(message, line=line, param=param)
    assert there.line is None or there.line > 0
