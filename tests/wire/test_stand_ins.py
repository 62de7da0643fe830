"""What settings say of providers: whose call it is, what its batches take, and what is refused with a reason."""

from __future__ import annotations

from typing import Final

import pytest

from batchling_client.wire.deployment.provider_settings import (
    OWN_ENDPOINTS,
    EndpointSettings,
    checked,
    routes_of,
    told_apart,
)
from batchling_client.wire.routes import ROUTES, Route, Routes

CHAT = "/v1/chat/completions"


def routes(**base_urls: str) -> Routes:
    return routes_of(checked({name: EndpointSettings(base_url=url) for name, url in base_urls.items()}))


def of_call(found: Routes, host: str, path: str) -> tuple[str, str | None] | None:
    met = found.of_call(host, path)
    return met and (met[0].provider, met[1].endpoint if met[1] else None)


def own(**said: object) -> Route:
    given = {"base_url": "http://localhost:8000", **said}
    route = routes_of(checked({"acme": EndpointSettings.model_validate(given)})).named("acme")
    assert route is not None
    return route


@pytest.mark.parametrize(
    ("base_url", "host", "path"),
    [
        ("https://llm.acme.example", "llm.acme.example", "/v1/chat/completions"),
        ("https://llm.acme.example/", "llm.acme.example", "/v1/chat/completions"),
        ("https://LLM.acme.example/v1", "llm.acme.example", "/v1/chat/completions"),
        ("https://llm.acme.example:443/v1/", "llm.acme.example", "/v1/chat/completions"),
        ("https://llm.acme.example:8443/v1", "llm.acme.example:8443", "/v1/chat/completions"),
        ("http://localhost:8000/v1", "localhost:8000", "/v1/chat/completions"),
        ("http://[::1]:8000", "[::1]:8000", "/v1/chat/completions"),
        ("https://gateway.example/team%20a/v1", "gateway.example", "/team a/v1/chat/completions"),
        ("https://gateway.example/api/v3", "gateway.example", "/api/v3/chat/completions"),
        ("https://gateway.example/llm", "gateway.example", "/llm/v1/chat/completions"),
    ],
)
def test_the_calls_below_a_base_url_are_its_providers_and_no_others(
    base_url: str, host: str, path: str
) -> None:
    found = routes(acme=base_url)
    assert of_call(found, host, path) == ("acme", CHAT)
    assert of_call(found, host, path.replace("chat/completions", "audio/speech")) == ("acme", None)
    for stranger in (f"{host}:1", f"evil.{host}", f"{host}.evil.example", host.partition(":")[0] + ":9"):
        assert of_call(found, stranger, path) is None
    assert of_call(found, host, "/other" + path) is None
    assert of_call(found, host, path.replace("/v", "/xv")) is None


def test_a_registered_host_on_another_port_is_nobodys() -> None:
    assert Routes().of_call("api.openai.com:8443", CHAT) is None


def test_what_stands_in_for_a_provider_is_called_as_the_provider_is() -> None:
    found = routes(openai="https://gateway.example/openai", groq="https://gateway.example/groq")
    assert of_call(found, "gateway.example", "/openai/v1/chat/completions") == ("openai", CHAT)
    assert of_call(found, "gateway.example", "/groq/openai/v1/chat/completions") == ("groq", CHAT)
    assert of_call(found, "gateway.example", "/v1/chat/completions") is None
    assert of_call(found, "api.openai.com", CHAT) == ("openai", CHAT)
    assert of_call(found, "api.groq.com", "/openai" + CHAT) == ("groq", CHAT)


def test_one_server_for_several_providers_is_told_by_path() -> None:
    found = routes(openai="http://127.0.0.1:9", groq="http://127.0.0.1:9", acme="http://127.0.0.1:9/acme")
    assert of_call(found, "127.0.0.1:9", CHAT) == ("openai", CHAT)
    assert of_call(found, "127.0.0.1:9", "/openai" + CHAT) == ("groq", CHAT)
    assert of_call(found, "127.0.0.1:9", "/acme" + CHAT) == ("acme", CHAT)


def test_no_setting_takes_a_registered_host_from_its_provider() -> None:
    found = routes(openai="https://api.groq.com/openai")
    assert of_call(found, "api.groq.com", "/openai" + CHAT) == ("groq", CHAT)
    with pytest.raises(ValueError, match=r"ACME__BASE_URL names api\.groq\.com, a host of groq"):
        routes(acme="https://api.groq.com/openai/v1")


def test_an_endpoint_of_ones_own_takes_what_its_settings_say() -> None:
    plain = own()
    assert set(plain.endpoints.values()) == set(OWN_ENDPOINTS)
    assert (plain.max_rows, plain.max_bytes, plain.windows) == (50_000, 100_000_000, ("24h",))
    said = own(endpoints="/v1/rerank, /score", windows='["1h","24h"]', max_rows="7", max_bytes=900)
    assert dict(said.endpoints) == {"/rerank": "/v1/rerank", "/score": "/score"}
    assert (said.max_rows, said.max_bytes, said.max_row_bytes) == (7, 900, 900)
    assert said.windows == ("1h", "24h")
    assert said.variables == {"authorization": "ACME_API_KEY"}


def test_limits_of_a_registered_provider_are_lowered_and_never_raised() -> None:
    known = Routes().named("openai")
    assert known is not None
    low = routes_of({"openai": EndpointSettings(max_rows=10, max_bytes=1000)}).named("openai")
    high = routes_of({"openai": EndpointSettings(max_rows=10**9, max_bytes=10**12)}).named("openai")
    assert low is not None
    assert (low.max_rows, low.max_bytes, low.max_row_bytes) == (10, 1000, 1000)
    assert high == known


def test_no_settings_leave_the_registry_as_it_is() -> None:
    assert routes_of({}).routes == ROUTES


@pytest.mark.parametrize(
    ("stand_ins", "reason"),
    [
        ({"acme": {}}, r"acme, which is not a known provider .*BATCHLING_PROVIDERS__ACME__BASE_URL"),
        ({"Acme": {"max_rows": 3}}, r"BATCHLING_PROVIDERS__ACME__BASE_URL"),
        ({"9lives": {"base_url": "http://x"}}, r"letters, digits"),
        ({"a" * 33: {"base_url": "http://x"}}, r"letters, digits"),
        ({"openai": {"endpoints": "/v1/rerank"}}, r"ENDPOINTS or WINDOWS for openai"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(stand_ins: dict[str, dict[str, str]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        checked({name: EndpointSettings.model_validate(said) for name, said in stand_ins.items()})


def test_two_names_for_one_place_are_refused_where_calls_are_told_apart() -> None:
    both = checked(
        {"a": EndpointSettings(base_url="http://x"), "b": EndpointSettings(base_url="https://x/v1/")}
    )
    with pytest.raises(ValueError, match="B__BASE_URL is the same URL as BATCHLING_PROVIDERS__A__BASE_URL"):
        told_apart(both)
    apart = checked(
        {"a": EndpointSettings(base_url="http://x"), "b": EndpointSettings(base_url="http://x/b")}
    )
    assert told_apart(apart) == apart


@pytest.mark.parametrize(
    "base_url",
    [
        "llm.acme.example",
        "ftp://llm.acme.example",
        "https://",
        "https:///v1",
        "https://llm.acme.example:99999",
        "https://llm.acme.example:0",
        "https://user:sk-CANARY@llm.acme.example",
        "https://llm.acme.example/v1?key=sk-CANARY",
        "https://llm.acme.example/#sk-CANARY",
        "https://[llm",
    ],
)
def test_a_base_url_that_is_none_or_holds_a_key_is_refused_without_being_told(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as refusal:
        EndpointSettings(base_url=base_url)
    assert "CANARY" not in str(refusal.value)


SPELT: Final = {
    "openai": ("", "/v1", "/v1/", "//v1//"),
    "groq": ("", "/openai", "/openai/v1", "/v1"),
    "mistral": ("", "/v1"),
    "together": ("", "/v1"),
    "xai": ("", "/v1"),
    "anthropic": ("", "/v1"),
    "gemini": ("", "/v1", "/v1beta"),
    "vertex": ("", "/v1beta1"),
    "azure": ("", "/openai", "/openai/v1", "/openai/deployments/my-model"),
    "doubleword": ("", "/v1"),
}


@pytest.mark.parametrize(("provider", "ends"), SPELT.items())
@pytest.mark.parametrize("prefix", ["", "/team/llm"])
def test_a_base_url_means_the_same_with_and_without_its_version(
    provider: str, ends: tuple[str, ...], prefix: str
) -> None:
    found = {
        said.base_url
        for end in ends
        for said in checked(
            {provider: EndpointSettings(base_url=f"https://gw.example{prefix}{end}")}
        ).values()
    }
    assert found == {f"https://gw.example{prefix}"}


@pytest.mark.parametrize(
    "spelling",
    [
        "https://GW.Example/v1",
        "HTTPS://gw.example:443/v1/",
        "  https://gw.example  ",
        '"https://gw.example/v1"',
        "'https://gw.example/v1/'",
        "https://gw.example.//v1",
    ],
)
def test_a_base_url_is_read_as_people_write_it(spelling: str) -> None:
    for provider, kept in (("openai", "https://gw.example"), ("acme", "https://gw.example/v1")):
        assert checked({provider: EndpointSettings(base_url=spelling)})[provider].base_url == kept


@pytest.mark.parametrize("written", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST", "0.0.0.0"])
@pytest.mark.parametrize("called", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "0.0.0.0:8000"])
@pytest.mark.parametrize("provider", ["openai", "acme"])
def test_this_machine_is_one_host_by_all_of_its_names(written: str, called: str, provider: str) -> None:
    found = routes(**{provider: f"http://{written}:8000/v1"})
    for path in (CHAT, "//v1//chat/completions"):
        assert of_call(found, called, path) == (provider, CHAT)
    assert of_call(found, called.replace("8000", "8001"), CHAT) is None


@pytest.mark.parametrize("written", ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example"])
@pytest.mark.parametrize("called", ["bücher.example", "xn--bcher-kva.example"])
@pytest.mark.parametrize("provider", ["openai", "acme"])
def test_a_host_beyond_ascii_is_one_by_both_of_its_spellings(
    written: str, called: str, provider: str
) -> None:
    found = routes(**{provider: f"https://{written}/v1"})
    assert of_call(found, called, CHAT) == (provider, CHAT)


@pytest.mark.parametrize("provider", ["openai", "acme"])
@pytest.mark.parametrize(
    "written",
    [
        "https://gw example/v1",
        "https://gw.exa mple",
        "https://gw.example/a b/v1",
        "https://gw.example/v1\\",
        "https://gw.example/../v1",
        "https://gw.example/./v1",
        "https://gw.example,https://other.example/v1",
        "https://<your-gateway>/v1",
        "https://{HOST}/v1",
        "https://gw.example/{team}/v1",
        "https://gw.example/https://api.openai.com/v1",
        "https://gw..example/v1",
    ],
)
def test_a_url_that_no_server_can_have_is_refused(written: str, provider: str) -> None:
    with pytest.raises(ValueError, match=r"has (?:an invalid host|a path)"):
        routes(**{provider: written})


@pytest.mark.parametrize("own", ["", ":80"])
def test_a_port_that_is_the_schemes_own_may_be_said(own: str) -> None:
    assert of_call(routes(openai=f"http://[::1]{own}"), "::1", CHAT) == ("openai", CHAT)
    assert of_call(routes(openai=f"http://localhost{own}"), "127.0.0.1", CHAT) == ("openai", CHAT)
    assert of_call(routes(), "api.openai.com.", CHAT) == ("openai", CHAT)


@pytest.mark.parametrize(
    "end",
    [
        "/v1/chat/completions",
        "/v1/batches",
        "/v1/messages/",
        "/v1/responses",
        "/v1/batch/jobs",
        "/v1/chat",
        "/v1/models/",
        "/api/v1/files",
        "/v1beta/models",
        "/v1/realtime",
        "/v1beta/models/m:generateContent",
    ],
)
def test_a_base_url_that_is_that_of_a_call_is_refused(end: str) -> None:
    with pytest.raises(ValueError, match="ends in the path of a call"):
        EndpointSettings(base_url=f"https://gw.example{end}")


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("/v1/v1", "the version twice: leave out one /v1"),
        ("/api/v1/v1/", "the version twice"),
        ("/v1beta/v1beta", "leave out one /v1beta"),
        ("/V1/v1", "the version twice"),
        ("/V1", "ends in /V1: write /v1"),
        ("/api/V2/", "ends in /V2: write /v2"),
    ],
)
def test_a_version_that_stands_twice_or_in_capitals_is_refused(end: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EndpointSettings(base_url=f"https://gw.example{end}")


@pytest.mark.parametrize("version", ["", "/v1"])
@pytest.mark.parametrize("name", ["acme", "openai"])
@pytest.mark.parametrize("prefix", ["", "/team"])
def test_a_call_may_leave_out_the_version_of_its_base_url(name: str, version: str, prefix: str) -> None:
    """litellm's server and others take both, and their pages show SDKs with base URLs that have no version."""
    routes = routes_of(checked({name: EndpointSettings(base_url=f"http://127.0.0.1:4000{prefix}{version}")}))
    for path in ("/chat/completions", "/v1/chat/completions"):
        found = routes.of_call("localhost:4000", f"{prefix}{path}")
        assert found is not None
        assert (found[0].provider, found[1] and found[1].endpoint) == (name, "/v1/chat/completions")
    elsewhere = routes.of_call("127.0.0.1:4000", "/elsewhere/chat/completions")
    assert elsewhere is None or elsewhere[1] is None


def test_a_providers_own_host_takes_no_call_without_the_version() -> None:
    routes = routes_of(checked({"openai": EndpointSettings(base_url="http://127.0.0.1:4000")}))
    found = routes.of_call("api.openai.com", "/chat/completions")
    assert found is not None
    assert found[1] is None


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.provider)
def test_a_version_that_a_provider_does_not_have_is_refused(route: Route) -> None:
    any_version = any("{version}" in endpoint for endpoint in route.endpoints)
    for version in ("/v2", "/v1beta", "/gateway/v3"):
        settings = {route.provider: EndpointSettings(base_url=f"https://gw.example{version}")}
        if any_version:
            assert (
                checked(settings)[route.provider].base_url
                == f"https://gw.example{version.rpartition('/')[0]}"
            )
            continue
        with pytest.raises(
            ValueError, match=f"ends in {version.rpartition('/')[1]}{version.rpartition('/')[2]}"
        ):
            checked(settings)


@pytest.mark.parametrize("path", ["/v1/team/v1", "/v1/v2", "/V1/llm/v1", "/v1/v1beta"])
def test_a_version_that_stands_elsewhere_in_a_path_is_kept(path: str) -> None:
    assert (
        checked({"acme": EndpointSettings(base_url=f"https://gw.example{path}")})["acme"].base_url
        == f"https://gw.example{path}"
    )


def test_a_url_of_a_registered_provider_and_an_own_endpoint_whose_calls_are_alike_is_refused() -> None:
    both = checked(
        {"openai": EndpointSettings(base_url="http://x/v1"), "acme": EndpointSettings(base_url="http://x")}
    )
    with pytest.raises(ValueError, match="is the same URL as BATCHLING_PROVIDERS__"):
        told_apart(both)


def test_registered_providers_may_share_a_url_and_the_first_takes_the_calls_they_have_in_common() -> None:
    names = ("mistral", "anthropic", "openai")
    shared = told_apart(checked({name: EndpointSettings(base_url="http://127.0.0.1:9") for name in names}))
    found = routes_of(shared)
    chat = found.of_call("127.0.0.1:9", "/v1/chat/completions")
    assert chat is not None
    assert chat[0].provider == "openai"


def test_one_base_url_leaves_the_other_regions_of_its_provider_where_they_are() -> None:
    route = routes(openai="https://gw.example/openai").named("openai")
    assert route is not None
    assert route.batch_host("api.openai.com") == route.batch_host("gw.example") == "https://gw.example/openai"
    assert route.batch_host("eu.api.openai.com") == "eu.api.openai.com"
    said = checked({"openai": EndpointSettings(base_url="https://gw.example/openai", all_hosts=True)})
    everywhere = routes_of(said).named("openai")
    assert everywhere is not None
    assert everywhere.batch_host("eu.api.openai.com") == "https://gw.example/openai"


def test_a_base_url_stands_in_for_the_other_names_of_one_host() -> None:
    route = routes(together="https://gw.example").named("together")
    assert route is not None
    assert {route.batch_host(host) for host in route.hosts} == {"https://gw.example"}
    azure = routes(azure="https://mine.openai.azure.com").named("azure")
    assert azure is not None
    assert azure.batch_host("mine.openai.azure.com") == "https://mine.openai.azure.com"
    assert azure.batch_host("other.openai.azure.com") == "other.openai.azure.com"
