"""The gate of a provider: checks credentials, gives request ids, words refusals, counts calls."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from ..batches.dialect import Dialect, Refusal
from ..world import faults
from ..world.faults import RefusingFault
from ..world.world import World
from .access_token import owner_of

REQUEST_ID: Final = "x-request-id"
"""The header in which handlers put an answer's id; it is renamed to the provider's own header."""
MOVED: Final = "{moved:(?:moved/)?}"
"""The part of a path that marks a redirected call."""

Handler = Callable[[web.Request, str], Awaitable[web.StreamResponse]]
Keyless = Callable[[web.Request], bool]

_BAD_KEY = "Incorrect API key provided. The sandbox accepts any key that does not start with 'invalid'."
_NO_KEY = "You did not provide an API key. Send it in the header {}, there as 'Bearer YOUR_KEY' if it is Authorization."


def _never(request: web.Request) -> bool:
    return False


class Gate:
    """Wraps handlers, which get the request and its owner: a fingerprint of the credential or of its account."""

    def __init__(self, world: World, dialect: Dialect) -> None:
        self._world = world
        self._dialect = dialect

    def route(self, method: str, path: str, handler: Handler, *, keyless: Keyless = _never) -> web.RouteDef:
        """Return the route of `path`, a path below the provider's root, with its handler behind the gate.

        Calls that `keyless` accepts need no key, such as signed URLs; their owner is ''.
        """
        traits = self._dialect.traits

        async def enter(request: web.Request) -> web.StreamResponse:
            self._world.ledger.call(traits.name, request.method, path)
            try:
                self._check_agent(request)
                await self._call_faults(request)
                self._check_query(request)
                return await handler(request, "" if keyless(request) else self._owner(request))
            except Refusal as refusal:
                await _drain(request)
                if refusal.moved:
                    return redirect(request, traits.name)
                return self._refuse(refusal)

        below = f"{traits.root}{path}".removeprefix("/")
        return web.route(method, f"/{traits.name}/{MOVED}{below}", enter)

    def bare_route(self, why: str) -> web.RouteDef:
        """Return the route that answers calls of the bare base URL with 404 and this reason."""

        async def enter(request: web.Request) -> web.StreamResponse:
            await _drain(request)
            return self._refuse(Refusal(404, why, code="unknown_url"))

        return web.route("*", f"/{self._dialect.traits.name}", enter)

    def unknown_route(self) -> web.RouteDef:
        """Return the route that answers calls that no other route takes."""

        async def enter(request: web.Request) -> web.StreamResponse:
            await _drain(request)
            return self._refuse(not_emulated(request))

        return web.route("*", f"/{self._dialect.traits.name}/{{tail:.*}}", enter)

    def _check_agent(self, request: web.Request) -> None:
        if request.headers.get("User-Agent", "").startswith(self._dialect.traits.unwelcome_agents):
            raise Refusal(403, "error code: 1010")

    def _check_query(self, request: web.Request) -> None:
        if any(name not in request.query for name in self._dialect.traits.required_query):
            raise Refusal(404, "Resource not found", code="404")

    async def _call_faults(self, request: web.Request) -> None:
        """Apply the faults that strike every call of a key, before the handler runs."""
        key = self._key(request)
        name, table = self._dialect.traits.name, self._world.faults
        silence = table.take(faults.SilenceKey, name, key=key)
        if silence is not None:
            await _drain(request)
            await asyncio.sleep(silence.seconds)
        refuse = table.take(faults.RefuseKey, name, key=key)
        if refuse is not None:
            raise refusal_of(refuse)

    def _owner(self, request: web.Request) -> str:
        key, traits = self._key(request), self._dialect.traits
        if not key:
            raise Refusal(traits.bad_key_status, _NO_KEY.format(" or ".join(traits.key_headers)))
        if key.startswith("invalid"):
            raise Refusal(traits.bad_key_status, _BAD_KEY, code="invalid_api_key")
        scopes = (request.headers.get(name, "") for name in self._dialect.traits.scoping_headers)
        return hashlib.sha256("\n".join((owner_of(key), *scopes)).encode()).hexdigest()[:16]

    def _key(self, request: web.Request) -> str:
        """Return the key of a call, or ''."""
        for name in self._dialect.traits.key_headers:
            said = request.headers.get(name, "")
            if said and name.lower() == "authorization":
                scheme, _, key = said.partition(" ")
                if scheme == "AWS4-HMAC-SHA256":
                    # The signature names its owner; whether it is valid is not checked here.
                    return key.strip().removeprefix("Credential=").partition("/")[0]
                return key.strip() if scheme.lower() == "bearer" else ""
            if said:
                return said.strip()
        return ""

    def _refuse(self, refusal: Refusal) -> web.Response:
        headers = {REQUEST_ID: new_request_id()}
        if refusal.retry_after is not None:
            headers["Retry-After"] = refusal.retry_after
        if self._dialect.traits.plain_errors and refusal.raw is None:
            return web.Response(status=refusal.status, text=refusal.message, headers=headers)
        body = self._dialect.error_body(refusal.status, refusal.code, refusal.message, refusal.param)
        encoded = (
            msgspec.json.encode({**body, **refusal.beside}) if refusal.raw is None else refusal.raw.encode()
        )
        return web.Response(
            status=refusal.status, body=encoded, headers=headers, content_type="application/json"
        )


def not_emulated(request: web.Request) -> Refusal:
    """Return the refusal of a call that the sandbox does not emulate."""
    message = f"The batchling sandbox does not emulate {request.method} {request.path}."
    return Refusal(404, message, code="unknown_url")


def new_request_id() -> str:
    """Return a fresh id for the `x-request-id` header."""
    return f"req_{secrets.token_hex(16)}"


def json_reply(body: object, status: int = 200) -> web.Response:
    """Return `body` as a JSON response with a request id."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        headers={REQUEST_ID: new_request_id()},
        content_type="application/json",
    )


def redirect(request: web.Request, provider: str) -> web.Response:
    """Return a 307 to the same call under another path of this host."""
    path = request.raw_path.replace(f"/{provider}", f"/{provider}/moved", 1)
    return web.Response(status=307, headers={"Location": path})


def refusal_of(fault: RefusingFault) -> Refusal:
    """Return the refusal that a fault describes."""
    return Refusal(
        fault.status, fault.message, code=fault.code, retry_after=fault.retry_after, raw=fault.body
    )


def hang_up(request: web.Request) -> web.Response:
    """Close the connection without an answer; the returned response is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def cut_short(request: web.Request, reply: web.Response) -> web.StreamResponse:
    """Send the head of a reply and half of its body, and close the connection."""
    body = reply.body if isinstance(reply.body, bytes) else b""
    half = web.StreamResponse(status=reply.status, headers={"Content-Type": "application/json"})
    half.content_length = len(body)
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return half


async def _drain(request: web.Request) -> None:
    # Read the body first: a client that still sends would see a reset connection instead of the refusal.
    try:
        async with asyncio.timeout(30):
            while await request.content.readany():
                pass
    except (TimeoutError, ConnectionError, web.RequestPayloadError):
        return
