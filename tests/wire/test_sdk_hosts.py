"""Every host and path that the installed SDKs name is batched, or known to pass: CI finds the next one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import boto3
import pytest
from botocore.exceptions import BotoCoreError

from batchling_client.session.unbatched import unbatched
from batchling_client.wire.charges import Charge, charge, costs_anywhere
from batchling_client.wire.no_batches import NO_BATCHES
from batchling_client.wire.routes import ROUTES, Routes

CHAT: Final = "/v1/chat/completions"
SDKS: Final = {
    "openai": "openai",
    "anthropic": "anthropic",
    "groq": "groq",
    "together": "together",
    "mistralai": "mistral",
    "google.genai": "gemini",
    "sference_sdk": "sference",
}
"""Package -> the provider whose calls it makes."""
NO_CALLS: Final = frozenset(
    {
        # Where tokens and files come from.
        *("mtls.auth.openai.com", "auth.openai.com", "oauth2.googleapis.com", "sts.googleapis.com"),
        *("www.googleapis.com", "storage.googleapis.com", "iamcredentials.googleapis.com"),
        *("vertexai.googleapis.com", "cloudresourcemanager.googleapis.com", "management.azure.com"),
        # Examples in docstrings, and pages.
        *("example-resource.azure.openai.com", "model-spec.openai.com", "bucket.s3.amazonaws.com"),
        "pypi.together.ai",
    }
)
_HOST: Final = re.compile(
    r"https://((?:\{[^{}]+\}|[a-z0-9*.-])+"
    r"\.(?:openai\.com|azure\.(?:com|us|cn)|anthropic\.com|groq\.com|together\.(?:ai|xyz)|mistral\.ai|x\.ai"
    r"|googleapis\.com|api\.aws|amazonaws\.com|sference\.com))(?![a-z0-9.-])"
)
_PAGES: Final = re.compile(
    r"^(?:platform|docs|help|console|cookbook|community|status|developers|beta|cdn|www|aka|support|learn|portal"
    r"|s3|fonts|fake-url|secretmanager)\."
)
_POST: Final = re.compile(r"self\._post\(\s*(?:path_template\(\s*)?f?([\"'])(/.*?)\1", re.DOTALL)
_MISTRAL_POST: Final = re.compile(r'method="POST",\s*path="(/.*?)"')


def sources(package: str) -> Iterator[tuple[Path, str]]:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    for path in Path(spec.submodule_search_locations[0]).rglob("*.py"):
        yield path, path.read_text(encoding="utf-8")


def hosts_named_by(package: str) -> set[str]:
    """Return the hosts of URLs in an SDK's code, with a region where it fills one in."""
    found = {
        re.sub(r"\{[^{}]+\}", "eu-1", host) for _, text in sources(package) for host in _HOST.findall(text)
    }
    return {
        host for host in found if not _PAGES.match(host) and host not in NO_CALLS and "sandbox" not in host
    }


def is_known(host: str) -> bool:
    routes = Routes()
    return routes.of_host(host) is not None or routes.without_batches(host, CHAT) is not None


@pytest.mark.parametrize("package", SDKS)
def test_every_host_in_the_code_of_an_sdk_is_known(package: str) -> None:
    hosts = hosts_named_by(package)
    assert hosts, f"{package} names no host that this test finds"
    assert {host for host in hosts if not is_known(host)} == set()


def test_every_region_that_an_option_of_openai_names_has_batches_at_its_own_host() -> None:
    from openai import _data_residency

    for base_url in _data_residency._DATA_RESIDENCY_BASE_URLS.values():
        host = base_url.removeprefix("https://").partition("/")[0]
        found = Routes().of_call(host, CHAT)
        assert found is not None
        route, place = found
        assert (route.provider, route.batch_host(host)) == ("openai", host)
        assert place is not None


def test_every_server_of_mistral_and_multi_region_of_google_has_batches() -> None:
    from google.genai import _api_client
    from mistralai.client.sdkconfiguration import SERVERS

    for url in SERVERS.values():
        assert Routes().of_call(url.removeprefix("https://"), CHAT) is not None
    for location in _api_client._MULTI_REGIONAL_LOCATIONS:
        route = Routes().of_host(f"aiplatform.{location}.rep.googleapis.com")
        assert route is not None
        assert route.provider == "vertex"


def test_every_host_that_boto3_makes_of_a_region_is_bedrocks() -> None:
    session, n_hosts = boto3.session.Session(), 0
    for partition in session.get_available_partitions():
        region = session.get_available_regions("s3", partition_name=partition)[0]
        for fips in (False, True):
            for dual in (False, True):
                try:
                    host = _bedrock_host(session, region, fips=fips, dual=dual)
                except BotoCoreError:
                    continue
                n_hosts += 1
                route = Routes().of_host(host)
                assert route is not None, host
                assert route.provider == "bedrock"
    assert n_hosts >= 10


def _bedrock_host(session: boto3.session.Session, region: str, *, fips: bool, dual: bool) -> str:
    from botocore.config import Config

    config = Config(use_fips_endpoint=fips, use_dualstack_endpoint=dual)
    client = session.client(
        "bedrock-runtime", region, config=config, aws_access_key_id="AKIA", aws_secret_access_key="x"
    )
    return str(client.meta.endpoint_url).removeprefix("https://")


def posts_of(package: str) -> set[str]:
    """Return the paths that an SDK posts to, with a word where it fills one in."""
    pattern, prefix = (_MISTRAL_POST, "") if package == "mistralai" else (_POST, "")
    found = set()
    for _, text in sources("mistralai.client" if package == "mistralai" else package):
        for match in pattern.finditer(text):
            path = match[match.lastindex or 1].partition("?")[0].partition("#")[0]
            found.add(re.sub(r"\{\w+\}", "id1", path))
    if package == "openai":
        prefix = "/v1"
    return {prefix + path for path in found}


@pytest.mark.parametrize("package", ["openai", "anthropic", "groq", "together", "mistralai"])
def test_what_every_path_of_an_sdk_costs_is_known(package: str) -> None:
    posts, route = posts_of(package), Routes().named(SDKS[package])
    assert route is not None
    assert len(posts) > 5
    assert {path for path in posts if charge(path, route.charges) is Charge.UNKNOWN} == set()


@pytest.mark.parametrize("package", ["openai", "anthropic", "groq", "together", "mistralai"])
def test_every_path_of_an_sdk_is_batched_or_free_or_warned_of(package: str) -> None:
    routes, provider = Routes(), SDKS[package]
    route = routes.named(provider)
    assert route is not None
    for path in posts_of(package):
        found = routes.of_call(route.hosts[0], path)
        batched = found is not None and found[1] is not None
        free = charge(path, route.charges) is Charge.FREE
        assert batched or (unbatched(routes, route.hosts[0], path) is None) == free, path


ONLY_AT_ITS_PROVIDER: Final = re.compile(
    r"/v1/(?:agents/)?sessions/[^/]+/events|/v1/deployments/[^/]+/run|/v1/dreams|/v1/queue/submit"
    r"|/v1/(?:chat/)?moderations|/v1/conversations.*|/v1/workflows/.*"
)
"""What costs at one provider and is free, or another thing altogether, at the next."""
_GENAI_VERB: Final = re.compile(r"['\"]\{(?:model|resourceName|file_search_store_name)\}(:\w+)")


@pytest.mark.parametrize("package", ["openai", "anthropic", "groq", "together", "mistralai"])
def test_every_path_of_an_sdk_that_costs_is_known_at_every_host_and_no_free_one(package: str) -> None:
    route = Routes().named(SDKS[package])
    assert route is not None
    for posted in posts_of(package):
        path = f"/v1{posted}" if package == "together" and not posted.startswith("/v1/") else posted
        cost = charge(path, route.charges)
        assert ONLY_AT_ITS_PROVIDER.fullmatch(path) or costs_anywhere(path) == (cost is Charge.FULL_PRICE), (
            path
        )


def test_what_every_verb_of_google_genai_costs_is_known_at_every_host() -> None:
    verbs = {verb for _, text in sources("google.genai") for verb in _GENAI_VERB.findall(text)}
    assert len(verbs) > 5
    for verb in verbs:
        path = f"/v1beta/models/gemini{verb}"
        assert charge(path) is not Charge.UNKNOWN, path
        assert costs_anywhere(path) == (charge(path) is Charge.FULL_PRICE), path
    assert costs_anywhere("/v1beta/interactions")


def test_no_host_has_batches_and_has_none() -> None:
    hosts = {host for route in ROUTES for host in route.hosts}
    for each in NO_BATCHES:
        for host in each.hosts:
            assert host not in hosts or each.paths != ".*"
            assert re.fullmatch(r"[a-z0-9.*-]+", host)
        assert each.reason.endswith(".")
