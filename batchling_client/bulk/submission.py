"""Queues the requests of a file; no process has to wait, `batchling results` fetches the answers later."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from ..block.dry_run import Rehearsal, look_up, prepare
from ..block.parameters import account_of, roots_of
from ..errors import HEADER, BatchlingError, QueueFull, QueueUnreachable, WrongSettings
from ..intercept.interceptor import HttpReply
from ..operate.deployment import check_reachable, deployment_of, read_salt
from ..session.calls import Calls, Request
from ..session.credentials import Credentials
from ..session.enqueue import Enqueue
from ..session.lanes import Terms
from ..session.redis_outage import Outage
from ..settings import ClientSettings
from ..wire.deployment.connection import UNREACHABLE, connect
from ..wire.ids import new_mailbox, new_run_id
from ..wire.keys import Keys, RequestId, RunId
from ..wire.records import submitted_file
from ..wire.routes import Route, Routes, window_words
from ..wire.scripts import Scripts
from .request_file import Ask, BadLine, Check, RequestFile, path_of

BYTES_AT_ONCE: Final = 1024 * 1024
COMPLAINTS_SAID: Final = 10
_NUMBER: Final = re.compile(r"\d+")


class WrongFile(BatchlingError):
    """A file cannot be submitted as it is."""

    code = "wrong_file"
    sentence = "The file cannot be submitted as it is."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be submitted, and how."""

    path: Path
    provider: str
    endpoint: str | None
    name: str
    completion_window: str
    account: str | None = None
    model: str | None = None
    """The model of lines that name none."""
    dry_run: bool = False
    vertex_gcs_prefix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What became of a file: the run that holds its requests, and how many of them were answered already."""

    run_id: RunId
    n_requests: int
    n_answered: int
    n_late: int
    """Those that have joined batches that are being cancelled."""
    assumed_model: str | None = None
    """The model of lines that name none, where the person named none either."""

    def as_json(self) -> dict[str, object]:
        """Return what `batchling submit --json` prints."""
        return {
            "run_id": self.run_id,
            "n_requests": self.n_requests,
            "n_answered": self.n_answered,
            "n_late": self.n_late,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What would become of a file: a dry run queues nothing."""

    n_requests: int
    n_reused: int
    report: str

    def as_json(self) -> dict[str, object]:
        """Return what `batchling submit --dry-run --json` prints."""
        return {"n_requests": self.n_requests, "n_reused": self.n_reused, "report": self.report}


async def submit(wish: Wish, used: ClientSettings, environment: Mapping[str, str]) -> Submitted | Counted:
    """Look the whole file through, then queue it, as `batchify` would queue the same calls of a program.

    Repeated after an interruption, it attaches to requests that are queued, running or answered already. Raise
    `WrongFile`, `WrongSettings`, `QueueUnreachable` and `QueueFull`.
    """
    route = _route(wish, used.routes())
    # Several providers may share a base URL, and --provider names one of them.
    routes = Routes((route,))
    terms = Terms(
        run_id=new_run_id(),
        run_name=wish.name,
        completion_window=wish.completion_window,
        account=account_of(wish.account, used),
        vertex_gcs_prefix=wish.vertex_gcs_prefix,
        roots=roots_of(wish.account, used),
    )
    try:
        file = wish.path.open("rb")
    except OSError as error:
        raise WrongFile(f"{wish.path} cannot be read: {error.strerror}.") from None
    with file:
        if not file.seekable():
            raise WrongFile(f"{wish.path} is read twice, which this kind of file does not allow.")
        words = words_of(route, environment)
        lines = RequestFile(
            file=file,
            route=route,
            headers=headers_of(route, environment),
            endpoint=wish.endpoint,
            model=wish.model or route.lines.model or None,
            host=host_for(route, words),
            words=words,
        )
        checking = Calls(terms, routes)
        n_requests = _checked(wish.path, lines, checking)
        if wish.dry_run:
            return await _count(lines, Calls(terms, routes, checking.passed), used)
        deployment = await deployment_of(used)
        redis = connect(deployment.redis_url)
        try:
            await check_reachable(redis, deployment.redis_url)
            keys = Keys(deployment.namespace)
            await read_salt(terms.roots, redis, keys, deployment.redis_url)
            queueing = _Queueing(
                redis,
                keys,
                Credentials(redis, keys, deployment.seal_public_key, has_hints=deployment.key_hints),
                # The file is read twice: warn during one of the two passes only.
                Calls(terms, routes, checking.passed),
            )
            done = await queueing.queue(wish.path, lines, n_requests)
            return replace(done, assumed_model=_assumed(wish, lines))
        finally:
            with contextlib.suppress(*UNREACHABLE):
                await redis.aclose()


async def _count(lines: RequestFile, calls: Calls, used: ClientSettings) -> Counted:
    rehearsal = Rehearsal()
    await prepare(rehearsal, calls.terms.roots, used)
    for line in lines.lines():
        request = calls.read(line.call) if isinstance(line, Ask) else None
        if isinstance(request, Request):
            rehearsal.count(request)
    await look_up(rehearsal, used)
    return Counted(n_requests=rehearsal.n_requests, n_reused=rehearsal.n_reused, report=rehearsal.report())


def _assumed(wish: Wish, lines: RequestFile) -> str | None:
    return lines.model if lines.unnamed and wish.model is None else None


class _Queueing:
    """Sends the requests of one file; nobody in this process waits for their answers."""

    def __init__(self, redis: Redis, keys: Keys, credentials: Credentials, calls: Calls) -> None:
        self._scripts = Scripts(redis, keys)
        self._outage = Outage(redis)
        self._calls = calls
        self._callers = _Nobody()
        self._enqueue = Enqueue(self._scripts, new_mailbox(), credentials, self._callers, self._outage)
        self._n_bytes = 0

    async def queue(self, path: Path, lines: RequestFile, n_requests: int) -> Submitted:
        """Queue every line; only a few lines are in memory at a time."""
        chunk: list[submitted_file.Asked] = []
        n_chunks = 0
        for line in lines.lines():
            request = self._calls.read(line.call) if isinstance(line, Ask) else None
            if not isinstance(line, Ask) or not isinstance(request, Request):
                raise _changed(path)
            await self._send(request)
            chunk.append(submitted_file.Asked(line.custom_id, request.request_id))
            if len(chunk) == submitted_file.CHUNK_ROWS:
                await self._remember(n_chunks, chunk, n_requests)
                chunk, n_chunks = [], n_chunks + 1
        await self._flush()
        if chunk:
            await self._remember(n_chunks, chunk, n_requests)
        if n_chunks * submitted_file.CHUNK_ROWS + len(chunk) != n_requests:
            raise _changed(path)
        return Submitted(
            run_id=self._calls.terms.run_id,
            n_requests=n_requests,
            n_answered=self._callers.n_answered,
            n_late=len(self._enqueue.late),
        )

    async def _send(self, request: Request) -> None:
        self._enqueue.add(request)
        self._n_bytes += len(request.packed)
        if self._n_bytes >= BYTES_AT_ONCE:
            await self._flush()

    async def _flush(self) -> None:
        self._n_bytes = 0
        await self._enqueue.send_waiting()
        if self._callers.refusal is not None:
            raise self._callers.refusal

    async def _remember(self, number: int, chunk: Sequence[submitted_file.Asked], n_requests: int) -> None:
        await self._flush()
        while True:
            try:
                await self._scripts.remember(
                    run_id=self._calls.terms.run_id,
                    number=number,
                    packed=submitted_file.pack(chunk),
                    n_requests=n_requests,
                )
                return
            except UNREACHABLE as error:
                await self._outage.over(error)
            except OutOfMemoryError:
                raise QueueFull from None


class _Nobody:
    """In the place of those who ask: wants every request, and waits for none."""

    def __init__(self) -> None:
        self.n_answered = 0
        self.refusal: QueueFull | QueueUnreachable | None = None

    @property
    def last_mail(self) -> bytes:
        return b"0-0"

    @property
    def failed_early(self) -> frozenset[RequestId]:
        return frozenset()

    def expects(self, request_id: RequestId) -> bool:
        return True

    def placed(self, request_ids: Iterable[RequestId]) -> None:
        """Do nothing: Redis holds these requests."""

    def announce(self, request_ids: Iterable[RequestId]) -> None:
        self.n_answered += len(list(request_ids))

    def answer(self, request_id: RequestId, reply: HttpReply) -> None:
        sentence = msgspec.json.decode(reply.body)["error"]["message"]
        kind = QueueFull if reply.headers.get(HEADER) == QueueFull.code else QueueUnreachable
        self.refusal = kind(sentence)


def _route(wish: Wish, routes: Routes) -> Route:
    route = routes.named(wish.provider)
    if route is None:
        known = ", ".join(sorted(one.provider for one in routes.routes))
        raise WrongSettings(f"There is no provider {wish.provider!r}: use one of {known}.")
    if wish.endpoint is not None and path_of(route, wish.endpoint) is None:
        endpoints = sorted(set(route.endpoints.values()))
        raise WrongSettings(
            f"{wish.provider} takes no batches of {wish.endpoint!r}: use one of {', '.join(endpoints)}."
        )
    if wish.completion_window not in route.windows:
        raise WrongSettings(
            f"{wish.provider} takes no completion window of {wish.completion_window!r}: "
            f"use one of {window_words(route.windows)}."
        )
    return route


def host_for(route: Route, words: Mapping[str, str]) -> str:
    """Return the host of the calls: that of the settings, or the one of the account or region in these words."""
    host = route.site or next((host for host in route.hosts if "*" not in host and not route.lines.host), "")
    return host or route.lines.host.format_map(words).removeprefix("global-")


def words_of(route: Route, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the provider's SDK reads from its variables for hosts and paths; raise `WrongSettings`."""
    words = {}
    for word, variable in route.lines.variables.items():
        value = environment.get(variable, "").strip() or route.lines.words.get(word, "")
        words[word] = urlsplit(value).netloc if "://" in value else value
        is_in_a_path = any(f"{{{word}}}" in path for path in route.lines.paths.values())
        if not value and (is_in_a_path or not route.site):
            base = f"BATCHLING_PROVIDERS__{route.provider.upper()}__BASE_URL"
            or_base = "" if is_in_a_path else f", or {base}"
            raise WrongSettings(f"Calls to {route.provider} name a {word}: set {variable}{or_base}.")
    return words


def headers_of(route: Route, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that the provider's SDK builds from the environment; raise `WrongSettings` without a key."""
    headers = {}
    for name, variable in route.variables.items():
        value = environment.get(variable, "").strip()
        if value:
            headers[name] = f"Bearer {value}" if name == "authorization" else value
    if headers.keys().isdisjoint(route.credential_headers):
        variable = route.variables[route.api_key_header]
        raise WrongSettings(
            f"There is no API key for {route.provider}: set {variable}, as for the provider's SDK."
        )
    return headers


def _checked(path: Path, lines: RequestFile, calls: Calls) -> int:
    """Return how many requests the file holds; raise `WrongFile`, which names each mistake once."""
    check = Check(calls)
    mistakes: dict[str, BadLine] = {}
    counts: Counter[str] = Counter()
    for line in lines.lines():
        bad = check.complaint(line)
        if bad is not None:
            kind = _NUMBER.sub("0", bad.why)
            counts[kind] += 1
            if len(mistakes) < COMPLAINTS_SAID:
                mistakes.setdefault(kind, bad)
    if counts:
        named = [
            f"{str(bad).rstrip('.')}{f' (so in {counts[kind]:,} lines)' if counts[kind] > 1 else ''}"
            for kind, bad in mistakes.items()
        ]
        n_more = sum(counts[kind] for kind in counts.keys() - mistakes.keys())
        more = f"; and {n_more:,} lines with other mistakes" if n_more else ""
        raise WrongFile(
            f"Nothing of {path} was queued, as lines of it cannot go into a batch: {'; '.join(named)}{more}."
        )
    if not check.n_requests:
        raise WrongFile(f"{path} holds no request.")
    return check.n_requests


def _changed(path: Path) -> WrongFile:
    return WrongFile(f"{path} changed while it was read: submit it again, nothing is paid for twice.")
