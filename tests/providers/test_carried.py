"""What gateways need goes along with every call of a worker, and nothing that would change where a key goes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from pydantic import SecretStr

from batchling_client.wire import carried, sealing
from batchling_client.wire.deployment.provider_settings import checked
from batchling_client.wire.records.row_and_result import LaneSpec
from batchling_client.wire.roots import Root
from batchling_worker import providers
from batchling_worker.engine.accounts import Accounts
from batchling_worker.errors import PermanentError
from batchling_worker.provider import Account, Ending, SpentFiles
from batchling_worker.providers import Providers
from batchling_worker.settings import ProviderSettings

from .desk import Desk
from .test_accounts import ROOTS, Sealed
from .wire import Wire, answer

KEY = {"authorization": "Bearer sk-callers"}
GATEWAY_KEY = "pk-CANARY-0123456789"
TENANT = {"+x-tenant": "a"}

Open = Callable[..., Accounts]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    made: list[Accounts] = []
    public, private = sealing.new_pair()

    def make(sealed: dict[str, str], root: Root | None = None, **said: ProviderSettings) -> Accounts:
        made.append(Accounts(Sealed(public, sealed, root), checked(said), lambda: [private], silence_s=5.0))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def lane(beside: dict[str, str], *, names: str | None = None, provider: str = "acme") -> LaneSpec:
    told = carried.named(beside) if names is None else names
    return LaneSpec(
        provider=provider,
        host="https://gateway.example/v1",
        endpoint="/v1/chat/completions",
        model="m",
        fingerprint=ROOTS.of_credential({**KEY, **beside}).fingerprint,
        completion_window="24h",
        carried=told,
    )


def acme(**more: object) -> ProviderSettings:
    return ProviderSettings.model_validate({"base_url": "https://gateway.example/v1", **more})


async def account_of(accounts: Accounts, spec: LaneSpec, said: ProviderSettings) -> Account:
    facts = Providers(checked({spec.provider: said})).load(spec.provider).facts
    return await accounts.open(spec, facts)


async def test_every_call_of_a_batch_carries_them(opened: Open, wire: Wire) -> None:
    said = acme(base_url=f"{wire.url}/v1", headers={"x-llm-gateway-key": GATEWAY_KEY})
    beside = {"+x-portkey-api-key": "pk-1", **TENANT, "?api-version": "7"}
    account = await account_of(opened({**KEY, **beside}, openai=said), lane(beside, provider="openai"), said)
    desk = Desk(provider=providers.load("openai"), account=account)
    row = b'{"custom_id":"r0","response":{"status_code":200,"body":{}}}\n'
    wire.reply = lambda seen: answer(
        row if seen.target.partition("?")[0].endswith("/content") else b'{"id":"file-7","status":"completed"}'
    )

    batch = await desk.create(await desk.upload())
    await desk.look(batch)
    await desk.answers(Ending(results=("file-8",)))
    await desk.provider.cancel(account, batch)
    await desk.provider.delete(
        account, SpentFiles(endpoint="", label="", provider_batch_id=batch, inputs=("file-7",))
    )

    assert len(wire.seen) >= 7
    for seen in wire.seen:
        assert seen.header("x-portkey-api-key") == "pk-1"
        assert seen.header("x-tenant") == "a"
        assert seen.header("x-llm-gateway-key") == GATEWAY_KEY
        assert seen.header("authorization") == KEY["authorization"]
        assert "api-version=7" in seen.target


async def test_two_tenants_are_two_accounts(opened: Open) -> None:
    said = acme(api_key=SecretStr("sk-workers"), lane_headers=("x-tenant",))
    digests = set()
    for tenant in ("a", "b"):
        beside = {"+x-tenant": tenant}
        account = await account_of(opened({**KEY, **beside}, acme=said), lane(beside), said)
        assert account.headers["x-tenant"] == tenant
        assert account.headers["authorization"] == "Bearer sk-workers"
        digests.add(account.digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("workers", "tenant"),
    [
        ({}, "a"),
        ({"api_key": SecretStr("sk-workers"), "lane_headers": ("x-tenant",)}, "a"),
        ({"api_key": SecretStr("sk-workers")}, "the workers"),
    ],
)
async def test_a_header_of_the_call_comes_before_that_of_the_settings_unless_the_key_is_the_workers(
    opened: Open, workers: dict[str, object], tenant: str
) -> None:
    said = acme(headers={"x-tenant": "the workers", "x-gateway": "g"}, **workers)
    account = await account_of(opened({**KEY, **TENANT}, acme=said), lane(TENANT), said)
    assert account.headers["x-tenant"] == tenant
    assert account.headers["x-gateway"] == "g"


@pytest.mark.parametrize("field", ["+x-tenant", "+x-portkey-config", "?api-version"])
async def test_the_workers_key_goes_with_nothing_that_their_settings_do_not_name(
    opened: Open, field: str
) -> None:
    said, beside = acme(api_key=SecretStr("sk-workers")), {field: "what the caller says"}
    with pytest.raises(PermanentError, match="BATCHLING_PROVIDERS__ACME__LANE_") as refusal:
        await account_of(opened({**KEY, **beside}, acme=said), lane(beside), said)
    assert "what the caller says" not in str(refusal.value)


@pytest.mark.parametrize("header", ["host", "authorization", "content-length", "x-portkey-custom-host"])
async def test_a_stored_field_that_would_change_the_call_is_refused(opened: Open, header: str) -> None:
    beside = {f"+{header}": "evil.example"}
    with pytest.raises(PermanentError, match="cannot travel"):
        await account_of(opened({**KEY, **beside}, acme=acme()), lane(beside), acme())


async def test_a_mark_that_this_version_does_not_know_is_not_sent(opened: Open) -> None:
    spec = msgspec.structs.replace(lane({}), headers=(("openai-project", "p"), ("x-batchling-later", "1")))
    account = await account_of(opened(KEY, acme=acme()), spec, acme())
    assert account.headers["openai-project"] == "p"
    assert "x-batchling-later" not in account.headers


async def test_a_value_that_would_make_another_header_is_refused(opened: Open) -> None:
    beside = {"+x-tenant": "a\r\nx-admin: 1"}
    with pytest.raises(PermanentError, match="cannot travel"):
        await account_of(opened({**KEY, **beside}, acme=acme()), lane(beside), acme())


@pytest.mark.parametrize("names", ["", "+x-tenant,+x-more", "+x-other"])
async def test_the_stored_fields_must_be_those_that_the_lane_names(opened: Open, names: str) -> None:
    with pytest.raises(PermanentError) as refusal:
        await account_of(opened({**KEY, **TENANT}, acme=acme()), lane(TENANT, names=names), acme())
    assert refusal.value.status == 401


async def test_another_tenants_fields_are_refused(opened: Open) -> None:
    with pytest.raises(PermanentError, match="another one's"):
        await account_of(opened({**KEY, "+x-tenant": "b"}, acme=acme()), lane(TENANT), acme())


async def test_errors_do_not_repeat_the_key_of_a_gateway(opened: Open, wire: Wire) -> None:
    said = acme(base_url=f"{wire.url}/v1", headers={"x-team": "team-CANARY-0123"})
    beside = {"+x-portkey-config": GATEWAY_KEY, "?subscription-key": "sub-CANARY-0123"}
    account = await account_of(opened({**KEY, **beside}, openai=said), lane(beside, provider="openai"), said)
    echo = f"no {GATEWAY_KEY}, no sub-CANARY-0123, no team-CANARY-0123"
    wire.reply = lambda seen: answer(json.dumps({"error": {"message": echo}}).encode(), status=400)
    desk = Desk(provider=providers.load("openai"), account=account)
    with pytest.raises(PermanentError) as caught:
        await desk.upload()
    assert "CANARY" not in str(caught.value)
    assert b"CANARY" not in caught.value.body
    assert "CANARY" not in repr(account)
