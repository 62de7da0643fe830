"""Holds every adapter to what the port says that its methods raise, in all tests of this folder."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from typing import Any

import pytest

from batchling_worker import errors, providers
from batchling_worker.provider import Provider

METHODS = ("upload", "create", "find", "look", "results", "cancel", "delete")
_PLACE = re.compile(r"    (Any method|[\w ]+ only):")
_ERROR = re.compile(r"    (\w+): ")


def documented() -> dict[str, set[str]]:
    """Return the names of the errors that each method may raise, from the docstring of the port."""
    table: dict[str, set[str]] = {method: set() for method in METHODS}
    methods: Collection[str] = ()
    for line in (Provider.__doc__ or "").splitlines():
        if place := _PLACE.fullmatch(line):
            named = place[1].split()
            methods = METHODS if named[0] == "Any" else [one for one in METHODS if one in named]
        elif methods and (error := _ERROR.match(line)):
            for method in methods:
                table[method].add(error[1])
    return table


def name_of(error: Exception) -> str:
    """Return the worker's error that this one is; any other, and a private kind of it, by its nearest base there."""
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__]
    return kinds[0] if kinds else type(error).__name__


def hold_to_the_port(patch: pytest.MonkeyPatch) -> None:
    """Have every method of every adapter fail the test that makes it raise what the port does not say."""
    allowed = documented()
    for name in providers.names():
        for kind in type(providers.load(name)).__mro__:
            for method in METHODS:
                found = vars(kind).get(method)
                if found is not None and not hasattr(found, "__wrapped__") and kind is not Provider:
                    watch = _watched_rows if method == "results" else _watched
                    patch.setattr(kind, method, watch(found, allowed[method]))


def _check(error: errors.WorkerError, allowed: Collection[str]) -> None:
    assert name_of(error) in allowed, f"{name_of(error)} is not among {sorted(allowed)}"


def _watched(method: Callable[..., Awaitable[Any]], allowed: Collection[str]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def run(*args: Any, **named: Any) -> Any:
        try:
            return await method(*args, **named)
        except errors.WorkerError as error:
            _check(error, allowed)
            raise

    return run


def _watched_rows(
    method: Callable[..., AsyncGenerator[Any, None]], allowed: Collection[str]
) -> Callable[..., Any]:
    @functools.wraps(method)
    async def run(*args: Any, **named: Any) -> AsyncGenerator[Any, None]:
        rows = method(*args, **named)
        try:
            async for row in rows:
                yield row
        except errors.WorkerError as error:
            _check(error, allowed)
            raise
        finally:
            await rows.aclose()

    return run
