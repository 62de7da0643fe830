"""Reading a call: which lane, which id, or why not. No sockets."""

import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from batchling_client.intercept.interceptor import PASS_THROUGH, HttpCall, HttpReply, PassThrough
from batchling_client.session.calls import Calls, Request
from batchling_client.session.lanes import Lane, Terms
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.records.row_and_result import LaneSpec
from batchling_client.wire.routes import ROUTES, Routes

from .asking import HOST, PATH, a_call, body_of, error_of

GOOGLE = "generativelanguage.googleapis.com"


def calls(**terms: Any) -> Calls:
    return Calls(Terms(run_id=new_run_id(), run_name="", **terms), Routes())


def request(reader: Calls, call: HttpCall) -> Request:
    read = reader.read(call)
    assert isinstance(read, Request)
    return read


def refused(call: HttpCall, **terms: Any) -> dict[str, Any]:
    reply = calls(**terms).read(call)
    assert isinstance(reply, HttpReply)
    assert reply.headers["x-batchling-error"] == "request_refused"
    assert 400 <= reply.status < 500
    return error_of(reply)


def lane(reader: Calls, **how: Any) -> Lane:
    return request(reader, a_call(**how)).lane


def test_twenty_equal_prompts_are_twenty_requests_and_a_rerun_meets_the_same() -> None:
    first, rerun = calls(), calls()
    ids = [request(first, a_call()).request_id for _ in range(20)]
    assert len(set(ids)) == 20
    assert [request(rerun, a_call()).request_id for _ in range(20)] == ids


def test_spelling_of_the_json_makes_no_other_request() -> None:
    spaced = b'{ "temperature": 1.5,\n "model": "llama", "messages": [] }'
    dense = b'{"model":"llama","messages":[],"temperature":1.5}'
    assert request(calls(), a_call(body=spaced)).request_id == request(calls(), a_call(body=dense)).request_id


def test_without_cache_every_request_is_new() -> None:
    first, rerun = calls(cache=False), calls(cache=False)
    ids = {request(reader, a_call()).request_id for reader in (first, rerun) for _ in range(3)}
    assert len(ids) == 6


def test_an_sdk_retry_means_the_request_it_has_sent() -> None:
    reader = calls()
    first = request(reader, a_call())
    retry = request(reader, a_call(headers={"x-stainless-retry-count": "1"}))
    assert retry.request_id == first.request_id
    assert request(reader, a_call()).request_id != first.request_id


def test_two_keys_never_share_a_lane_nor_an_id() -> None:
    reader = calls()
    one, two = request(reader, a_call(key="a")), request(reader, a_call(key="b"))
    assert one.lane.lane_id != two.lane.lane_id
    assert one.request_id != two.request_id


def test_models_and_endpoints_split_lanes() -> None:
    reader = calls()
    lanes = {
        lane(reader).lane_id,
        lane(reader, model="other").lane_id,
        lane(reader, path="/openai/v1/audio/translations").lane_id,
    }
    assert len(lanes) == 3


def test_headers_of_a_whole_batch_split_lanes_and_others_do_not() -> None:
    reader = calls()
    there = {"host": "api.openai.com", "path": "/v1/chat/completions"}
    plain = lane(reader, **there)
    other = lane(reader, **there, headers={"openai-project": "p"})
    assert plain.lane_id != other.lane_id
    assert other.spec.headers == (("openai-project", "p"),)
    assert lane(reader, **there, headers={"user-agent": "x"}) is plain


def test_a_lane_shows_no_key() -> None:
    found = lane(calls(), key="gsk-CANARY")
    assert "CANARY" not in repr(found)
    assert "CANARY" not in found.packed_spec.decode()


def test_the_body_is_kept_as_the_sdk_sent_it_on_one_line() -> None:
    body = b'{"model":"llama",\r\n "z":1.0, "a":"line\\nbreak"}'
    kept = body_of(request(calls(), a_call(body=body)))
    assert b"\n" not in kept
    assert b"\r" not in kept
    assert json.loads(kept) == json.loads(body)
    dense = b'{"model":"llama","z":1.0,"a":1}'
    assert body_of(request(calls(), a_call(body=dense))) == dense


@pytest.mark.parametrize(
    "body", [b"", b"not json", b'{"model":', b"[]", b'"x"', b"[" * 100_000, b"\xff\xfe{}"], ids=repr
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    error = refused(a_call(body=body))
    assert error["code"] == "body_not_json"
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("model", [None, "", 7])
def test_a_request_without_a_model_is_refused(model: Any) -> None:
    error = refused(a_call(model=model))
    assert (error["code"], error["param"]) == ("model_missing", "model")


def test_a_model_whose_name_has_no_end_is_refused() -> None:
    error = refused(a_call(model="m" * 513))
    assert (error["code"], error["param"]) == ("model_too_long", "model")
    assert len(error["message"]) < 100


def test_a_request_over_the_limit_is_refused() -> None:
    body = json.dumps({"model": "llama", "messages": "x" * (210 * 1024 * 1024)}).encode()
    error = refused(a_call(body=body))
    assert error["code"] == "request_too_large"
    assert "groq" in error["message"]


def test_a_window_the_provider_does_not_take_is_refused() -> None:
    call = a_call(host="api.openai.com", path="/v1/embeddings")
    error = refused(call, completion_window="48h")
    assert error["code"] == "completion_window_unknown"
    assert "24h" in error["message"]


@pytest.mark.parametrize("key", [None, "", " "])
def test_a_request_without_a_key_is_refused_as_an_sdk_knows_it(key: str | None) -> None:
    reply = calls().read(a_call(key=key))
    assert isinstance(reply, HttpReply)
    assert reply.status == 401
    assert error_of(reply)["code"] == "credential_missing"


def of_query(query: str, headers: dict[str, str] | None = None) -> Request | HttpReply:
    """Return what is read of a call whose only key is in its query."""
    route = replace(
        next(route for route in ROUTES if route.provider == "groq"),
        credential_headers=("x-goog-api-key",),
        query_credentials={"key": "x-goog-api-key"},
    )
    call = replace(a_call(key=None, headers=headers), url=f"https://{HOST}{PATH}?{query}")
    read = Calls(Terms(run_id=new_run_id(), run_name=""), Routes((route,))).read(call)
    assert not isinstance(read, PassThrough)
    return read


def test_a_key_in_the_query_is_the_same_credential_as_in_the_header() -> None:
    in_header = of_query("alt=json", {"x-goog-api-key": "AIza-1/+"})
    in_query = of_query("alt=json&key=AIza-1%2F%2B")
    other = of_query("key=AIza-2")

    assert isinstance(in_header, Request)
    assert isinstance(in_query, Request)
    assert isinstance(other, Request)
    assert in_query.lane.secrets == {"x-goog-api-key": "AIza-1/+"}
    assert in_query.request_id == in_header.request_id
    assert other.lane.lane_id != in_query.lane.lane_id


def test_a_key_in_the_query_gives_way_to_the_header_and_is_shown_nowhere() -> None:
    both = of_query("key=CANARY", {"x-goog-api-key": "mine"})
    alone = of_query("key=CANARY")

    assert isinstance(both, Request)
    assert isinstance(alone, Request)
    assert both.lane.secrets == {"x-goog-api-key": "mine"}
    assert "CANARY" not in repr(alone.lane) + alone.lane.packed_spec.decode()
    assert b"CANARY" not in alone.packed


@pytest.mark.parametrize("query", ["", "key=", "key", "KEY=a", "monkey=a"])
def test_a_query_without_a_key_makes_no_credential(query: str) -> None:
    reply = of_query(query)

    assert isinstance(reply, HttpReply)
    assert reply.status == 401


def test_the_query_is_no_credential_where_the_route_says_nothing_of_it() -> None:
    call = replace(a_call(key=None), url=f"https://{HOST}{PATH}?key=a")
    reply = calls().read(call)

    assert isinstance(reply, HttpReply)
    assert reply.status == 401


def test_numbers_beyond_the_decoder_are_the_providers_to_judge() -> None:
    body = b'{"model":"llama","seed":1' + b"0" * 400 + b',"x":1e999}'
    read = calls().read(a_call(body=body))
    assert isinstance(read, Request)


def test_a_streamed_call_passes_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    reader = calls()
    assert reader.read(a_call(stream=True)) is PASS_THROUGH
    assert reader.read(a_call(stream=True)) is PASS_THROUGH
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "stream" in caplog.text
    assert isinstance(reader.read(a_call(stream=False)), Request)


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        ({"max_tokens": 0}, True),
        ({"max_tokens": 1}, False),
        ({"speed": "fast"}, True),
        ({"speed": "standard"}, False),
        ({"metadata": {"speed": "fast", "max_tokens": 0}}, False),
    ],
)
def test_a_call_with_an_unbatched_field_passes_with_one_warning(
    asked: dict[str, Any], passes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reader = calls()
    for _ in range(2):
        read = reader.read(a_call(host="api.anthropic.com", path="/v1/messages", **asked))
        assert (read is PASS_THROUGH) is passes
        assert passes or isinstance(read, Request)
    assert len(caplog.records) == passes
    assert all(next(iter(asked)) in record.getMessage() for record in caplog.records)


def test_the_headers_of_an_anthropic_batch_split_lanes() -> None:
    reader, sent = calls(), {"anthropic-version": "2026-10-21"}
    lanes = [
        lane(reader, host="api.anthropic.com", path="/v1/messages", headers={**sent, **more})
        for more in (
            {},
            {"anthropic-version": "2023-06-01"},
            {"anthropic-beta": "a,b"},
            {"anthropic-beta": "a"},
            {"anthropic-workspace-id": "wrkspc_1"},
            {"anthropic-user-profile-id": "uprof_1"},
            {"x-api-key": "sk-ant"},
        )
    ]
    assert len({one.lane_id for one in lanes}) == len(lanes)
    same = lane(reader, host="api.anthropic.com", path="/v1/messages", headers={**sent, "user-agent": "x"})
    assert same.lane_id == lanes[0].lane_id
    assert dict(lanes[2].spec.headers) == {**sent, "anthropic-beta": "a,b"}
    assert lanes[-1].secrets == {"x-api-key": "sk-ant", "authorization": "Bearer gsk-test"}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data; boundary=x", b"--x\r\nfile"),
        ("application/x-www-form-urlencoded", b"model=m&file_url=https%3A%2F%2Fexample.com"),
    ],
)
def test_a_form_passes_with_one_warning(
    content_type: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    upload = a_call(path="/openai/v1/audio/transcriptions", body=body, headers={"content-type": content_type})
    reader = calls()
    assert reader.read(upload) is PASS_THROUGH
    assert reader.read(upload) is PASS_THROUGH
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("method", "host", "path", "wanted", "n_warnings"),
    [
        ("POST", HOST, PATH, True, 0),
        ("GET", HOST, PATH, False, 0),
        ("POST", "example.org", PATH, False, 1),
        ("POST", "example.org", "/v1/chat/completions/chatcmpl-1", False, 0),
        ("POST", "example.org", "/v1/messages", False, 1),
        ("POST", "example.org", "/v1/messages/count_tokens", False, 0),
        ("POST", "example.org", "/channels/1/messages", False, 0),
        ("POST", "example.org", "/forms/1/responses", False, 0),
        ("POST", "example.org", "/openai/responses", False, 1),
        ("POST", "example.org", "/v1/images/generations", False, 1),
        ("POST", "example.org", "/v1beta/models/gemini:generateContent", False, 1),
        ("POST", "example.org", "/model/claude/converse", False, 1),
        ("GET", "example.org", "/v1/embeddings", False, 0),
        ("POST", HOST, "/openai/v1/batches", False, 0),
        ("POST", HOST, "/openai/v1/files", False, 0),
        ("GET", HOST, "/openai/v1/models", False, 0),
        ("POST", HOST, "/openai/v1/audio/speech", False, 1),
        ("POST", "api.openai.com", "/v1/embeddings", True, 0),
        ("POST", "api.openai.com", "/v1/batches/batch_1/cancel", False, 0),
        ("POST", "api.openai.com", "/v1/audio/transcriptions", False, 1),
        ("POST", GOOGLE, "/v1/models/gemini-2.5-flash:generateContent", True, 0),
        ("POST", GOOGLE, "/v1/models/gemini-2.5-flash:streamGenerateContent", False, 1),
        ("POST", GOOGLE, "/v1/models/gemini-2.5-flash:countTokens", False, 0),
        ("POST", GOOGLE, "/v1/models/gemini-2.5-flash:batchGenerateContent", False, 0),
        ("POST", GOOGLE, "/v1/batches/b1:cancel", False, 0),
        ("POST", GOOGLE, "/upload/v1/files", False, 0),
        ("POST", GOOGLE, "/v1/models/imagen-4:predict", False, 1),
        ("POST", "api.anthropic.com", "/v1/messages", True, 0),
        ("POST", "api.anthropic.com", "/v1/messages/count_tokens", False, 0),
        ("POST", "api.anthropic.com", "/v1/messages/batches", False, 0),
        ("POST", "api.anthropic.com", "/v1/messages/batches/msgbatch_1/cancel", False, 0),
        ("POST", "api.anthropic.com", "/v1/complete", False, 1),
    ],
)
def test_unbatched_calls_pass_with_one_warning_if_they_cost_money(
    method: str, host: str, path: str, wanted: bool, n_warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    reader = calls()
    assert [reader.wants(method, host, path) for _ in range(3)] == [wanted] * 3
    if not wanted:
        assert [reader.passes(method, host, path) for _ in range(3)] == [n_warnings > 0] * 3
    assert len(caplog.records) == n_warnings
    assert [one.n_calls for one in reader.passed.counts()] == [3] * n_warnings


def test_a_body_that_can_be_read_once_passes_with_one_warning_and_each_call_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader = calls()
    for _ in range(3):
        assert reader.read(replace(a_call(), body=b"", body_unread=True)) is PASS_THROUGH
    assert [record.getMessage()[:60] for record in caplog.records] == [
        "A call that could be batched sends its body as a stream, whi"
    ]
    assert [(one.reason, one.host, one.n_calls) for one in reader.passed.counts()] == [
        ("body sent as a stream", HOST, 3)
    ]


def test_a_form_that_is_read_while_it_is_sent_has_the_warning_of_forms(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader = calls()
    headers = {**a_call().headers, "content-type": "multipart/form-data; boundary=x"}
    assert reader.read(replace(a_call(), body=b"", body_unread=True, headers=headers)) is PASS_THROUGH
    assert " uploads a file, which batches do not support" in caplog.text
    assert "body as a stream" not in caplog.text


def test_a_body_whose_texts_are_not_utf8_is_refused_alone() -> None:
    body = '{"model": "m", "messages": [{"role": "user", "content": "caf\u00e9"}]}'
    assert isinstance(calls().lane_of(replace(a_call(), body=body.encode())), Lane)
    assert refused(replace(a_call(), body=body.encode("latin-1")))["code"] == "body_not_json"


def test_an_sdks_retry_of_a_call_that_passes_is_the_same_call() -> None:
    reader = calls()
    for n in range(3):
        headers = {"x-stainless-retry-count": str(n)}
        assert reader.read(a_call(body=b'{"model":"m","stream":true}', headers=headers)) is PASS_THROUGH
    assert [one.n_calls for one in reader.passed.counts()] == [1]


def test_ids_in_paths_make_no_second_warning(caplog: pytest.LogCaptureFixture) -> None:
    reader = calls()
    for i in range(5):
        reader.passes("POST", "api.openai.com", f"/v1/threads/thread_{i}abc/runs")
    assert len(caplog.records) == 1


VERTEX = "us-central1-aiplatform.googleapis.com"
VERTEX_PATH = "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-2.5-flash:generateContent"


def test_where_files_of_vertex_lie_splits_lanes_and_is_no_header_of_a_call() -> None:
    def of(prefix: str) -> LaneSpec:
        return lane(calls(vertex_gcs_prefix=prefix), host=VERTEX, path=VERTEX_PATH).spec

    assert (of("gs://bucket/run/").staging, of("gs://bucket/run/").headers) == ("gs://bucket/run", ())
    assert of("gs://bucket/run") == of("gs://bucket/run/") != of("gs://bucket/other")
    assert of("gs://bucket/run").endpoint == "/v1/projects/p/locations/us-central1:generateContent"
    sent = lane(
        calls(vertex_gcs_prefix="gs://bucket"),
        host=VERTEX,
        path=VERTEX_PATH,
        headers={"x-batchling-staging": "gs://x"},
    )
    assert (sent.spec.staging, sent.spec.headers) == ("gs://bucket", ())


@pytest.mark.parametrize(
    "prefix", [None, "", "bucket/run", "s3://bucket/run", "gs://", "gs:///run", "gs://b/a\nb"]
)
def test_vertex_without_a_place_for_files_is_refused_before_anything_is_queued(prefix: str | None) -> None:
    error = refused(a_call(host=VERTEX, path=VERTEX_PATH), vertex_gcs_prefix=prefix)
    assert error["code"] == "staging_missing"
    assert "vertex_gcs_prefix='gs://" in error["message"]


def test_a_cap_is_the_smaller_of_the_callers_and_the_providers() -> None:
    assert lane(calls(batch_size=10)).cap.rows == 10
    assert lane(calls(batch_size=10_000_000)).cap.rows == 50_000
    assert lane(calls(linger_s=2.0)).cap.longest_ms == 30_000


def test_signed_calls_of_one_access_key_share_a_lane_and_no_signature_is_kept() -> None:
    reader = calls()

    def signed(key: str, signature: str) -> Request:
        said = f"AWS4-HMAC-SHA256 Credential={key}/20261125/us-east-1/bedrock/aws4_request, Signature={signature}"
        path = "/model/us.anthropic.claude-opus-4:0/invoke"
        call = a_call(
            host="bedrock-runtime.us-east-1.amazonaws.com", path=path, headers={"authorization": said}
        )
        return request(reader, replace(call, body=b'{"messages":[]}'))

    one, again, other = signed("AKIAONE", "aa"), signed("AKIAONE", "bb"), signed("AKIATWO", "cc")
    assert one.lane.lane_id == again.lane.lane_id != other.lane.lane_id
    assert one.lane.secrets == {"authorization": "AWS4-HMAC-SHA256 Credential=AKIAONE"}
    assert one.lane.spec.model == "us.anthropic.claude-opus-4:0"


def test_calls_to_a_host_that_takes_no_batches_join_the_lane_of_the_one_that_does() -> None:
    path = "/v1/chat/completions"
    hosts = ("api.together.ai", "api-inference.together.ai", "api.together.xyz")
    home, calls_only, alias = (lane(calls(), host=host, path=path).spec for host in hosts)

    assert calls_only == home
    assert (home.host, alias.host) == ("api.together.ai", "api.together.xyz")
