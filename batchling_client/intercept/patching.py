"""One method of a library's client class, replaced while blocks are open and put back afterwards."""

import functools
import importlib
import inspect
import sys
import weakref
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, Final, TypeAlias

import wrapt

from . import gate, own_transports, scope
from .interceptor import PASSING, Handler
from .library import Library
from .own_transports import Way

Wrapper: TypeAlias = Callable[..., Any]


class Patch:
    """Our function in place of one method, and the earlier method."""

    def __init__(self, owner: Any, method: str, make: Callable[["Patch"], Wrapper]) -> None:
        self._owner = owner
        self._method = method
        self._original: Any = vars(owner)[method]
        self.installed = True
        self.newest = True
        """Whether no patch was made of the same method since, over somebody else's that lay on this one."""
        self._wrapper = functools.wraps(self._original)(make(self))
        setattr(owner, method, self._wrapper)

    @property
    def on_top(self) -> bool:
        """Whether nobody has put anything over or in the place of ours."""
        return vars(self._owner).get(self._method) is self._wrapper

    @property
    def active(self) -> bool:
        """Whether it catches calls: one patch of a method does, also where what lay on an older one is gone again."""
        return self.installed and (self.newest or self.on_top)

    def take_off(self) -> bool:
        """Restore the earlier method, unless another patch was applied over ours."""
        if not self.on_top:
            return False
        setattr(self._owner, self._method, self._original)
        return True

    def plain(self, instance: object) -> Callable[..., Any]:
        """Return the earlier method, bound."""
        return _bound(self._original, instance)

    def innermost(self, instance: object) -> Callable[..., Any]:
        """Return the library's own method, bound, below earlier patches of others as far as these reveal it."""
        return _bound(inspect.unwrap(self._original), instance)

    @property
    def original(self) -> object:
        """The earlier method."""
        return self._original

    def way(self, library: str) -> Way:
        """Say how a call would travel from here on, were it not for us."""
        return own_transports.way_of(self._original, library)

    def block(self) -> Handler | None:
        """Return the innermost open block."""
        return gate.behind(scope.current()) if self.active else None

    def handler(self, method: str, host: str, path: str) -> Handler | None:
        """Return the innermost open block if it takes such a call; `PASSING` if the call passes and was counted."""
        handler = self.block()
        if handler is None:
            return None
        if handler.wants(method, host, path):
            transport_path = own_transports.current()
            if transport_path is not None:
                # A client's own transport sends on over a library that is covered, too.
                transport_path.caught = True
            return handler
        return PASSING if handler.passes(method, host, path) else None


def _bound(method: Any, instance: object) -> Callable[..., Any]:
    # Bind it as an attribute look-up does: it may be a wrapper object of another library.
    bind = getattr(method, "__get__", None)
    bound: Callable[..., Any] = method if bind is None else bind(instance, type(instance))
    return bound


Target: TypeAlias = tuple[Any, str, Callable[[Patch], Wrapper]]
"""A class, the name of its method, and what makes the function that takes its place."""


def own_class(module: ModuleType, name: str, submodule: str) -> Any:
    """Return the class of a library, which its submodule has also where a test put a double in its place; or None."""
    for place in (sys.modules.get(f"{module.__name__}.{submodule}"), module):
        found = getattr(place, name, None)
        if isinstance(found, type):
            return found
    return None


def _holder(owner: Any, method: str) -> Any:
    """Return what holds the method: the module, or the class itself or a base of it. None = a double, without one."""
    places = owner.__mro__ if isinstance(owner, type) else (owner,) if isinstance(owner, ModuleType) else ()
    return next((place for place in places if method in vars(place)), None)


class Patcher:
    """The patches of one interceptor, on libraries that are imported now or later.

    `install` and `uninstall` may be called any number of times, in any order.
    """

    def __init__(self, targets: Callable[[ModuleType], Iterable[Target]], *libraries: Library) -> None:
        self.libraries: Final = libraries
        self._targets: Final = targets
        self._installed = False
        self._awaited: set[str] = set()
        # By class and method, not by module: httpx2.alias_httpx() makes two modules one.
        self._patches: dict[tuple[object, str], Patch] = {}
        # Older patches too, as a test double that was started over a patch restores it when it stops.
        self._made: list[weakref.ref[Patch]] = []

    def install(self) -> None:
        """Patch the imported libraries now, and the others when they are imported."""
        self._installed = True
        for patch in self._alive():
            patch.installed = True
        for name in (name for library in self.libraries for name in library.modules):
            module = sys.modules.get(name)
            if isinstance(module, ModuleType):
                self._adopt(module)
            elif module is None and name not in self._awaited:
                self._awaited.add(name)
                wrapt.register_post_import_hook(self._adopt, name)

    def uninstall(self) -> None:
        """Restore every class; below another patch ours stays, and does nothing."""
        self._installed = False
        for patch in self._alive():
            patch.installed = False
        for place, patch in list(self._patches.items()):
            if patch.take_off():
                self._patches.pop(place, None)
        for patch in self._alive():
            patch.take_off()

    def patches(self, method: str) -> bool:
        """Return whether a method of this name is patched."""
        return any(name == method for _, name in self._patches)

    def renew(self, library: str, method: str) -> None:
        """Patch a library again where its own method is back in the place of ours, as a double leaves it."""
        for owner, name in list(self._patches):
            found = vars(owner).get(name)
            if name != method or own_transports.is_ours(found) or own_transports.is_wrapped(found, library):
                continue
            self._adopt(sys.modules[library])

    def _alive(self) -> list[Patch]:
        found = [(one, one()) for one in list(self._made)]
        for reference in [one for one, patch in found if patch is None]:
            self._made.remove(reference)
        return [patch for _, patch in found if patch is not None]

    def _adopt(self, module: ModuleType) -> None:
        self._awaited.discard(module.__name__)
        if not self._installed:
            return
        # Returns once the import is complete, also where another thread is in the middle of it.
        self._patch(importlib.import_module(module.__name__))

    def _patch(self, module: ModuleType) -> None:
        known = (library for library in self.libraries if module.__name__ in library.modules)
        if not any(library.is_in(module) for library in known):
            return
        for named, method, make in self._targets(module):
            owner = _holder(named, method)
            if owner is None:
                continue
            patch = self._patches.get((owner, method))
            if patch is not None and patch.on_top:
                continue
            if patch is not None:
                patch.newest = False
            self._patches[owner, method] = made = Patch(owner, method, make)
            self._made.append(weakref.ref(made))
        if not self._installed:
            # Uninstalled meanwhile by another thread, which may not have seen these patches.
            self.uninstall()
