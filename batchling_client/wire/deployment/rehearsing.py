"""The environment of a rehearsed program, which keeps each of its processes away from real providers."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from ..no_batches import NO_BATCHES
from ..route import Route, plain_host
from . import setting_files

SANDBOX: Final = "BATCHLING_SANDBOX"
"""The sandbox's URL; a process that imports batchling sends no call to a real provider while it is set."""
HOSTS: Final = "BATCHLING_SANDBOX_HOSTS"
"""The hosts of providers, between commas: a Python process without batchling connects to none of them."""
STARTUP: Final = Path(__file__).parents[2] / "startup"
"""Belongs on PYTHONPATH: its `sitecustomize` has every Python process take part in the rehearsal."""
SAID: Final = "said"
"""A folder in the home of a rehearsal, where its processes note which sentence was printed once for all of them."""
SERVED: Final = "BATCHLING_SANDBOX_PROVIDERS"
"""The providers that the sandbox stands in for, between commas; unset or empty = all."""
NO_ACCOUNT: Final = "sandbox-needs-no-key"
"""In the place of every API key."""
_THIS_MACHINE: Final = frozenset({"", "127.0.0.1", "["})


@contextlib.contextmanager
def environment_of(settings: Mapping[str, str]) -> Iterator[None]:
    """Add the variables of a rehearsal to this process' environment while the context is open."""
    before = dict(os.environ)
    for name in before:
        if name.upper() in (*setting_files.URL, *settings):
            del os.environ[name]
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def hosts(routes: Iterable[Route]) -> tuple[str, ...]:
    """Return the hosts of the providers but this machine; a `*` stands for a part of a name without dots."""
    named = [host for route in routes for host in (*route.hosts, route.site)]
    named += [host for each in NO_BATCHES for host in each.hosts]
    names = (plain_host(host.partition("/")[0]).partition(":")[0] for host in named)
    return tuple(dict.fromkeys(name for name in names if name not in _THIS_MACHINE))
