"""A create may arrive in pieces of any size; each of its requests is read whole."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from batchling_worker.sandbox.batches.json_list import JsonList

texts = st.text(alphabet='ab"\\{}[]:,\n\u00e9 ', max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=50)
@given(
    rows=st.lists(st.dictionaries(texts, values, max_size=3), max_size=4),
    beside=st.dictionaries(texts.filter(lambda name: name != "requests"), texts, max_size=2),
    indent=st.sampled_from([None, 1]),
    sizes=st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=5),
)
def test_objects_are_split_from_the_json_around_them(
    rows: list[dict[str, Any]], beside: dict[str, str], indent: int | None, sizes: list[int]
) -> None:
    whole = {**beside, "requests": rows}
    text, listed, found, start = json.dumps(whole, indent=indent).encode(), JsonList(), [], 0
    for turn in range(len(text)):
        size = sizes[turn % len(sizes)]
        found += listed.feed(text[start : start + size])
        start += size
    assert [json.loads(one) for one in found] == rows
    assert listed.n_objects == len(rows)
    assert json.loads(listed.frame) == {**whole, "requests": [0] * len(rows)}


def test_a_cut_create_is_not_json() -> None:
    whole = b'{"requests":[{"a":"}"},{"b":[1,{}]}]}'
    for cut in range(1, len(whole)):
        listed = JsonList()
        listed.feed(whole[:cut])
        try:
            json.loads(listed.frame)
        except ValueError:
            continue
        raise AssertionError(whole[:cut])
