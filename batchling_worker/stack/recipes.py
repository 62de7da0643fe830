"""The command lines of the stack's children."""

from __future__ import annotations

import hashlib
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from batchling_client.wire.deployment import setting_files

from .keeper import Recipe
from .layout import Layout
from .redis_binary import MALLOC

_WORKER_WORDS: Final = (
    *("--pool", "threads", "--concurrency", "4"),
    *("--without-mingle", "--without-gossip", "-E", "--loglevel", "INFO"),
)

_FOR_FLOWER: Final = frozenset(
    {
        *("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV"),
        *("BATCHLING_HOME", "BATCHLING_REDIS_URL", "BATCHLING_NAMESPACE", "BATCHLING_LOG_FORMAT"),
        *("BATCHLING_FLOWER_HOSTS", "BATCHLING_FLOWER_WITHOUT_LOGIN"),
    }
)
_BEGIN_FOR_FLOWER: Final = ("DYLD_", "FLOWER_", "LC_", "LD_", "PYTHON", "SSL_CERT_")


class Recipes:
    """How Redis, a worker and Flower are started for one home."""

    def __init__(self, layout: Layout, socket_path: Path, environment: Mapping[str, str]) -> None:
        self._layout = layout
        self._socket = str(socket_path)
        self._url = f"unix://{quote(self._socket)}"
        self._environment = {
            **{name: value for name, value in environment.items() if name.upper() not in setting_files.URL},
            "BATCHLING_HOME": str(layout.home),
            "BATCHLING_REDIS_URL": self._url,
        }

    def redis(self, binary: str, words: Sequence[str] = ()) -> Recipe:
        """Return how Redis is started: durable, never evicting, on a unix socket only; `words` are further options."""
        argv = [binary, "--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700"]
        argv += [
            "--dir",
            str(self._layout.redis),
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
            "--save",
            "",
        ]
        argv += ["--maxmemory-policy", "noeviction", "--daemonize", "no", *words]
        # Once it runs, Redis shows a title instead of its command line.
        marks = ({"--unixsocket", self._socket}, {f"unixsocket:{self._socket}"})
        # Debian's redis-server is a link to redis-check-rdb.
        programs = (Path(binary).resolve().name.lower(), "redis-server", "valkey-server", "redis-check-rdb")
        recipe = self._recipe("redis", argv, self._url, *marks, programs=programs)
        return replace(recipe, environment={**MALLOC, **self._environment})

    def worker(self) -> Recipe:
        """Return how the worker is started: one node name per home, so that Flower recognizes a restarted worker."""
        digest = hashlib.sha256(str(self._layout.home).encode()).hexdigest()
        name = f"embedded-{digest[:8]}@{socket.gethostname()}"
        return self._celery("worker", name, *_WORKER_WORDS, "-n", name)

    def flower(self, url: str | None) -> Recipe:
        """Return how Flower is started: on loopback, at `url` if it had a URL before."""
        url = url or f"http://127.0.0.1:{_free_port()}"
        recipe = self._celery("flower", url, "--address=127.0.0.1", f"--port={url.rpartition(':')[2]}")
        seen = {name: value for name, value in self._environment.items() if _is_for_flower(name.upper())}
        return replace(recipe, environment=seen)

    def _celery(self, name: str, label: str, *words: str) -> Recipe:
        directory = f"--workdir={self._layout.run}"
        argv = [sys.executable, "-P", "-m", "celery", "-q", "-A", "batchling_worker", directory, name, *words]
        programs = (Path(sys.executable).resolve().name.lower(), "python")
        recipe = self._recipe(name, argv, label, {directory, name}, programs=programs)
        # On stdout Celery prints a sentence when it shuts down: not a line of the log.
        return replace(recipe, logs_to_stdout=False)

    def _recipe(
        self, name: str, argv: list[str], label: str, *marks: set[str], programs: tuple[str, ...]
    ) -> Recipe:
        return Recipe(
            name=name,
            argv=argv,
            environment=self._environment,
            directory=self._layout.run,
            log=self._layout.log(name),
            label=label,
            marks=[frozenset(mark) for mark in marks],
            programs=programs,
        )


def _is_for_flower(name: str) -> bool:
    """Return whether a variable may reach the dashboard: a list of what it needs, because any other may be a key."""
    return name in _FOR_FLOWER or name.startswith(_BEGIN_FOR_FLOWER)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
