"""Empty pages of a list that has more: their cursor leads to the page that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from multidict import MultiDict, MultiMapping

from ..world.lies import EmptyPage
from .dialect import Traits

_MARK: Final = "past-"
"""The prefix of a cursor that an empty page gave out."""


def honest(traits: Traits, query: MultiMapping[str]) -> MultiMapping[str]:
    """Return the query with the real cursor in place of the cursor of an empty page."""
    if traits.cursor is None:
        return query
    name, _ = traits.cursor
    cursor = query.get(name, "")
    if not cursor.startswith(_MARK):
        return query
    plain = MultiDict(query)
    plain.popall(name)
    if cursor != _MARK:
        plain[name] = cursor.removeprefix(_MARK)
    return plain


def beside(
    traits: Traits, query: MultiMapping[str], envelope: Mapping[str, Any], fault: EmptyPage
) -> dict[str, Any]:
    """Return the fields beside an empty page, given those of the page that was asked for."""
    said = dict(envelope)
    if "has_more" in said:
        said |= {"has_more": True, "first_id": None, "last_id": None}
        if not fault.cursor:
            return said
    if traits.cursor is None:
        return said
    name, (*path, last) = traits.cursor
    place = said
    for step in path:
        place[step] = dict(place[step])
        place = place[step]
    place[last] = f"{_MARK}{query.get(name, '').removeprefix(_MARK)}"
    return said


def reworded(traits: Traits, batch: dict[str, Any], word: str | None) -> dict[str, Any]:
    """Return a batch's JSON with its status replaced by another word."""
    if word is None or not traits.status_path:
        return batch
    *path, last = traits.status_path
    place = batch
    for step in path:
        place = place[step]
    place[last] = word
    return batch
