"""The sandbox answers calls beside batches as official SDKs expect them."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import wave
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import openai
import pydantic
import pytest
from anthropic import AnthropicBedrock
from botocore.config import Config
from botocore.exceptions import ClientError
from google import genai
from google.oauth2.credentials import Credentials
from mistralai.client import Mistral
from openai.types import (
    Completion,
    CreateEmbeddingResponse,
    ImagesResponse,
    ModerationCreateResponse,
    Video,
)
from openai.types.audio import Transcription, Translation
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from openai.types.responses.input_token_count_response import InputTokenCountResponse
from together import Together

from batchling_worker.sandbox import Sandbox, emulator
from batchling_worker.sandbox.answers import answers
from batchling_worker.sandbox.world import faults

CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
ASKED = [{"role": "user", "content": [{"text": "How are you?"}]}]
MESSAGES: Any = [{"role": "user", "content": "How are you?"}]
TYPES: dict[str, type[pydantic.BaseModel]] = {
    "/v1/chat/completions": ChatCompletion,
    "/v1/completions": Completion,
    "/v1/responses": Response,
    "/v1/responses/input_tokens": InputTokenCountResponse,
    "/v1/embeddings": CreateEmbeddingResponse,
    "/v1/moderations": ModerationCreateResponse,
    "/v1/images/generations": ImagesResponse,
    "/v1/images/edits": ImagesResponse,
    "/v1/videos": Video,
    "/v1/audio/transcriptions": Transcription,
    "/v1/audio/translations": Translation,
}


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{sandbox.url}/openai/v1", api_key="key", max_retries=0) as client:
        yield client


@pytest.fixture
def aws(sandbox: Sandbox) -> Iterator[Any]:
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=sandbox.base_url("bedrock"),
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


@pytest.mark.parametrize("endpoint", answers.ENDPOINTS)
def test_every_answer_of_openais_api_fits_the_type_of_its_sdk(endpoint: str) -> None:
    body = {"model": "m", "input": "Hello", "prompt": "Hello", "messages": MESSAGES}
    found = answers.perform(endpoint, json.dumps(body).encode(), 1)
    assert isinstance(found, answers.Answer)
    # A type that the SDK makes from a response checks nothing.
    TYPES[endpoint].model_validate_json(json.dumps(found.body))


class TestSpeech:
    def test_audio_comes_in_the_format_that_is_asked_for(
        self, client: openai.OpenAI, sandbox: Sandbox
    ) -> None:
        usual = client.audio.speech.create(model="tts-1", voice="alloy", input="Hello")
        assert usual.response.headers["content-type"] == "audio/mpeg"
        assert usual.content.startswith(b"\xff\xfb")
        wav = client.audio.speech.create(model="tts-1", voice="alloy", input="Hello", response_format="wav")
        with wave.open(io.BytesIO(wav.content)) as read:
            assert read.getnframes() > 0
        assert [call.endpoint for call in sandbox.ledger().realtime] == ["/v1/audio/speech"] * 2

    def test_audio_comes_in_events(self, client: openai.OpenAI) -> None:
        ask: Any = {"model": "tts", "voice": "alloy", "input": "Hello"}
        whole = client.audio.speech.create(**ask).content
        with client.audio.speech.with_streaming_response.create(**ask, stream_format="sse") as answer:
            events = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
        parts = [base64.b64decode(event["audio"]) for event in events[:-1]]
        assert b"".join(parts) == whole
        assert events[-1]["type"] == "speech.audio.done"

    def test_calls_with_missing_fields_are_refused(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="'voice'"):
            client.audio.speech.create(model="tts", voice="", input="Hello")

    def test_mistral_and_together_word_it_their_way(self, sandbox: Sandbox) -> None:
        spoken: Any = Mistral(api_key="key", server_url=sandbox.base_url("mistral")).audio.speech.complete(
            model="m", input="Hello", voice_id="v"
        )
        assert base64.b64decode(spoken.audio_data)
        together = Together(api_key="key", base_url=sandbox.base_url("together"))
        assert together.audio.speech.create(model="m", input="Hello", voice="v").read().startswith(b"RIFF")


class TestUploads:
    CONTENT = b'{"custom_id": "a"}\n' * 30

    def begin(self, client: openai.OpenAI) -> str:
        n_bytes = len(self.CONTENT)
        begun = client.uploads.create(
            bytes=n_bytes, filename="in.jsonl", mime_type="application/jsonl", purpose="batch"
        )
        assert (begun.status, begun.bytes, begun.file) == ("pending", n_bytes, None)
        return begun.id

    @pytest.mark.parametrize("provider", ["openai", "azure"])
    def test_parts_become_a_file_in_the_order_of_their_ids(self, sandbox: Sandbox, provider: str) -> None:
        path = "openai/v1" if provider == "azure" else "v1"
        client = openai.OpenAI(base_url=f"{sandbox.base_url(provider)}/{path}", api_key="key")
        upload_id = self.begin(client)
        last = client.uploads.parts.create(upload_id, data=self.CONTENT[100:])
        first = client.uploads.parts.create(upload_id, data=self.CONTENT[:100])
        done = client.uploads.complete(upload_id, part_ids=[first.id, last.id])
        assert done.status == "completed"
        assert done.file is not None
        assert client.files.content(done.file.id).content == self.CONTENT

    def test_invalid_parts_are_refused_and_can_be_corrected(self, client: openai.OpenAI) -> None:
        upload_id = self.begin(client)
        part = client.uploads.parts.create(upload_id, data=self.CONTENT[:100])
        for part_ids, words in (([part.id], "were announced"), (["part_nobody"], "No such part")):
            with pytest.raises(openai.BadRequestError, match=words):
                client.uploads.complete(upload_id, part_ids=part_ids)
        rest = client.uploads.parts.create(upload_id, data=self.CONTENT[100:])
        with pytest.raises(openai.BadRequestError, match="MD5"):
            client.uploads.complete(upload_id, part_ids=[part.id, rest.id], md5="0" * 32)
        assert client.uploads.complete(upload_id, part_ids=[part.id, rest.id]).status == "completed"

    def test_an_ended_upload_accepts_no_more_parts(self, client: openai.OpenAI, sandbox: Sandbox) -> None:
        cancelled, late = self.begin(client), self.begin(client)
        assert client.uploads.cancel(cancelled).status == "cancelled"
        sandbox.clock.advance(3600)
        for upload_id, word in ((cancelled, "cancelled"), (late, "expired")):
            with pytest.raises(openai.BadRequestError, match=word):
                client.uploads.parts.create(upload_id, data=b"x")
        with pytest.raises(openai.NotFoundError):
            client.uploads.cancel("upload_nobody")


class TestBedrock:
    def test_a_conversation_is_streamed(self, aws: Any, sandbox: Sandbox) -> None:
        events = list(aws.converse_stream(modelId="amazon.nova-lite-v1:0", messages=ASKED)["stream"])
        kinds = [next(iter(event)) for event in events]
        assert (kinds[0], kinds[-2:]) == ("messageStart", ["messageStop", "metadata"])
        whole = aws.converse(modelId="amazon.nova-lite-v1:0", messages=ASKED)
        text = "".join(
            event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event
        )
        assert text == whole["output"]["message"]["content"][0]["text"]
        assert events[-1]["metadata"]["usage"] == whole["usage"]
        assert len(sandbox.ledger().realtime) == 2

    @pytest.mark.parametrize("model", [CLAUDE, "openai.gpt-oss-120b-1:0", "amazon.titan-text-express-v1"])
    def test_an_invocation_is_streamed_in_the_shape_of_its_model(self, aws: Any, model: str) -> None:
        body = {"inputText": "Hello"} if "titan" in model else {"messages": MESSAGES, "max_tokens": 9}
        answer = aws.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
        chunks = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
        if model == CLAUDE:
            assert chunks[0]["type"] == "message_start"
            assert chunks[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] > 0
        elif "openai" in model:
            assert chunks[0]["object"] == "chat.completion.chunk"
        else:
            assert chunks[0]["outputs"]

    def test_the_sdk_of_anthropic_reads_the_stream(self, sandbox: Sandbox) -> None:
        client = AnthropicBedrock(api_key="key", aws_region="us-east-1", base_url=sandbox.base_url("bedrock"))
        with client.messages.stream(model=CLAUDE, max_tokens=9, messages=MESSAGES) as stream:
            text = "".join(stream.text_stream)
            assert stream.get_final_message().stop_reason == "end_turn"
        assert "How are you?" in text

    def test_tokens_are_counted_and_cost_nothing(self, aws: Any, sandbox: Sandbox) -> None:
        by_talk = aws.count_tokens(modelId=CLAUDE, input={"converse": {"messages": ASKED}})
        body = json.dumps({"messages": MESSAGES, "max_tokens": 9}).encode()
        by_body = aws.count_tokens(modelId=CLAUDE, input={"invokeModel": {"body": body}})
        assert by_talk["inputTokens"] == by_body["inputTokens"] > 0
        assert sandbox.ledger().realtime == []

    def test_a_stream_that_is_refused_is_an_error_of_the_sdk(self, aws: Any, sandbox: Sandbox) -> None:
        sandbox.faults.add(faults.RefuseRealtime(status=429, provider="bedrock"))
        with pytest.raises(ClientError) as caught:
            aws.converse_stream(modelId=CLAUDE, messages=ASKED)
        assert caught.value.response["Error"]["Code"] == "ThrottlingException"
        with pytest.raises(ClientError, match="asked the sandbox to fail it"):
            aws.converse(modelId=CLAUDE, messages=[{"role": "user", "content": [{"text": "fault:400 here"}]}])

    def test_a_chat_completion_is_streamed(self, sandbox: Sandbox) -> None:
        client = openai.OpenAI(base_url=f"{sandbox.base_url('bedrock')}/openai/v1", api_key="key")
        stream = client.chat.completions.create(model="openai.gpt-oss-20b", messages=MESSAGES, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream)


class TestGoogle:
    def test_tokens_are_counted(self, sandbox: Sandbox) -> None:
        options: Any = {"base_url": sandbox.base_url("gemini")}
        gemini = genai.Client(api_key="key", http_options=options)
        counted = gemini.models.count_tokens(model="gemini-2.5-flash", contents="How are you?")
        vertex = genai.Client(
            vertexai=True,
            project="p",
            location="europe-west4",
            credentials=Credentials("token"),
            http_options={"base_url": sandbox.base_url("vertex")},
        )
        again = vertex.models.count_tokens(model="gemini-2.5-flash", contents="How are you?")
        assert counted.total_tokens == again.total_tokens
        assert counted.total_tokens
        computed = vertex.models.compute_tokens(model="gemini-2.5-flash", contents="How are you?")
        assert computed.tokens_info is not None
        assert computed.tokens_info[0].tokens == [b"How", b"are", b"you?"]
        with pytest.raises(genai.errors.ClientError, match="not found"):
            gemini.models.count_tokens(model="gpt-4o", contents="How are you?")
        assert sandbox.ledger().realtime == []


def test_a_vertex_client_without_a_project_gets_the_reason(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one it calls the base URL alone, whatever the model."""
    for name in ("GOOGLE_CLOUD_PROJECT", "GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with contextlib.closing(
        genai.Client(
            vertexai=True, location="us-central1", http_options={"base_url": sandbox.base_url("vertex")}
        )
    ) as client:
        with pytest.raises(genai.errors.ClientError, match=r"Give genai\.Client a project") as told:
            client.models.generate_content(model="gemini-2.5-flash", contents="How are you?")
        assert told.value.code == 404


@pytest.mark.parametrize("name", [*emulator.names(), "nobody"])
def test_what_is_not_emulated_names_the_sandbox_and_the_path(sandbox: Sandbox, name: str) -> None:
    answer = httpx.post(f"{sandbox.url}/{name}/v9/else", json={}, headers={"authorization": "Bearer key"})
    assert answer.status_code == 404
    assert f"The batchling sandbox does not emulate POST /{name}/v9/else" in answer.text


def test_a_batch_of_azure_may_look_as_in_the_samples(sandbox: Sandbox) -> None:
    client = openai.OpenAI(base_url=f"{sandbox.base_url('azure')}/openai/v1", api_key="key")
    line = {"custom_id": "a", "method": "POST", "url": "/chat/completions"}
    content = json.dumps({**line, "body": {"model": "m", "messages": MESSAGES}}).encode()
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    sandbox.faults.add(faults.DatedShape())
    made: Any = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert (made.status, made.endpoint, made.request_counts) == ("Validating", None, None)
    assert made.created_at.endswith("+00:00")
    plain = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert (plain.status, plain.endpoint) == ("validating", "/v1/chat/completions")
    assert isinstance(plain.created_at, int)
