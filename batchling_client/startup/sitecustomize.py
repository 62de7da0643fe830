"""Runs at the start of each Python process of a rehearsal: the rehearsal puts this folder on PYTHONPATH.

Imports batchling once the process has imported an HTTP library, so that its calls go to the sandbox. A process without
batchling keeps running, and its connections to known providers are refused. Uses the standard library only, in words
that Pythons older than batchling's read too, and runs the `sitecustomize` that would have run without it.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

SANDBOX = "BATCHLING_SANDBOX"
HOSTS = "BATCHLING_SANDBOX_HOSTS"
HOME = "BATCHLING_HOME"
# A folder in the home of a rehearsal; a message with a file there was printed by one of its processes.
SAID = "said"
CLIENT = "batchling_client"
HERE = os.path.dirname(os.path.abspath(__file__))
# Each interceptor has its library's name; niquests has none, and sends over a urllib3 of another name.
LIBRARIES = frozenset(
    name.partition(".")[0] for name in os.listdir(os.path.join(HERE, "..", "intercept", "libraries"))
) | {"niquests"}

_REFUSED = (
    "This is a rehearsal, and this process cannot hand a call to {0} to the sandbox: it was not sent. Install "
    "batchling in the environment of {1}, or point the client at the sandbox ({2})."
)
_WITHOUT = (
    "{0} has no batchling: calls of its processes reach the sandbox only if a base URL in the environment leads there, "
    "and {1}. Install batchling in that environment to rehearse all of them."
)
_BROKEN = (
    "{0} cannot import batchling ({2}: {3}): calls of this process reach the sandbox only if a base URL in the "
    "environment leads there, and {1}."
)
_GUARDED = "connections to known providers are refused"
_TOO_OLD = "other calls reach real providers, because Python before 3.8 cannot refuse connections"


class Guard:
    """An audit hook that refuses connections to providers, until batchling has taken over."""

    def __init__(self, url: str, hosts: str) -> None:
        self._url = url
        names = [re.escape(one).replace(r"\*", "[a-z0-9-]+") for one in hosts.split(",") if one]
        self._hosts = re.compile("|".join(names) or "(?!)")
        self._said = set()  # type: set[str]
        self._active = True

    def leave(self) -> None:
        """Refuse nothing from now on."""
        self._active = False

    def __call__(self, event: str, args: "tuple[object, ...]") -> None:
        """Raise where a connection to a provider is about to be made."""
        if not self._active or not event.startswith("socket."):
            return
        if event in ("socket.getaddrinfo", "socket.gethostbyname"):
            self._check(args[0])
        elif event == "socket.connect" and isinstance(args[1], tuple):
            self._check(args[1][0])

    def say(self, words: str) -> None:
        """Print a sentence to stderr, once in this process."""
        if words in self._said:
            return
        self._said.add(words)
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(f"batchling: {words}\n")
            sys.stderr.flush()

    def _check(self, host: object) -> None:
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
        if not isinstance(name, str) or not self._hosts.fullmatch(name.rstrip(".").lower()):
            return
        words = _REFUSED.format(name, sys.executable, self._url)
        self.say(words)
        raise PermissionError(words)


class Finder:
    """Waits on `sys.meta_path` for the first HTTP library, and imports batchling once that library is imported."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._loading = []  # type: list[str]
        self._done = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        """Return what the other finders find, with a loader that reports the end of the import."""
        if self._done or not _is_library(name):
            return None
        spec = self._found(name, path, target)
        loader = getattr(spec, "loader", None)
        if hasattr(loader, "exec_module"):
            self._watch(name, loader)
        return spec

    def join(self) -> None:
        """Import batchling, which then takes care of the calls of this process."""
        if self._done:
            return
        self._done = True
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        try:
            importlib.import_module(CLIENT)
        except Exception as error:  # noqa: BLE001 - the program has to run, whatever ails batchling
            missing = isinstance(error, ImportError) and error.name == CLIENT
            if missing and not _is_first():
                return
            rest = _GUARDED if hasattr(sys, "addaudithook") else _TOO_OLD
            words = _WITHOUT if missing else _BROKEN
            self._guard.say(words.format(sys.executable, rest, type(error).__name__, error))
        else:
            self._guard.leave()

    def _watch(self, name: str, loader: object) -> None:
        run = getattr(loader, "exec_module")  # noqa: B009 - the types of old Pythons' loaders do not name it

        def exec_module(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            self._loading.append(name)
            try:
                run(module)
            finally:
                self._loading.remove(name)
            # requests imports urllib3: batchling has to find both of them complete.
            if not self._loading:
                self.join()

        with contextlib.suppress(AttributeError):
            setattr(loader, "exec_module", exec_module)  # noqa: B010

    def _found(self, name: str, path: object, target: object) -> "ModuleSpec | None":
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :] if self in finders else finders:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None else None
            if isinstance(spec, ModuleSpec):
                return spec
        return None


def _is_library(name: str) -> bool:
    return (name.removesuffix("2")) in LIBRARIES


def begin() -> None:
    """Watch this process if it belongs to a rehearsal."""
    url = os.environ.get(SANDBOX, "")
    if not url:
        return
    guard = Guard(url, os.environ.get(HOSTS, ""))
    if hasattr(sys, "addaudithook"):
        sys.addaudithook(guard)
    finder = Finder(guard)
    sys.meta_path.insert(0, finder)
    if any(map(_is_library, list(sys.modules))):
        # A .pth file has imported such a library already.
        finder.join()


def chain() -> None:
    """Run the `sitecustomize` that Python would have found without this one."""
    sys.path[:] = [one for one in sys.path if os.path.abspath(one or ".") != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def _is_first() -> bool:
    """Return whether no other process of this rehearsal has printed that it has no batchling."""
    said = os.path.join(os.environ.get(HOME, ""), SAID)
    if not os.path.isdir(said):
        return True
    try:
        os.close(os.open(os.path.join(said, "without-batchling"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError:
        return False
    return True


begin()
chain()
