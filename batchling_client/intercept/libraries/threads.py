"""Threads, thread pools and exit handlers: what is started inside a block remembers it, so that calls that it makes
after the block has ended are counted and warned of. Nothing else about them changes."""

import atexit
import concurrent.futures.thread as pools
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Final

from .. import scope, switch
from ..library import Library
from ..passed import Passed
from ..patching import Patch, Patcher, Target

_grows: ContextVar[bool] = ContextVar("batchling_pool_grows", default=False)
"""Whether a pool starts a thread of its own: its items remember their blocks, and the thread serves other code too."""


def _starting(patch: Patch) -> Callable[..., None]:
    def start(thread: threading.Thread) -> None:
        block = scope.starting_block()
        if block is None or _grows.get() or thread.name == scope.BACKGROUND:
            return patch.plain(thread)()  # type: ignore[no-any-return]
        run, before = thread.run, vars(thread).get("run")

        def restore() -> None:
            if before is None:
                vars(thread).pop("run", None)
            else:
                vars(thread)["run"] = before

        def remembering() -> None:
            restore()
            with scope.started_in(block):
                run()

        vars(thread)["run"] = remembering
        try:
            return patch.plain(thread)()  # type: ignore[no-any-return]
        except BaseException:
            restore()
            raise

    return start


def _submitting(patch: Patch) -> Callable[..., Any]:
    def submit(pool: Any, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        block = scope.starting_block()
        if block is None:
            return patch.plain(pool)(function, *args, **options)

        def remembering(*args: Any, **options: Any) -> Any:
            with scope.started_in(block):
                return function(*args, **options)

        before = _grows.set(True)
        try:
            item = patch.plain(pool)(remembering, *args, **options)
        finally:
            _grows.reset(before)
        block.items.add(item)
        item.add_done_callback(block.items.discard)
        return item

    return submit


class _AtExit:
    """An exit handler that was registered inside a block; equal to the function, by which it can be unregistered.

    It lives as long as the process, and holds the counts of the block only, so that interception ends before.
    """

    def __init__(self, function: Callable[..., object], passed: Passed) -> None:
        self._function = function
        self._passed = passed

    def __call__(self, *args: Any, **options: Any) -> None:
        switch.install()
        try:
            with scope.started_in(scope.ended(self._passed)):
                self._function(*args, **options)
        finally:
            switch.uninstall()

    def __eq__(self, other: object) -> bool:
        return bool(self._function == other)

    def __hash__(self) -> int:
        return hash(self._function)


def _registering(patch: Patch) -> Callable[..., Any]:
    def register(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        block = scope.starting_block()
        if block is None or block.passed is None or not callable(function):
            return patch.plain(atexit)(function, *args, **options)
        patch.plain(atexit)(_AtExit(function, block.passed), *args, **options)
        return function

    return register


_STARTS: Final = next(owner for owner in threading.Thread.__mro__ if "start" in vars(owner))
"""The class whose `start` begins a thread: gevent puts a subclass in the place of Python's own."""

_PLACES: Final[dict[str, tuple[Any, str, Callable[[Patch], Callable[..., Any]]]]] = {
    "threading": (_STARTS, "start", _starting),
    "concurrent.futures.thread": (pools.ThreadPoolExecutor, "submit", _submitting),
    "atexit": (atexit, "register", _registering),
}


def _targets(module: ModuleType) -> Iterator[Target]:
    yield _PLACES[module.__name__]


INTERCEPTOR: Final = Patcher(_targets, Library(name="threads", modules=tuple(_PLACES)))
