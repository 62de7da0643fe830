"""Opens the way to a provider for a lane: base URL from registry and settings, credential unsealed, one HTTP client."""

from __future__ import annotations

import dataclasses
import hashlib
import http.cookiejar
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeAlias

import httpx

from batchling_client.wire import carried
from batchling_client.wire.deployment.provider_settings import routes_of
from batchling_client.wire.records.row_and_result import LaneSpec
from batchling_client.wire.routes import Route, Routes, plain_host
from batchling_client.wire.row_cipher import RowCipher

from ..errors import PermanentError
from ..provider import Account, ProviderFacts
from ..settings import ProviderSettings
from ..store import Store
from .credentials import Credentials
from .shares import Shares

CONNECT_S: Final = 10.0
TURN_S: Final = 30.0
"""How long a call waits for a connection: a create must be sent soon after it was armed, or not at all."""
MOST_CONNECTIONS: Final = 256
"""Of all servers together; each has its share."""

_REGISTRY: Final = Routes()
_OWN: Final = {"own": "the worker's own"}


AccountKey: TypeAlias = tuple[str, str, str, tuple[tuple[str, str], ...]]


def account_key(spec: LaneSpec) -> AccountKey:
    """Return what lanes must share to be polled with one account: every field of a lane that `Accounts.open` reads."""
    return spec.provider, spec.host, spec.fingerprint, spec.stored_headers


class Accounts:
    """Builds accounts for one event loop; a credential is unsealed for one step and dropped with it."""

    def __init__(
        self,
        store: Store,
        providers: dict[str, ProviderSettings],
        private_keys: Callable[[], Sequence[str]],
        *,
        silence_s: float,
        keeps_files: bool = False,
    ) -> None:
        self._providers = providers
        self._credentials = Credentials(store, private_keys)
        self._keeps_files = keeps_files
        self._routes = routes_of(providers)
        self._shares = Shares(TURN_S)
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(silence_s, connect=CONNECT_S, pool=TURN_S),
            limits=httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=20),
            follow_redirects=False,
            trust_env=True,
            cookies=no_cookies(),
        )

    async def open(self, spec: LaneSpec, facts: ProviderFacts) -> Account:
        """Return the account of a lane; raises `PermanentError` if it has no usable host or credential."""
        route = self._routes.named(spec.provider)
        if route is None:
            raise PermanentError(f"No provider is called {spec.provider!r}.")
        settings = self._providers.get(spec.provider, ProviderSettings())
        base_url = self._base_url(spec, facts, settings)
        # A lane comes out of Redis: only headers and fields that calls of its provider have go along with a key.
        headers = {
            name: said
            for name, said in spec.headers
            if name in route.batch_headers and not carried.refused(name) and carried.is_usable(said)
        }
        query = [(name, said) for name, said in spec.query if name in route.batch_query]
        has_own = settings.own_credential or settings.api_key is not None
        opened = await self._credentials.open(spec, for_headers=not has_own)
        opened.check_carried(spec.carried)
        if has_own:
            _check_allowed(opened.beside.keys(), spec.provider, settings)
            opened = dataclasses.replace(opened, headers=_own_headers(facts, route, settings))
            whose = await self._credentials.fingerprint(
                dataclasses.replace(opened, headers=opened.headers or _OWN)
            )
        else:
            # The token of a named account changes from hour to hour, the account does not.
            whose = spec.fingerprint
        # A traceback may print the values of names, and this frame raises: no name in it holds a key.
        brought = {*headers, *_marked(opened.beside, carried.HEADER)}
        staging = _staging(spec.staging, spec.provider, settings)
        return Account(
            base_url=base_url.rstrip("/"),
            headers={
                **headers,
                **_marked(opened.beside, carried.HEADER),
                **opened.headers,
                **_without(route.own_headers, settings.lane_headers if has_own else None, brought),
            },
            query=(*query, *_marked(opened.beside, carried.QUERY).items()),
            secrets=(*opened.beside.values(), *route.own_headers.values()),
            http=self._http,
            digest=_digest(base_url.rstrip("/"), whose),
            own_host=_is_own_host(spec.provider, base_url),
            turn=self._shares.of(_digest(base_url.rstrip("/"), whose), base_url.rstrip("/")),
            own_credential=settings.own_credential,
            staging=staging,
            staging_url=settings.staging_url.rstrip("/"),
            role_arn=settings.role_arn,
            download_hosts=settings.download_hosts,
            keeps_files=self._keeps_files,
            cipher=opened.cipher,
        )

    def _base_url(self, spec: LaneSpec, facts: ProviderFacts, settings: ProviderSettings) -> str:
        """Return where a lane's batches go: the settings' base URL, or the host that its caller named.

        The latter only if the registry has it as one of the provider's, and settings put nothing in its place.
        """
        route = self._routes.of_host(spec.host)
        registered = route is not None and route.provider == spec.provider and "*" not in spec.host
        if settings.base_url and not (
            registered and route is not None and not route.stands_in_for(spec.host)
        ):
            return settings.base_url
        if route is None or not registered:
            if "*" not in facts.base_url:
                return facts.base_url
            raise PermanentError(
                f"{spec.host!r} is not a host of {spec.provider}: set "
                f"BATCHLING_PROVIDERS__{spec.provider.upper()}__BASE_URL to yours."
            )
        if settings.api_key is not None and (settings.base_url or route.takes_own_keys(spec.host)):
            # Otherwise any caller could have the workers' own key sent to a host of the caller's.
            setting = f"BATCHLING_PROVIDERS__{spec.provider.upper()}"
            raise PermanentError(
                f"The workers' key for {spec.provider} is not sent to {spec.host}: name the host that the key is for "
                f"in {setting}__BASE_URL."
                + (
                    f" {setting}__ALL_HOSTS=true sends calls of every region there."
                    if settings.base_url
                    else ""
                )
            )
        return f"https://{plain_host(spec.host)}"

    async def cipher(self, spec: LaneSpec) -> RowCipher | None:
        """Return what encrypts the results of a lane, None in wire version 1; raises `PermanentError`."""
        return (await self._credentials.open(spec, for_headers=False)).cipher

    async def close(self) -> None:
        """Close the HTTP client."""
        await self._http.aclose()


def _is_own_host(provider: str, base_url: str) -> bool:
    """Return whether a base URL names one of the provider's hosts in the registry, whatever the settings add to it."""
    route = _REGISTRY.of_host(httpx.URL(base_url).host)
    return route is not None and route.provider == provider


def no_cookies() -> http.cookiejar.CookieJar:
    """Return a jar that keeps nothing: else a cookie of one account would be sent with the calls of another."""
    return http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=()))


def _marked(beside: Mapping[str, str], mark: str) -> dict[str, str]:
    return {name[1:]: said for name, said in beside.items() if name.startswith(mark)}


def _without(
    own_headers: Mapping[str, str], left_to_calls: Collection[str] | None, brought: Collection[str]
) -> dict[str, str]:
    """Return the headers of the settings without those that the call brought itself.

    With the workers' key, those that `left_to_calls` lacks stay as the workers say them.
    """
    return {
        name: said
        for name, said in own_headers.items()
        if name not in brought or not (left_to_calls is None or name in left_to_calls)
    }


def _check_allowed(names: Collection[str], provider: str, settings: ProviderSettings) -> None:
    """Raise `PermanentError` if callers' fields that the settings do not name would travel with the workers' key."""
    # Nor those of known gateways: some of them tell the gateway which host to send the key to.
    allowed = {f"{carried.HEADER}{name}" for name in (*settings.lane_headers, *settings.headers)}
    allowed |= {f"{carried.QUERY}{name}" for name in settings.lane_query}
    for name in names:
        if name not in allowed:
            setting = "LANE_QUERY" if name.startswith(carried.QUERY) else "LANE_HEADERS"
            raise PermanentError(
                f"The workers' key for {provider} is not sent along with the field {name[1:65]!r} of a call: name it "
                f"in BATCHLING_PROVIDERS__{provider.upper()}__{setting} of the workers."
            )


def _own_headers(facts: ProviderFacts, route: Route, settings: ProviderSettings) -> dict[str, str]:
    """Return the headers of the workers' key; none where the adapter finds the workers' credential itself.

    Raise `PermanentError` if it cannot.
    """
    if settings.api_key is not None and not settings.own_credential:
        return dict(route.credential(settings.api_key.get_secret_value()))
    if not facts.own_credential:
        raise PermanentError(
            f"Workers have no credential of their own for {facts.name}: take "
            f"BATCHLING_PROVIDERS__{facts.name.upper()}__OWN_CREDENTIAL out of their settings."
        )
    return {}


def _staging(asked: str, provider: str, settings: ProviderSettings) -> str:
    """Return where files are stored: where the caller asked; with the workers' credential, only below their own place.

    Otherwise any caller could make that credential read and write wherever it is allowed to.
    """
    own = settings.staging.rstrip("/")
    workers = settings.own_credential or settings.api_key is not None
    if asked and workers and not f"{asked}/".startswith(f"{own}/"):
        raise PermanentError(
            f"Workers that have a credential of their own for {provider} use it below "
            f"BATCHLING_PROVIDERS__{provider.upper()}__STAGING only, which is {own or 'not set'}, not in {asked}."
        )
    return asked or own


def _digest(base_url: str, whose: str) -> str:
    named = f"{base_url}\n{whose}"
    return hashlib.blake2b(named.encode(), digest_size=10, person=b"batchling-acct").hexdigest()
