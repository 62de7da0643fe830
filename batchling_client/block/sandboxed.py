"""A process of a rehearsal: calls that are not batched go to the sandbox or are refused, never to a real provider."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from .. import settings
from ..errors import RequestRefused, WrongSettings
from ..intercept import gate, scope, switch
from ..intercept.interceptor import HttpCall, HttpReply
from ..intercept.open_block import running_loop
from ..intercept.passed import costs
from ..session import replies
from ..wire.deployment.rehearsing import NO_ACCOUNT, SANDBOX, SERVED, hosts
from ..wire.no_batches import host_pattern
from ..wire.routes import ROUTES, Route, Routes, plain_host

PATIENCE_S: Final = 600.0
_HOP_BY_HOP: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "host",
        "proxy-authorization",
        "te",
        "transfer-encoding",
    }
)
_UNKNOWN: Final = (
    "This is a rehearsal, and the sandbox does not emulate {}: the call was not sent. Register the host "
    "with BATCHLING_PROVIDERS__<NAME>__BASE_URL, or leave the call out of the rehearsal."
)
_NOT_SERVED: Final = (
    "This is a rehearsal with {} only: the call to {} was not sent. Add --provider {} to `batchling sandbox`."
)
_UNREAD: Final = (
    "This is a rehearsal, and the body of a call to {} is a stream that can be read only once: the call was not sent. "
    "Give the client the sandbox's base URL, or pass the body as bytes."
)
_REFUSED: Final = (
    "This is a rehearsal, and a call to {} goes over a library that batchling cannot redirect: it was not sent. Point "
    "the client at the sandbox ({}) by its own options, or use an SDK that sends over httpx, requests or aiohttp."
)
_BY_HAND: Final = (
    "BATCHLING_SANDBOX holds no URL of a sandbox, so the call was not sent: unset it, and rehearse with "
    "`batchling sandbox -- CMD`, which sets it."
)
_GONE: Final = "The sandbox at {} does not answer ({}): start the rehearsal again."


def heed(environment: Mapping[str, str] = os.environ) -> None:
    """Close the gate of this process if its environment says that it takes part in a rehearsal."""
    url = environment.get(SANDBOX, "")
    # A worker of the rehearsal knows no other host than the sandbox.
    if not url or "batchling_worker" in sys.modules or gate.of_process() is not None:
        return
    try:
        known = settings.load().routes()
    except WrongSettings:
        # The block that the program opens raises this error with its sentence.
        known = Routes()
    served = [name for name in environment.get(SERVED, "").split(",") if name]
    closed = SandboxGate(url, known, served)
    gate.close(closed)
    switch.install()
    # An audit hook cannot be removed; this hook acts only while the gate is closed.
    sys.addaudithook(closed.check_connection)


def over() -> None:
    """Open the gate of this process again."""
    if gate.of_process() is not None:
        gate.open_again()
        switch.uninstall()


def routes(known: Routes) -> Routes:
    """Return the routes with the sandbox among each provider's hosts, where this is a rehearsal."""
    url = os.environ.get(SANDBOX, "")
    if not url:
        return known
    site, ours = _site(url), {route.provider for route in ROUTES}
    return Routes(tuple(_at(site, one) if one.provider in ours else one for one in known.routes))


def _at(site: str, route: Route) -> Route:
    own = f"{site}/{route.provider}"
    hosts = route.hosts if own in route.hosts else (*route.hosts, own)
    # Settings that point at the sandbox do not make it a gateway: a call is read as for its provider.
    return replace(route, hosts=hosts, rehearsed=route.site == own)


class SandboxGate:
    """Answers what would reach a real provider."""

    def __init__(self, url: str, known: Routes, served: list[str]) -> None:
        self._url = url.rstrip("/")
        self._site = _site(url)
        self._routes = known
        self._served = served
        self._hosts = re.compile("|".join(host_pattern(one).pattern for one in hosts(known.routes)))

    def check_connection(self, event: str, args: tuple[object, ...]) -> None:
        """Raise for a connection or call of `urllib` to a provider that no HTTP library of ours has seen."""
        if not event.startswith(("socket.", "urllib.")) or gate.of_process() is not self:
            return
        if event in ("socket.getaddrinfo", "socket.gethostbyname"):
            self._check_host(args[0])
        elif event == "socket.connect" and isinstance(args[1], tuple):
            self._check_host(args[1][0])
        elif event == "urllib.Request":
            parts = urlsplit(str(args[0]))
            if self.wants(str(args[3]), parts.netloc.lower(), parts.path):
                raise self.refusal(parts.hostname or "")

    def _check_host(self, host: object) -> None:
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
        if isinstance(name, str) and self.guards(name):
            raise self.refusal(name)

    def wants(self, method: str, host: str, path: str) -> bool:
        if plain_host(host) == self._site:
            return False
        return self._routes.of_call(host, path) is not None or costs(method, path)

    def guards(self, host: str) -> bool:
        return bool(self._hosts.fullmatch(host.rstrip(".").lower()))

    def refusal(self, host: str) -> Exception:
        return RequestRefused(_REFUSED.format(host, self._url))

    async def answer(self, call: HttpCall) -> HttpReply:
        if running_loop() is None:
            return self.answer_blocking(call)
        return await asyncio.to_thread(self.answer_blocking, call)

    def answer_blocking(self, call: HttpCall) -> HttpReply:
        read = self._read(call)
        if isinstance(read, HttpReply):
            return read
        # This call to the sandbox is made by batchling: no block may catch it.
        with scope.outside():
            return self._forwarded(read, call)

    def refused(self, call: HttpCall) -> HttpReply | None:
        read = self._read(call)
        return read if isinstance(read, HttpReply) else None

    def _read(self, call: HttpCall) -> Route | HttpReply:
        """Return the route of a call that the sandbox answers, else the refusal."""
        if "://" not in self._url:
            return _refused(_BY_HAND)
        found = self._routes.of_call(call.host, call.path)
        if found is None:
            return _refused(_UNKNOWN.format(call.host))
        route = found[0]
        if self._served and route.provider not in self._served:
            return _refused(_NOT_SERVED.format(", ".join(self._served), call.host, route.provider))
        if call.body_unread:
            return _refused(_UNREAD.format(call.host))
        return route

    def _forwarded(self, route: Route, call: HttpCall) -> HttpReply:
        there = urlsplit(self._url)
        connection = http.client.HTTPConnection(there.hostname or "", there.port, timeout=PATIENCE_S)
        try:
            connection.request(
                call.method, _target(route, call), body=call.body, headers=_headers(route, call.headers)
            )
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return HttpReply(status=answer.status, headers=headers, body=answer.read())
        except (OSError, http.client.HTTPException) as error:
            return _refused(_GONE.format(self._url, error), status=503)
        finally:
            connection.close()


def _site(url: str) -> str:
    return plain_host(urlsplit(url).netloc.lower())


def _target(route: Route, call: HttpCall) -> str:
    """Return the path and query of the call at the sandbox."""
    parts = urlsplit(call.url)
    path = parts.path
    for site in (*route.hosts, route.site):
        host, slash, prefix = site.partition("/")
        if slash and host == plain_host(call.host) and path.startswith(f"/{prefix}/"):
            path = path[len(prefix) + 1 :]
            break
    if not any(route.provider == one.provider for one in ROUTES):
        # An endpoint of the user's own, whose base URL ends in a version: OpenAI's emulator plays it.
        path = f"/openai/v1{path}"
    else:
        path = f"/{route.provider}{path}"
    query = [
        (name, NO_ACCOUNT if name in route.query_credentials else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return f"{path}?{urlencode(query)}" if query else path


def _headers(route: Route, headers: Mapping[str, str]) -> dict[str, str]:
    sent = {name: value for name, value in headers.items() if name not in _HOP_BY_HOP}
    for name in route.credential_headers:
        if name in sent:
            sent[name] = f"Bearer {NO_ACCOUNT}" if name == "authorization" else NO_ACCOUNT
    return sent


def _refused(sentence: str, *, status: int = 403) -> HttpReply:
    return replies.refusal(sentence, code="rehearsal", status=status)
