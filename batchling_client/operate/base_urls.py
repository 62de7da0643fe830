"""Tries base URLs of the settings and providers in use for the doctor: one call each, free and bounded in time."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from ..intercept import gate
from ..intercept.gate import Gate
from ..intercept.interceptor import HttpCall
from ..settings import ClientSettings
from ..wire.deployment.finding import Finding, Health
from ..wire.deployment.installing import VERSION
from ..wire.deployment.provider_settings import site_of
from ..wire.deployment.redis_health import is_loopback
from ..wire.deployment.rehearsing import NO_ACCOUNT
from ..wire.route import OWN_PORTS
from ..wire.routes import Route

PATIENCE_S: Final = 5.0
"""How long a server may stay silent; two calls to one take no longer than twice that."""
MOST_HOSTS: Final = 20
_READ: Final = 4096
"""The number of bytes of an answer that show what it is."""
_REFUSED: Final = frozenset({401, 403})
_ABSENT: Final = frozenset({404, 405, 410})
_ERRORS: Final = (OSError, http.client.HTTPException, ValueError)


class _Answer(NamedTuple):
    status: int
    body: bytes
    target: str
    """Where a redirect leads."""


class _Key(NamedTuple):
    """Headers that hold a key, and the variable that it was read from; neither where there is none."""

    headers: Mapping[str, str]
    variable: str


async def tried(
    used: ClientSettings, environment: Mapping[str, str], in_use: Collection[tuple[str, str]] = ()
) -> list[Finding]:
    """Ask each server that the settings name for its list of batches, with the key of the environment if it has one.

    `in_use` = providers and hosts of lanes: those without a base URL in the settings are asked, too.
    """
    routes = used.routes()
    named = [(base_url, routes.named(name)) for name, base_url in sorted(used.base_urls.items())]
    trials = [Trial(route, base_url, environment) for base_url, route in named if route is not None]
    trials += [
        Trial(route, f"https://{host}", environment, is_own=True)
        for route, host in hosts_in_use(used, in_use)[:MOST_HOSTS]
    ]
    found = list(await asyncio.gather(*(trial.finding() for trial in trials)))
    return found + [
        Finding(
            check=f"provider {route.provider}",
            health=Health.NOTE,
            says=f"keys, prompts and answers cross the network unencrypted to {base_url}",
            mend=f"Use https:// in BATCHLING_PROVIDERS__{route.provider.upper()}__BASE_URL.",
        )
        for base_url, route in named
        if route is not None and _is_in_clear(base_url)
    ]


def _is_in_clear(base_url: str) -> bool:
    parts = urlsplit(base_url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def hosts_in_use(used: ClientSettings, in_use: Collection[tuple[str, str]]) -> list[tuple[Route, str]]:
    """Return the providers' own hosts among those of lanes: a record in Redis must not send a key to another host.

    A host with a name that a customer chooses is left out, as it may be another customer's.
    """
    routes = used.routes()
    found: list[tuple[Route, str]] = []
    for provider, host in sorted(set(in_use)):
        route = routes.named(provider)
        if route is None or provider in used.base_urls or not route.free_call.path:
            continue
        if host in route.hosts and "*" not in host:
            found.append((route, host))
    return found


class Trial:
    """One base URL as the doctor tries it; `is_own` = it is the provider's own host, which no setting names."""

    def __init__(
        self, route: Route, base_url: str, environment: Mapping[str, str], *, is_own: bool = False
    ) -> None:
        self._is_own = is_own
        self._route = route
        self._base_url = base_url
        self._setting = f"BATCHLING_PROVIDERS__{route.provider.upper()}"
        self._call = route.free_call
        self._key = self._key_in(environment) if self._call.path else _Key({}, "")

    async def finding(self) -> Finding:
        """Return what the server answered, and how to fix it."""
        if not all(value.isascii() and value.isprintable() for value in self._key.headers.values()):
            return self._failure(
                f"the key in {self._key.variable} holds characters that no header takes",
                f"Correct {self._key.variable}.",
            )
        closed = gate.of_process()
        if closed is not None and self._wanted_by(closed):
            return await self._rehearsed(closed)
        answer = await _in_time(lambda: _asked(self._url(self._call.path), self._headers()))
        if isinstance(answer, str):
            return self._failure(
                f"{self._base_url} cannot be reached: {answer}",
                "See whether a firewall or a proxy stands between: workers need to reach it."
                if self._is_own
                else f"Start the server, or correct {self._setting}__BASE_URL.",
            )
        if answer.status in _ABSENT and self._call.path.partition("?")[0].endswith("/batches"):
            return await self._without_list(answer)
        return self._judged(answer)

    async def _rehearsed(self, closed: Gate) -> Finding:
        url, parts = self._url(self._call.path), urlsplit(self._base_url)
        call = HttpCall(
            method="GET",
            url=url,
            host=site_of(f"{parts.scheme}://{parts.netloc}")[0],
            path=urlsplit(url).path,
            headers={**self._headers(), "authorization": f"Bearer {NO_ACCOUNT}"},
            body=b"",
        )

        def ask() -> _Answer | str:
            reply = closed.answer_blocking(call)
            return _Answer(reply.status, reply.body[:_READ], "")

        answer = await _in_time(ask)
        if isinstance(answer, str) or answer.status in _REFUSED:
            return self._found(
                Health.NOTE,
                "not tried: this is a rehearsal, and the sandbox does not answer in its place",
                f"Add --provider {self._route.provider} to `batchling sandbox`, or start the rehearsal again.",
            )
        return self._found(
            Health.OK, f"calls below {self._base_url} go to the sandbox, which answers: this is a rehearsal"
        )

    def _judged(self, answer: _Answer) -> Finding:
        asked = f"GET {self._url(self._call.path)}"
        wrong_path = f"Correct the path in {self._setting}__BASE_URL: {asked} was asked."
        if 300 <= answer.status < 400:
            return self._redirected(answer)
        if answer.status in _REFUSED or _names_key(answer):
            return self._refused(answer)
        if self._is_own and answer.status < 300:
            return self._found(Health.OK, f"{asked} is answered, with the key in {self._key.variable}")
        if not self._call.path:
            return self._found(Health.OK, f"calls below {self._base_url} go into its batches; it answers")
        if answer.status in _ABSENT:
            return self._failure(f"{self._base_url} has no list of batches ({answer.status})", wrong_path)
        if answer.status >= 500:
            return self._found(
                Health.NOTE,
                f"{self._base_url} answers with an error ({answer.status})",
                f"Try again; if it stays so, look at the server, or correct {self._setting}__BASE_URL.",
            )
        if answer.status < 300 and answer.body.lstrip()[:1] not in (b"{", b"["):
            html = answer.body.lstrip()[:1] == b"<"
            return self._failure(
                f"{self._base_url} answers with {'an HTML page' if html else 'something other than JSON'}",
                wrong_path,
            )
        status = "" if answer.status < 300 else f" ({answer.status})"
        return self._found(Health.OK, f"calls below {self._base_url} go into its batches; it answers{status}")

    def _refused(self, answer: _Answer) -> Finding:
        if not self._key.headers and self._is_own:
            return self._found(
                Health.OK,
                f"GET {self._url(self._call.path)} is answered ({answer.status}); no key to try it with is set here",
            )
        if not self._key.headers:
            return self._found(
                Health.OK,
                f"calls below {self._base_url} go into its batches; it answers, and was not given a key "
                f"({answer.status})",
            )
        return self._failure(
            f"{self._base_url} refuses the key in {self._key.variable} ({answer.status})",
            f"Correct {self._key.variable}, or {self._setting}__BASE_URL if the key is for another server; "
            f"give headers that a gateway needs in {self._setting}__HEADERS.",
        )

    def _redirected(self, answer: _Answer) -> Finding:
        here, there = urlsplit(self._base_url), _origin(answer.target, self._url(self._call.path))
        if there == _origin(self._base_url, ""):
            return self._found(
                Health.NOTE,
                f"{self._base_url} redirects the call to another path of its host ({answer.status})",
                f"Set {self._setting}__BASE_URL to the path that the server uses.",
            )
        https = "" if here.scheme == "https" else ": the server may want https://"
        return self._failure(
            f"{self._base_url} redirects the call to another host, port or scheme ({answer.status}); keys are not "
            f"sent there",
            f"Correct {self._setting}__BASE_URL{https}.",
        )

    async def _without_list(self, answer: _Answer) -> Finding:
        """Tell a wrong path from a server that has models and no list of batches."""
        path = self._call.path.partition("?")[0].removesuffix("batches") + "models"
        models = await _in_time(lambda: _asked(self._url(path), self._headers()))
        there = (
            not isinstance(models, str) and models.status < 300 and models.body.lstrip()[:1] in (b"{", b"[")
        )
        if not there:
            return self._judged(answer)
        return self._found(
            Health.NOTE,
            f"{self._base_url} has models and no list of batches ({answer.status})",
            f"See whether the server has OpenAI's /files and /batches; if not, unset {self._setting}__BASE_URL: its "
            f"calls cannot be batched.",
        )

    def _key_in(self, environment: Mapping[str, str]) -> _Key:
        route = self._route
        variables = {route.api_key_header: route.variables.get(route.api_key_header, "")}
        variables |= {name: route.variables.get(name, "") for name in route.credential_headers}
        own = f"{self._setting}__API_KEY"
        for header, variable in ((route.api_key_header, own), *variables.items()):
            key = environment.get(variable, "").strip()
            # A secret that signs calls is never sent itself.
            if key and not (route.signed and header != "authorization"):
                return _Key({header: f"Bearer {key}" if header == "authorization" else key}, variable)
        return _Key({}, "")

    def _wanted_by(self, closed: Gate) -> bool:
        host, prefix = site_of(self._base_url)
        return closed.wants("GET", host, prefix + self._call.path.partition("?")[0])

    def _headers(self) -> dict[str, str]:
        agent = {"user-agent": f"batchling/{VERSION}", "accept": "application/json"}
        return {**agent, **self._call.headers, **self._key.headers, **self._route.own_headers}

    def _url(self, path: str) -> str:
        return quote(f"{self._base_url}{path}", safe="/:?&=%[]@!$'()*+,;~")

    def _failure(self, says: str, mend: str) -> Finding:
        return self._found(Health.FAILURE, says, mend)

    def _found(self, health: Health, says: str, mend: str = "") -> Finding:
        return Finding(check=f"provider {self._route.provider}", health=health, says=says, mend=mend)


def _names_key(answer: _Answer) -> bool:
    """Return whether a 400 is about the key, as Google's is."""
    return answer.status == 400 and b"api key" in answer.body.lower().replace(b"_", b" ")


def _origin(url: str, base: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of a URL that came from outside; a scheme of '' where it cannot be read."""
    try:
        parts = urlsplit(urljoin(base, url))
        port = parts.port
    except ValueError:
        return "", None, None
    return parts.scheme, parts.hostname, port or OWN_PORTS.get(parts.scheme)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect as an answer: the call carries a key."""

    def redirect_request(self, *_: object) -> None:
        return None


def _asked(url: str, headers: Mapping[str, str]) -> _Answer | str:
    """Return the beginning of the answer, or why there is no answer, without any part of the call."""
    # The URL is http or https by the rules of the setting.
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=PATIENCE_S) as response:
            return _Answer(response.status, response.read(_READ), "")
    except urllib.error.HTTPError as error:
        with contextlib.closing(error), contextlib.suppress(*_ERRORS):
            return _Answer(error.code, error.read(_READ), error.headers.get("location") or "")
        return _Answer(error.code, b"", "")
    except _ERRORS as error:
        return _words(error)


def _words(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "its certificate is not trusted here"
    if isinstance(reason, ssl.SSLError):
        return "it does not speak TLS as it should"
    if isinstance(reason, TimeoutError):
        return f"no answer within {PATIENCE_S:.0f} s"
    if isinstance(reason, socket.gaierror):
        return "the name of its host cannot be resolved"
    if isinstance(reason, OSError):
        return reason.strerror or type(reason).__name__
    return f"its answer is not HTTP, or its URL is none ({type(reason).__name__})"


async def _in_time(ask: Callable[[], _Answer | str]) -> _Answer | str:
    """Ask in a thread that is left behind when the time is over: name servers and slow bodies know no timeout."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[_Answer | str] = loop.create_future()

    def deliver(answer: _Answer | str) -> None:
        if not answered.done():
            answered.set_result(answer)

    def work() -> None:
        answer = ask()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver, answer)

    threading.Thread(target=work, name="batchling-doctor", daemon=True).start()
    try:
        return await asyncio.wait_for(answered, PATIENCE_S)
    except TimeoutError:
        return f"no answer within {PATIENCE_S:.0f} s"
