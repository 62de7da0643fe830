"""Where a worker's calls go, and which key goes with them: registry and settings decide, never a lane."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import msgspec
import pytest
from pydantic import SecretStr

from batchling_client.wire import sealing
from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.deployment.provider_settings import checked
from batchling_client.wire.keys import Keys
from batchling_client.wire.records.row_and_result import LaneSpec
from batchling_client.wire.roots import Root, Roots
from batchling_client.wire.routes import ROUTES, Route, Routes
from batchling_worker.claim import Terms
from batchling_worker.engine import accounts as accounts_of_worker
from batchling_worker.engine.accounts import Accounts, account_key
from batchling_worker.errors import PermanentError
from batchling_worker.provider import Account
from batchling_worker.providers import Providers
from batchling_worker.settings import ProviderSettings
from batchling_worker.store import Store
from tests.sealed import sealed

from .wire import Wire, answer

ROOTS = Roots("x", b"0123456789abcdef", "the secret of accounts")
CALLERS = {"authorization": "Bearer sk-callers"}
WORKERS = SecretStr("sk-workers")
MANY = Route(
    provider="openai",
    hosts=("api.openai.com", "*.api.openai.com"),
    endpoints={"/v1/responses": "/v1/responses"},
    max_rows=1,
    max_bytes=1,
    max_row_bytes=1,
    windows=("24h",),
    own_keys=("*.api.openai.com",),
)


class Sealed(Store):
    """A store that holds the callers' credential, and no connection to anything."""

    def __init__(
        self, public: str, credential: dict[str, str] = CALLERS, root: Root | None = None, **use: str
    ) -> None:
        """Seal it for the lane that asks for it, but for what `use` says otherwise."""
        redis = connect("redis://127.0.0.1:1")
        terms = Terms(lease_ms=1, result_ttl_ms=1, max_attempts=1)
        super().__init__(redis=redis, keys=Keys("x"), terms=terms)
        self._public, self._headers, self._use = public, credential, use
        self._root = ROOTS.of_credential(credential) if root is None else root

    async def salt(self) -> bytes:
        return ROOTS.salt

    async def credential(self, spec: LaneSpec) -> bytes | None:
        use = {"namespace": "x", "provider": spec.provider, "host": spec.host, **self._use}
        return sealed(self._root, self._headers, self._public, **use)


Open = Callable[..., Accounts]


@pytest.fixture
async def with_settings() -> AsyncIterator[Open]:
    opened: list[Accounts] = []
    public, private = sealing.new_pair()

    def make(**said: ProviderSettings) -> Accounts:
        opened.append(Accounts(Sealed(public), checked(said), lambda: [private], silence_s=1.0))
        return opened[-1]

    yield make
    for one in opened:
        await one.close()


def lane(host: str, provider: str = "openai") -> LaneSpec:
    return LaneSpec(
        provider=provider,
        host=host,
        endpoint="/v1/responses",
        model="m",
        fingerprint=ROOTS.of_credential(CALLERS).fingerprint,
        completion_window="24h",
    )


async def place(accounts: Accounts, spec: LaneSpec, **said: ProviderSettings) -> tuple[str, str]:
    """Base URL and key of a lane's account."""
    facts = Providers(checked(said)).load(spec.provider).facts
    account = await accounts.open(spec, facts)
    return account.base_url, account.headers["authorization"]


def test_batches_of_two_hosts_or_keys_are_not_looked_at_with_one_account() -> None:
    one = lane("api.openai.com")
    told_apart = [
        msgspec.structs.replace(one, provider="groq"),
        msgspec.structs.replace(one, host="eu.api.openai.com"),
        msgspec.structs.replace(one, fingerprint="f" * 16),
        msgspec.structs.replace(one, headers=(("openai-organization", "org-2"),)),
    ]
    assert len({account_key(each) for each in (one, *told_apart)}) == 5
    together = [
        msgspec.structs.replace(one, model="n"),
        msgspec.structs.replace(one, endpoint="/v1/embeddings"),
        msgspec.structs.replace(one, completion_window="1h"),
    ]
    assert {account_key(each) for each in together} == {account_key(one)}


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "https://evil.example",
        "api.openai.com.evil.example",
        "api.openai.com:8443",
        "api.groq.com",
        "api.openai.com@evil.example",
        "api.openai.com/../evil.example",
        "",
    ],
)
async def test_a_lane_chooses_no_host_that_is_not_its_providers(with_settings: Open, host: str) -> None:
    plain = with_settings()
    assert await place(plain, lane(host)) == ("https://api.openai.com", "Bearer sk-callers")
    own = with_settings(openai=ProviderSettings(api_key=WORKERS))
    assert await place(own, lane(host)) == ("https://api.openai.com", "Bearer sk-workers")


@pytest.mark.parametrize("host", ["evil.example", "http://localhost:9999/v1", "api.openai.com", ""])
@pytest.mark.parametrize("key", [None, WORKERS])
async def test_an_endpoint_of_ones_own_is_where_the_workers_settings_say(
    with_settings: Open, host: str, key: SecretStr | None
) -> None:
    said = {"acme": ProviderSettings(base_url="http://localhost:8000", api_key=key)}
    place_of = await place(with_settings(**said), lane(host, "acme"), **said)
    assert place_of == ("http://localhost:8000/v1", "Bearer sk-workers" if key else "Bearer sk-callers")


async def test_a_workers_own_key_goes_to_no_host_that_anybody_can_have(
    with_settings: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts_of_worker, "routes_of", lambda said: Routes((MANY,)))
    plain, own = with_settings(), with_settings(openai=ProviderSettings(api_key=WORKERS))
    assert await place(plain, lane("eu.api.openai.com")) == (
        "https://eu.api.openai.com",
        "Bearer sk-callers",
    )
    with pytest.raises(PermanentError, match=r"BATCHLING_PROVIDERS__OPENAI__BASE_URL\.$") as refusal:
        await place(own, lane("eu.api.openai.com"))
    assert "sk-workers" not in str(refusal.value)
    assert await place(own, lane("api.openai.com")) == ("https://api.openai.com", "Bearer sk-workers")
    named = with_settings(openai=ProviderSettings(api_key=WORKERS, base_url="https://eu.api.openai.com"))
    assert await place(named, lane("api.openai.com")) == ("https://eu.api.openai.com", "Bearer sk-workers")
    with pytest.raises(PermanentError, match="ALL_HOSTS=true"):
        await place(named, lane("us.api.openai.com"))


async def test_a_base_url_moves_no_other_region_of_its_provider(with_settings: Open) -> None:
    gateway = ProviderSettings(base_url="https://gw.example/openai/v1")
    said = with_settings(openai=gateway)
    for host in ("api.openai.com", "https://gw.example/openai", "gw.example", "evil.example"):
        assert await place(said, lane(host)) == ("https://gw.example/openai", "Bearer sk-callers")
    assert await place(said, lane("eu.api.openai.com")) == ("https://eu.api.openai.com", "Bearer sk-callers")
    everywhere = with_settings(openai=gateway.model_copy(update={"all_hosts": True}))
    assert await place(everywhere, lane("eu.api.openai.com")) == (
        "https://gw.example/openai",
        "Bearer sk-callers",
    )


async def test_a_providers_regions_are_the_providers_own(
    with_settings: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    regional = replace(MANY, own_keys=())
    monkeypatch.setattr(accounts_of_worker, "routes_of", lambda said: Routes((regional,)))
    own = with_settings(openai=ProviderSettings(api_key=WORKERS))
    assert await place(own, lane("eu.api.openai.com")) == ("https://eu.api.openai.com", "Bearer sk-workers")
    assert await place(own, lane("eu.evil.example")) == ("https://api.openai.com", "Bearer sk-workers")


@pytest.mark.parametrize(
    "host", ["evil.example", "mine.openai.azure.com.evil.example", "*.openai.azure.com", ""]
)
@pytest.mark.parametrize("key", [None, WORKERS])
async def test_a_provider_without_a_host_of_its_own_is_called_at_none_that_is_not_its_customers(
    with_settings: Open, host: str, key: SecretStr | None
) -> None:
    said = ProviderSettings(api_key=key)
    with pytest.raises(PermanentError, match=r"BATCHLING_PROVIDERS__AZURE__BASE_URL to yours\.$"):
        await place(with_settings(azure=said), lane(host, "azure"))


async def test_a_workers_own_key_for_azure_goes_to_the_resource_in_its_settings_only(
    with_settings: Open,
) -> None:
    facts, spec = Providers({}).load("azure").facts, lane("theirs.openai.azure.com", "azure")
    with pytest.raises(PermanentError, match="not sent to theirs"):
        await with_settings(azure=ProviderSettings(api_key=WORKERS)).open(spec, facts)
    mine = ProviderSettings(api_key=WORKERS, base_url="https://mine.openai.azure.com")
    with pytest.raises(PermanentError, match="not sent to theirs"):
        await with_settings(azure=mine).open(spec, facts)
    account = await with_settings(azure=mine).open(lane("mine.openai.azure.com", "azure"), facts)
    assert account.base_url == "https://mine.openai.azure.com"
    assert account.headers["api-key"] == "sk-workers"
    theirs = await with_settings().open(spec, facts)
    assert theirs.base_url == "https://theirs.openai.azure.com"
    assert "sk-workers" not in theirs.headers.values()


@pytest.mark.parametrize(
    ("base_url", "host", "is_own"),
    [
        ("", "api.openai.com", True),
        ("", "eu.api.openai.com", True),
        ("https://api.openai.com/v1", "api.openai.com", True),
        ("https://gateway.example/openai", "api.openai.com", False),
        ("http://127.0.0.1:4000", "api.openai.com", False),
        ("https://api.groq.com", "api.openai.com", False),
        ("https://api.openai.com.example", "api.openai.com", False),
    ],
)
async def test_a_host_is_the_providers_own_only_if_the_registry_has_it(
    with_settings: Open, base_url: str, host: str, *, is_own: bool
) -> None:
    said = {"openai": ProviderSettings(base_url=base_url)} if base_url else {}
    account = await with_settings(**said).open(lane(host), Providers(checked(said)).load("openai").facts)
    assert account.own_host is is_own


async def test_a_query_field_of_a_whole_batch_is_not_sent_as_a_header(with_settings: Open) -> None:
    facts = Providers({}).load("azure").facts
    spec = msgspec.structs.replace(
        lane("mine.openai.azure.com", "azure"),
        headers=(("x-one", "1"),),
        query=(("api-version", "2024-10-21"),),
    )
    account = await with_settings().open(spec, facts)
    assert account.query == (("api-version", "2024-10-21"),)
    assert account.headers == CALLERS


async def test_a_provider_that_only_other_settings_know_is_refused(with_settings: Open) -> None:
    facts = Providers({}).load(ROUTES[0].provider).facts
    with pytest.raises(PermanentError, match="No provider is called 'acme'"):
        await with_settings().open(lane("x", "acme"), facts)


VERTEX = "europe-west4-aiplatform.googleapis.com"


async def opened(accounts: Accounts, staging: str, **said: ProviderSettings) -> Account:
    spec = lane(VERTEX, "vertex")
    if staging:
        spec = msgspec.structs.replace(spec, staging=staging, headers=(("x-goog-user-project", "p"),))
    return await accounts.open(spec, Providers(checked(said)).load("vertex").facts)


async def test_a_callers_place_for_files_is_not_sent_as_a_header(with_settings: Open) -> None:
    account = await opened(with_settings(), "gs://callers/run")
    assert account.staging == "gs://callers/run"
    assert account.base_url == f"https://{VERTEX}"
    assert account.headers == {"x-goog-user-project": "p", **CALLERS}
    said = ProviderSettings(staging="gs://workers/batchling/")
    assert (await opened(with_settings(vertex=said), "")).staging == "gs://workers/batchling"
    assert (await opened(with_settings(vertex=said), "gs://callers/run")).staging == "gs://callers/run"


@pytest.mark.parametrize(
    "said", [ProviderSettings(own_credential=True), ProviderSettings(api_key=WORKERS)], ids=["own", "key"]
)
async def test_a_workers_own_credential_reads_and_writes_below_its_own_place_only(
    with_settings: Open, said: ProviderSettings
) -> None:
    placed = said.model_copy(update={"staging": "gs://workers/batchling"})
    for staging in ("", "gs://workers/batchling", "gs://workers/batchling/team"):
        account = await opened(with_settings(vertex=placed), staging)
        assert account.staging == (staging or "gs://workers/batchling")
        assert CALLERS["authorization"] not in account.headers.values()
    for staging in ("gs://callers/run", "gs://workers", "gs://workers/batchling-of-others"):
        with pytest.raises(PermanentError, match="BATCHLING_PROVIDERS__VERTEX__STAGING"):
            await opened(with_settings(vertex=placed), staging)
        with pytest.raises(PermanentError, match="not set"):
            await opened(with_settings(vertex=said), staging)


async def test_a_workers_own_credential_is_an_account_of_its_own(with_settings: Open) -> None:
    callers = await opened(with_settings(), "")
    own = await opened(with_settings(vertex=ProviderSettings(own_credential=True)), "")
    assert (callers.own_credential, own.own_credential) == (False, True)
    assert own.headers == {}
    assert own.digest != callers.digest


async def test_a_provider_that_knows_no_credential_of_the_workers_says_so(with_settings: Open) -> None:
    said = {"openai": ProviderSettings(own_credential=True)}
    with pytest.raises(PermanentError, match=r"BATCHLING_PROVIDERS__OPENAI__OWN_CREDENTIAL"):
        await place(with_settings(**said), lane("api.openai.com"), **said)


NAMED = ROOTS.of_account("evals", "openai")
OTHER = ROOTS.of_account("others", "openai")
OF_CALLERS = ROOTS.of_credential(CALLERS)


async def opened_with(
    spec: LaneSpec, credential: dict[str, str], root: Root | None = None, **use: str
) -> Account:
    """The account that a worker opens for a lane where this credential is stored under it."""
    public, private = sealing.new_pair()
    accounts = Accounts(Sealed(public, credential, root, **use), {}, lambda: [private], silence_s=1.0)
    try:
        return await accounts.open(spec, Providers({}).load(spec.provider).facts)
    finally:
        await accounts.close()


async def test_an_account_with_a_name_stays_the_same_under_its_next_token() -> None:
    spec = msgspec.structs.replace(lane("api.openai.com"), fingerprint=NAMED.fingerprint)
    first, second = [
        await opened_with(spec, {"authorization": f"Bearer token-{n}"}, root=NAMED) for n in range(2)
    ]

    assert first.digest == second.digest
    assert second.headers == {"authorization": "Bearer token-1"}
    other = msgspec.structs.replace(spec, fingerprint=OTHER.fingerprint)
    assert (await opened_with(other, {"authorization": "Bearer token-1"}, root=OTHER)).digest != first.digest
    unnamed = {"authorization": "Bearer token-1"}
    of_key = msgspec.structs.replace(spec, fingerprint=ROOTS.of_credential(unnamed).fingerprint)
    assert (await opened_with(of_key, unnamed)).digest != first.digest


@pytest.mark.parametrize(
    ("lanes", "sealed_for"),
    [(NAMED, OTHER), (NAMED, OF_CALLERS), (OF_CALLERS, NAMED), (OF_CALLERS, OTHER)],
)
async def test_a_credential_that_was_sealed_for_another_account_is_refused(
    lanes: Root, sealed_for: Root
) -> None:
    spec = msgspec.structs.replace(lane("api.openai.com"), fingerprint=lanes.fingerprint)
    with pytest.raises(PermanentError, match="another one's"):
        await opened_with(spec, CALLERS, root=sealed_for)


@pytest.mark.parametrize(
    "use",
    [
        {"host": "eu.api.openai.com"},
        {"host": "http://127.0.0.1:1/v1"},
        {"host": ""},
        {"provider": "groq"},
        {"provider": ""},
        {"namespace": "another"},
    ],
    ids=str,
)
async def test_a_credential_is_opened_for_the_use_it_was_sealed_for_and_for_no_other(
    use: dict[str, str],
) -> None:
    """A writer of Redis can copy it to another place, and cannot have it sent anywhere else."""
    assert (await opened_with(lane("api.openai.com"), CALLERS)).headers == CALLERS
    with pytest.raises(PermanentError, match="another one's"):
        await opened_with(lane("api.openai.com"), CALLERS, None, **use)


async def test_a_cookie_of_a_provider_goes_along_with_no_other_call(with_settings: Open, wire: Wire) -> None:
    accounts = with_settings(openai=ProviderSettings(base_url=wire.url))
    wire.reply = lambda seen: answer(b"{}", headers="Set-Cookie: session=of-one-account; Path=/\r\n")
    for host in ("api.openai.com", "api.openai.com"):
        account = await accounts.open(lane(host), Providers({}).load("openai").facts)
        await account.http.get(account.base_url)
    assert [seen.header("cookie") for seen in wire.seen] == [None, None]


async def test_the_hosts_of_result_files_are_those_of_the_settings(with_settings: Open) -> None:
    hosts = ("files.example", "*.s3.example.com")
    accounts = with_settings(openai=ProviderSettings(download_hosts=hosts), groq=ProviderSettings())
    found = [
        (await accounts.open(lane(host, name), Providers({}).load(name).facts)).download_hosts
        for host, name in (("api.openai.com", "openai"), ("api.groq.com", "groq"))
    ]
    assert found == [hosts, ()]


@pytest.mark.parametrize("host", ["api.openai.com", "eu.api.openai.com"])
async def test_a_lane_that_somebody_wrote_into_redis_adds_nothing_to_a_callers_key(
    with_settings: Open, host: str
) -> None:
    spec = msgspec.structs.replace(
        lane(host),
        headers=(
            ("cookie", "session=1"),
            ("host", "attacker.example"),
            ("openai-organization", "org-1"),
            ("openai-project", "p\r\nx-evil: 1"),
            ("x-evil", "1"),
        ),
        query=(("evil", "query"),),
    )
    account = await with_settings().open(spec, Providers({}).load("openai").facts)

    assert account.headers == {**CALLERS, "openai-organization": "org-1"}
    assert account.query == ()
