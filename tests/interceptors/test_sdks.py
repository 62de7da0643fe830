"""The official SDKs get their own typed objects and exceptions out of caught calls, nothing sent twice."""

import importlib
import inspect
from typing import Any

import httpx
import openai
import pytest

from batchling_client.intercept.interceptor import PASS_THROUGH, HttpReply

from .fakes import FakeHandler, Upstream, error_reply, process_block, task_block

ASK: dict[str, Any] = {"model": "llama", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(params=["openai", "groq"])
def sdk(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param)


def client_options(sdk: Any, upstream: Upstream) -> dict[str, Any]:
    # Groq's SDK brings its /openai/v1 along, OpenAI's expects the version in the base URL.
    return {"api_key": "sk-1", "base_url": upstream.url + ("/v1" if sdk.__name__ == "openai" else "")}


def async_client(sdk: Any, upstream: Upstream) -> Any:
    return getattr(sdk, {"openai": "AsyncOpenAI", "groq": "AsyncGroq"}[sdk.__name__])(
        **client_options(sdk, upstream)
    )


def blocking_client(sdk: Any, upstream: Upstream) -> Any:
    return getattr(sdk, {"openai": "OpenAI", "groq": "Groq"}[sdk.__name__])(**client_options(sdk, upstream))


def completion_class(sdk: Any) -> Any:
    return importlib.import_module(f"{sdk.__name__}.types.chat").ChatCompletion


async def test_the_typed_object_comes_out(sdk: Any, upstream: Upstream) -> None:
    handler = FakeHandler()
    with task_block(handler):
        async with async_client(sdk, upstream) as client:
            answer = await client.chat.completions.create(**ASK)
        with blocking_client(sdk, upstream) as client:
            blocking_answer = client.chat.completions.create(**ASK)
    for completion in (answer, blocking_answer):
        assert type(completion) is completion_class(sdk)
        assert completion.choices[0].message.content == "batch"
    assert [call.headers["authorization"] for call in handler.calls] == ["Bearer sk-1"] * 2
    assert upstream.seen == []


async def test_raw_responses_work(sdk: Any, upstream: Upstream) -> None:
    with task_block(FakeHandler()):
        async with async_client(sdk, upstream) as client:
            raw = await client.chat.completions.with_raw_response.create(**ASK)
        with blocking_client(sdk, upstream) as client:
            blocking_raw = client.chat.completions.with_raw_response.create(**ASK)
    for response in (raw, blocking_raw):
        assert response.headers["x-request-id"] == "req_1"
        parsed = response.parse()
        completion = await parsed if inspect.isawaitable(parsed) else parsed
        assert completion.choices[0].message.content == "batch"
        assert response.elapsed.total_seconds() >= 0
        assert response.retries_taken == 0


async def test_streaming_responses_work(sdk: Any, upstream: Upstream) -> None:
    with task_block(FakeHandler()):
        async with async_client(sdk, upstream) as client:
            create = client.chat.completions.with_streaming_response.create
            async with create(**ASK) as response:
                assert (await response.parse()).choices[0].message.content == "batch"
            async with create(**ASK) as response:
                assert b"batch" in b"".join([part async for part in response.iter_bytes()])
        with (
            blocking_client(sdk, upstream) as client,
            client.chat.completions.with_streaming_response.create(**ASK) as response,
        ):
            assert "batch" in "".join(response.iter_lines())


@pytest.mark.parametrize(
    ("reply", "exception"),
    [
        (error_reply(400), "BadRequestError"),
        (error_reply(429, **{"x-should-retry": "false"}), "RateLimitError"),
        (error_reply(500, **{"x-should-retry": "false"}), "InternalServerError"),
    ],
)
async def test_an_error_is_raised_once_as_the_sdk_s_own(
    sdk: Any, upstream: Upstream, reply: HttpReply, exception: str
) -> None:
    handler = FakeHandler(reply=reply)
    with task_block(handler):
        async with async_client(sdk, upstream) as client:
            with pytest.raises(getattr(sdk, exception)) as raised:
                await client.chat.completions.create(**ASK)
            with pytest.raises(getattr(sdk, exception)):
                async with client.chat.completions.with_streaming_response.create(**ASK):
                    pass
        with blocking_client(sdk, upstream) as client, pytest.raises(getattr(sdk, exception)):
            client.chat.completions.create(**ASK)
    assert raised.value.status_code == reply.status
    assert "no" in str(raised.value.body)
    assert len(handler.calls) == 3
    assert upstream.seen == []


async def test_an_sdk_retry_is_marked_as_one(sdk: Any, upstream: Upstream) -> None:
    handler = FakeHandler(reply=error_reply(429, **{"retry-after-ms": "1"}))
    with task_block(handler):
        async with async_client(sdk, upstream) as client:
            with pytest.raises(sdk.RateLimitError):
                await client.chat.completions.create(**ASK)
    assert [call.headers["x-stainless-retry-count"] for call in handler.calls] == ["0", "1", "2"]


async def test_a_passed_call_gets_the_providers_answer(sdk: Any, upstream: Upstream) -> None:
    with process_block(FakeHandler(reply=PASS_THROUGH)):
        async with async_client(sdk, upstream) as client:
            answer = await client.chat.completions.create(**ASK)
        with blocking_client(sdk, upstream) as client:
            client.models.list()
    assert answer.choices[0].message.content == "upstream"
    assert len(upstream.seen) == 2


def test_openai_with_a_legacy_httpx_client_is_caught_too(upstream: Upstream) -> None:
    with process_block(FakeHandler()), httpx.Client(verify=False) as http_client:
        client: Any = openai.OpenAI(
            api_key="sk-1",
            base_url=upstream.url + "/v1",
            http_client=http_client,  # type: ignore[arg-type]
        )
        assert client.chat.completions.create(**ASK).choices[0].message.content == "batch"
