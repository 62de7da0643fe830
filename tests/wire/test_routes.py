"""Routes: a call has one provider or none, and no batch is sealed that its provider would refuse for its size."""

from __future__ import annotations

import dataclasses
import re

import pytest

from batchling_client.wire.routes import ROUTES, Route, Routes, route_of, window_words

NAMES = [route.provider for route in ROUTES]


def test_a_host_and_a_name_are_one_providers() -> None:
    hosts = [host for route in ROUTES for host in route.hosts]
    assert len(set(hosts)) == len(hosts)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("provider", NAMES)
def test_a_call_is_found_by_its_host_alone(provider: str) -> None:
    routes, route = Routes(), route_of(provider)
    real = [host.replace("*", "eu-1") for host in route.hosts]
    assert [routes.of_host(host) for host in real] == [route] * len(route.hosts)
    for stranger in (
        "",
        "example.com",
        f"evil.{real[0]}",
        f"{real[0]}.evil.com",
        real[0] + ":80",
    ):
        assert routes.of_host(stranger) is None
    assert routes.named("nobody") is None


@pytest.mark.parametrize("provider", NAMES)
def test_hosts_paths_and_headers_are_spelt_as_calls_are_read(provider: str) -> None:
    """Lower case, no trailing slash, no query: an entry that is spelt otherwise is never met."""
    route = route_of(provider)
    assert all(re.fullmatch(r"[a-z0-9.*-]+", host) for host in route.hosts)
    for path in route.endpoints:
        assert re.fullmatch(r"(/[A-Za-z0-9_:{}-]+)+", path)
        words = {word: "v1" if word == "version" else word for word in re.findall(r"\{(\w+)\}", path)}
        place = route.place(path.format_map(words))
        assert place is not None
        assert place.model == words.get("model")
    for name in (*route.credential_headers, *route.batch_headers, *route.batch_query):
        assert re.fullmatch(r"[a-z0-9-]+", name)


@pytest.mark.parametrize("provider", NAMES)
def test_a_credential_never_travels_as_a_batch_header(provider: str) -> None:
    route = route_of(provider)
    assert route.credential_headers
    assert not set(route.credential_headers) & set(route.batch_headers)


@pytest.mark.parametrize("provider", NAMES)
def test_a_batch_may_run_for_a_day_and_has_room_for_its_largest_row(provider: str) -> None:
    route = route_of(provider)
    assert "24h" in route.windows
    assert 0 < route.max_row_bytes <= route.max_bytes
    assert 0 < route.min_rows <= route.max_rows


def test_routes_of_a_deployment_stand_in_for_the_registry() -> None:
    own = Route(
        provider="own",
        hosts=("llm.example",),
        endpoints={"/v1/chat/completions": "/v1/chat/completions"},
        max_rows=1,
        max_bytes=1,
        max_row_bytes=1,
        windows=("24h",),
    )
    routes = Routes((own,))
    assert routes.of_host("llm.example") is own
    assert routes.of_host("api.openai.com") is None


@pytest.mark.parametrize(
    ("windows", "words"),
    [
        (["24h"], "24h"),
        (["1h", "24h"], "1h, 24h"),
        (["3h", "2h", "1h", "12h", "7d", "soon"], "1h to 3h, 12h, 7d, soon"),
        ([], ""),
    ],
)
def test_many_completion_windows_are_told_in_few_words(windows: list[str], words: str) -> None:
    assert window_words(windows) == words


def test_every_route_names_the_variable_that_holds_its_key() -> None:
    for route in ROUTES:
        assert route.api_key_header in route.variables, route.provider
        assert set(route.variables) <= {*route.credential_headers, *route.batch_headers}


def test_a_path_that_names_model_and_project_is_read_with_them() -> None:
    own = Route(
        provider="own",
        hosts=("*-llm.example", "llm.example"),
        endpoints={
            "/v1/models/{model}:ask": "ask",
            "/{version}/projects/{project}/models/{model}:ask": "projects/{project}:ask",
        },
        max_rows=1,
        max_bytes=1,
        max_row_bytes=1,
        windows=("24h",),
    )
    assert own.place("/v1/models/small:ask") == ("ask", "small")
    assert own.place("/v1/models/tuned/one:ask") == ("ask", "tuned/one")
    assert own.place("/v2/projects/p1/models/small:ask") == ("projects/p1:ask", "small")
    for path in (
        "/v1/models/:ask",
        "/v1/models/small:streamAsk",
        "/v1/models/small:ask/x",
        "/v1/models/{model}:askx",
        "/v2/projects/p/1/models/small:ask",
    ):
        assert own.place(path) is None, path
    routes = Routes((own,))
    assert routes.of_host("eu-1-llm.example") is routes.of_host("llm.example") is own
    assert routes.of_host("a.b-llm.example") is routes.of_host("-llm.example") is None


GEMINI = "/{}/models/{}:generateContent"
VERTEX = "/{}/projects/{}/locations/{}/publishers/google/models/{}:generateContent"


@pytest.mark.parametrize(
    "path",
    [
        *(
            GEMINI.format(version, "m")
            for version in ("..", ".", "v1?", "v1#", "v1?key=", "v1 ", "x", "V1", "v1/../v2")
        ),
        *(
            GEMINI.format("v1", model)
            for model in ("..", ".", "a/..", "../a", "a/./b", "a?b", "a#b", "a\n", "a\\b")
        ),
        *(
            VERTEX.format("v1", project, "l", "m")
            for project in ("..", ".", "a..b", "-a", "a?b", "a#b", "a/b", "a%2e")
        ),
        *(VERTEX.format("v1", "p", location, "m") for location in ("..", ".", "a..", "a?", "a b")),
        VERTEX.format("..", "p", "l", "m"),
        VERTEX.format("v1", "p", "l", "../m"),
    ],
)
def test_no_word_of_a_path_leads_out_of_a_base_url(path: str) -> None:
    hosts = ("gw.example/gemini", "gw.example/vertex")
    routes = Routes(
        tuple(
            dataclasses.replace(route_of(name), hosts=(host,))
            for name, host in zip(("gemini", "vertex"), hosts, strict=True)
        )
    )
    for prefix in ("/gemini", "/vertex"):
        found = routes.of_call("gw.example", prefix + path)
        assert found is not None
        assert found[1] is None


def test_words_that_providers_and_their_users_have_are_taken() -> None:
    gemini, vertex, bedrock = (route_of(name) for name in ("gemini", "vertex", "bedrock"))
    for version in ("v1", "v1beta", "v1alpha", "v1beta1"):
        assert gemini.place(GEMINI.format(version, "gemini-2.5-flash")) == (
            f"/{version}/models:generateContent",
            "gemini-2.5-flash",
        )
    for project in ("my-project", "example.com:my-project", "123456"):
        assert vertex.place(VERTEX.format("v1", project, "us-central1", "gemini-2.5-pro@001")) == (
            f"/v1/projects/{project}/locations/us-central1:generateContent",
            "gemini-2.5-pro@001",
        )
    for model in ("anthropic.claude-v1:0", "arn:aws:bedrock:us-east-1:123:inference-profile/us.meta.l3:0"):
        assert bedrock.place(f"/model/{model}/invoke") == ("/invoke", model)
