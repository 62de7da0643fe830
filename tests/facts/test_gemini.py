"""The sandbox's Gemini API, driven by the official SDK, and the adapter behave as the real API is known to."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import errors, types

from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.routes import Routes
from batchling_client.wire.states import Outcome
from batchling_worker import providers
from batchling_worker.errors import Limited, PermanentError, QuotaFull, TemporaryError
from batchling_worker.provider import Account, Answer, Ended, Ending, Running, Source, Submission
from batchling_worker.sandbox import Limits, Sandbox
from batchling_worker.sandbox.world import faults
from tests.form import Ability, Form
from tests.providers.desk import submission
from tests.providers.wire import Seen, Wire, answer

MODEL = "gemini-2.5-flash"
EMBEDDING = "gemini-embedding-001"
ID = "abcdefghijklmnopqrstuvwxyz"


def body(prompt: str, model: str) -> bytes:
    return json.dumps({"contents": [{"role": "user", "parts": [{"text": prompt}]}]}).encode()


def text(answer: Any) -> str:
    found: str = answer["candidates"][0]["content"]["parts"][0]["text"]
    return found


FORM = Form(
    endpoint="/v1/models:generateContent",
    model=MODEL,
    slow_model="gemini-2.5-pro",
    body=body,
    text=text,
    # An expired batch has no results at all, and a cancelled batch does not name the rows that did not run.
    lacks=frozenset({Ability.OPENAI_FILES, Ability.EXPIRY, Ability.UNDONE_ROWS}),
)


def line(key: str, prompt: str = "Say hello.", **more: Any) -> dict[str, Any]:
    return {"key": key, "request": {**json.loads(body(prompt, MODEL)), **more}}


def jsonl(*lines: dict[str, Any] | str) -> io.BytesIO:
    return io.BytesIO(
        "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines).encode()
    )


def client_of(sandbox: Sandbox, key: str = "AIza-one", version: str | None = None) -> genai.Client:
    options = types.HttpOptions(base_url=sandbox.base_url("gemini"), api_version=version)
    return genai.Client(api_key=key, http_options=options)


@pytest.fixture
def gemini(sandbox: Sandbox) -> Iterator[genai.Client]:
    with client_of(sandbox) as client:
        yield client


def create(client: genai.Client, *lines: dict[str, Any] | str, name: str = "a label") -> types.BatchJob:
    uploaded = client.files.upload(
        file=jsonl(*lines), config=types.UploadFileConfig(mime_type="jsonl", display_name="rows")
    )
    assert uploaded.name
    return client.batches.create(
        model=MODEL, src=uploaded.name, config=types.CreateBatchJobConfig(display_name=name)
    )


def finish(
    sandbox: Sandbox, client: genai.Client, job: types.BatchJob, seconds: float = 10
) -> types.BatchJob:
    sandbox.clock.advance(seconds)
    assert job.name
    return client.batches.get(name=job.name)


def rows(client: genai.Client, job: types.BatchJob) -> dict[str, Any]:
    assert job.dest
    assert job.dest.file_name
    found = [json.loads(one) for one in client.files.download(file=job.dest.file_name).splitlines()]
    assert len({row["key"] for row in found}) == len(found)
    return {row.pop("key"): row for row in found}


def raw(sandbox: Sandbox, path: str, key: str = "AIza-one") -> Any:
    found = httpx.get(sandbox.base_url("gemini") + path, headers={"x-goog-api-key": key}, trust_env=False)
    assert found.status_code == 200, found.text
    return found.json()


class TestStates:
    def test_batch_goes_through_its_states_in_time(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        job = create(gemini, line("a"), line("b"))
        assert job.name
        assert job.name.startswith("batches/")
        assert (job.state, job.display_name) == (types.JobState.JOB_STATE_PENDING, "a label")
        assert finish(sandbox, gemini, job, 0.3).state is types.JobState.JOB_STATE_RUNNING
        ended = finish(sandbox, gemini, job)
        assert ended.state is types.JobState.JOB_STATE_SUCCEEDED
        assert ended.done
        assert ended.model == f"models/{MODEL}"

    def test_operation_has_its_counters_as_texts_and_its_output_twice(
        self, sandbox: Sandbox, gemini: genai.Client
    ) -> None:
        job = create(gemini, line("a"), line("b", "fault:400"))
        running = raw(sandbox, f"/v1/{job.name}")
        assert "batchStats" not in running["metadata"]
        assert "done" not in running
        finish(sandbox, gemini, job)
        shown = raw(sandbox, f"/v1beta/{job.name}")
        assert shown["metadata"]["batchStats"] == {
            "requestCount": "2",
            "successfulRequestCount": "1",
            "failedRequestCount": "1",
        }
        assert shown["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
        assert shown["metadata"]["output"]["responsesFile"] == shown["response"]["responsesFile"]

    def test_failed_batch_says_why_in_the_operation(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        sandbox.faults.add(faults.FailBatch(code="invalid", message="Line 2 is wrong."))
        job = create(gemini, line("a"))
        assert finish(sandbox, gemini, job).state is types.JobState.JOB_STATE_FAILED
        assert raw(sandbox, f"/v1/{job.name}")["error"] == {"code": 3, "message": "Line 2 is wrong."}

    def test_cancelled_and_deleted(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        job = create(gemini, *(line(str(n)) for n in range(20)))
        assert job.name
        sandbox.clock.advance(0.3)
        gemini.batches.cancel(name=job.name)
        assert finish(sandbox, gemini, job).state is types.JobState.JOB_STATE_CANCELLED
        assert raw(sandbox, f"/v1/{job.name}")["error"]["code"] == 1
        gemini.batches.delete(name=job.name)
        with pytest.raises(errors.ClientError) as caught:
            gemini.batches.get(name=job.name)
        assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")
        assert list(gemini.batches.list()) == []


class TestResults:
    def test_rows_come_with_their_keys_and_failed_ones_with_codes(
        self, sandbox: Sandbox, gemini: genai.Client
    ) -> None:
        job = create(gemini, line("good", "Why?"), line("bad", "fault:400"), line("busy", "fault:429"))
        found = rows(gemini, finish(sandbox, gemini, job))
        assert "Why?" in text(found["good"]["response"])
        assert {key: row["error"]["code"] for key, row in found.items() if "error" in row} == {
            "bad": 3,
            "busy": 8,
        }

    def test_both_ways_to_a_download(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        job = finish(sandbox, gemini, create(gemini, line("a")))
        assert job.dest
        key = {"x-goog-api-key": "AIza-one"}
        for path in (f"/download/v1beta/{job.dest.file_name}", f"/v1/{job.dest.file_name}"):
            url = f"{sandbox.base_url('gemini')}{path}:download?alt=media"
            assert json.loads(httpx.get(url, headers=key, trust_env=False).content)["key"] == "a"

    def test_inline_requests_are_answered_inline(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        src = [
            types.InlinedRequest(contents=f"Question {n}?", metadata={"key": f"k{n}", "more": "x"})
            for n in range(3)
        ]
        job = gemini.batches.create(model=MODEL, src=src)
        assert job.dest is None
        ended = finish(sandbox, gemini, job)
        assert ended.dest
        answers = ended.dest.inlined_responses
        assert answers
        for n, one in enumerate(answers):
            assert one.response
            assert f"Question {n}?" in (one.response.text or "")
            assert one.metadata == {"key": f"k{n}", "more": "x"}

    def test_embeddings_are_batched_too(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        contents = types.EmbedContentBatch(contents=["one", "two"])
        with pytest.warns(Warning, match="experimental"):
            job = gemini.batches.create_embeddings(
                model=EMBEDDING, src=types.EmbeddingsBatchJobSource(inlined_requests=contents)
            )
        ended = finish(sandbox, gemini, job)
        assert ended.dest
        found = [one.response for one in ended.dest.inlined_embed_content_responses or []]
        sizes = [len(one.embedding.values or []) for one in found if one is not None and one.embedding]
        assert sizes == [64, 64]


class TestRefusals:
    def test_one_bad_line_refuses_them_all(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        with pytest.raises(errors.ClientError, match="line 2") as caught:
            create(gemini, line("a"), "{no", line("c"))
        assert caught.value.code == 400
        assert sandbox.ledger().totals.n_batches == 0

    def test_key_that_is_not_known_is_refused_with_400(self, sandbox: Sandbox) -> None:
        with client_of(sandbox, "invalid-key") as client, pytest.raises(errors.ClientError) as caught:
            client.models.generate_content(model=MODEL, contents="Hi.")
        assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")
        assert "API_KEY_INVALID" in str(caught.value)
        assert "invalid-key" not in str(caught.value)

    def test_model_that_is_not_known(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        for call in (
            lambda: gemini.models.generate_content(model="unknown-model", contents="Hi."),
            lambda: gemini.batches.create(model="unknown-model", src=[types.InlinedRequest(contents="Hi.")]),
            lambda: gemini.batches.create(model="no-such-model", src=[types.InlinedRequest(contents="Hi.")]),
        ):
            with pytest.raises(errors.ClientError) as caught:
                call()
            assert caught.value.code == 404

    def test_name_of_a_file_is_taken_once(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        config = types.UploadFileConfig(name="my-rows-1", mime_type="jsonl")
        file = gemini.files.upload(file=jsonl(line("a")), config=config)
        assert file.name == "files/my-rows-1"
        with pytest.raises(errors.ClientError) as caught:
            gemini.files.upload(file=jsonl(line("a")), config=config)
        assert (caught.value.code, caught.value.status) == (409, "ALREADY_EXISTS")
        with pytest.raises(errors.ClientError):
            gemini.files.upload(
                file=jsonl(line("a")), config=types.UploadFileConfig(name="x" * 41, mime_type="jsonl")
            )

    def test_objects_of_another_key_are_not_seen(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        job = create(gemini, line("a"))
        assert job.name
        with client_of(sandbox, "AIza-two") as other:
            assert list(other.batches.list()) == []
            assert list(other.files.list()) == []
            with pytest.raises(errors.ClientError):
                other.batches.get(name=job.name)


class TestFiles:
    def test_upload_in_chunks_is_put_together(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        content = jsonl(*(line(f"k{n}", "x" * 10_000) for n in range(2_000)))
        size = len(content.getvalue())
        assert size > 2 * 8 * 1024 * 1024
        file = gemini.files.upload(file=content, config=types.UploadFileConfig(mime_type="jsonl"))
        assert file.name
        assert (file.size_bytes, file.state) == (size, types.FileState.ACTIVE)
        gemini.files.delete(name=file.name)
        with pytest.raises(errors.ClientError):
            gemini.files.get(name=file.name)

    def test_list_pages(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        names = [create(gemini, line("a")).name for _ in range(5)]
        listed = gemini.batches.list(config=types.ListBatchJobsConfig(page_size=2))
        assert [job.name for job in listed] == names[::-1]


class TestRealtime:
    def test_realtime_answers_at_once_and_streams(self, sandbox: Sandbox, gemini: genai.Client) -> None:
        assert "Hi." in (gemini.models.generate_content(model=MODEL, contents="Hi.").text or "")
        chunks = gemini.models.generate_content_stream(model=MODEL, contents="Hi.")
        assert "Hi." in "".join(chunk.text or "" for chunk in chunks)
        embeddings = gemini.models.embed_content(model=EMBEDDING, contents=["one", "two"]).embeddings
        assert embeddings
        assert len(embeddings) == 2
        assert sandbox.ledger().totals.n_realtime == 3

    def test_wished_schema_is_kept_to(self, gemini: genai.Client) -> None:
        config = types.GenerateContentConfig(
            response_mime_type="application/json",
            response_schema=types.Schema(
                type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}
            ),
        )
        found = gemini.models.generate_content(model=MODEL, contents="Where?", config=config)
        assert json.loads(found.text or "").keys() == {"city"}

    # google-genai 3.6 subclasses aiohttp's session, for which aiohttp warns.
    @pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
    async def test_async_client_of_the_older_version_too(self, sandbox: Sandbox) -> None:
        client = client_of(sandbox, version="v1beta").aio
        try:
            assert "Hi." in ((await client.models.generate_content(model=MODEL, contents="Hi.")).text or "")
            job = await client.batches.create(model=MODEL, src=[types.InlinedRequest(contents="Why?")])
            assert job.name
            sandbox.clock.advance(10)
            ended = await client.batches.get(name=job.name)
            assert ended.dest
            assert ended.dest.inlined_responses
        finally:
            await client.aclose()


PROVIDER = providers.load("gemini")


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:
        yield client


@pytest.fixture
def account(sandbox: Sandbox, http: httpx.AsyncClient) -> Account:
    return account_at(sandbox.base_url("gemini"), http)


def account_at(url: str, http: httpx.AsyncClient) -> Account:
    return Account(base_url=url, headers={"x-goog-api-key": "AIza-canary"}, http=http, digest="a" * 20)


def asked(endpoint: str = FORM.endpoint, label: str = "batchling-test-1", model: str = MODEL) -> Submission:
    form = Form(endpoint=endpoint, model=model, slow_model=model, body=body, text=text)
    return submission(label, 1, form)


def lines_of(endpoint: str, bodies: dict[str, bytes]) -> io.BytesIO:
    made = (PROVIDER.line(custom_id=one, endpoint=endpoint, body=b) for one, b in bodies.items())
    return io.BytesIO(b"".join(made))


async def submit(account: Account, wish: Submission, bodies: dict[str, bytes]) -> ProviderBatchId:
    file = await PROVIDER.upload(account, wish, lines_of(wish.endpoint, bodies))
    return await PROVIDER.create(account, wish, Source(file_id=file))


async def ended(account: Account, batch: ProviderBatchId) -> Ended:
    look = (await PROVIDER.look(account, [batch]))[batch]
    assert isinstance(look, Ended), look
    return look


async def answers(account: Account, ending: Ending) -> dict[str, Answer]:
    found = [one async for one in PROVIDER.results(account, ending)]
    assert len({one.custom_id for one in found}) == len(found)
    return {one.custom_id: one for one in found}


class TestAdapter:
    def test_calls_of_every_version_and_kind_of_model_are_batched(self) -> None:
        route = Routes().named("gemini")
        assert route is not None
        for version in ("v1", "v1beta", "v1alpha"):
            place = route.place(f"/{version}/models/{MODEL}:generateContent")
            assert place == (f"/{version}/models:generateContent", MODEL)
        assert route.place("/v1/tunedModels/mine-7:embedContent") == (
            "/v1/tunedModels:embedContent",
            "mine-7",
        )
        for path in (f"/v1/models/{MODEL}:streamGenerateContent", f"/v1/models/{MODEL}:countTokens"):
            assert route.place(path) is None
        assert route.query_credentials == {"key": "x-goog-api-key"}

    def test_a_body_goes_into_its_line_byte_for_byte(self) -> None:
        exotic = (
            '{"contents":[{"role":"user","parts":[{"text":"\\ud83d\\ude00 é \\u0000"},'
            '{"inlineData":{"mimeType":"image/png","data":"iVBORw=="}}]}],'
            '"systemInstruction":{"parts":[{"text":"Be brief."}]},"tools":[{"googleSearch":{}}],'
            '"safetySettings":[],"cachedContent":"cachedContents/1","generationConfig":{"temperature":1.0e0,'
            '"thinkingConfig":{"thinkingBudget":-1},"responseJsonSchema":{"$defs":{}}},"labels":{"a":"b"}}'
        ).encode()
        made = PROVIDER.line(custom_id=ID, endpoint=FORM.endpoint, body=exotic)
        assert made == b'{"key":"%b","request":%b}\n' % (ID.encode(), exotic)

    @pytest.mark.parametrize("version", ["v1beta", "v1alpha"])
    async def test_a_batch_is_looked_at_and_read_under_its_own_version(
        self, sandbox: Sandbox, account: Account, version: str
    ) -> None:
        wish = asked(f"/{version}/tunedModels:generateContent")
        batch = await submit(account, wish, {ID: body("Why?", MODEL)})
        usual = await submit(account, asked(label="batchling-test-2"), {ID: body("Why?", MODEL)})
        assert batch.startswith(f"{version}/batches/")
        assert usual.startswith("batches/")
        looks = await PROVIDER.look(account, [batch, usual])
        assert {one: type(look) for one, look in looks.items()} == {batch: Running, usual: Running}
        sandbox.clock.advance(60)
        found = await answers(account, (await ended(account, batch)).ending)
        assert "Why?" in text(json.loads(found[ID].body))
        await PROVIDER.cancel(account, batch)

    async def test_contents_that_are_embedded_together_are_answered_together(
        self, sandbox: Sandbox, account: Account
    ) -> None:
        def many(n: int) -> bytes:
            contents = [{"content": {"parts": [{"text": f"text {at}"}]}} for at in range(n)]
            return json.dumps(
                {"requests": [{"model": f"models/{EMBEDDING}", **one} for one in contents]}
            ).encode()

        wish = asked("/v1/models:batchEmbedContents", model=EMBEDDING)
        batch = await submit(account, wish, {"one": many(1), "seven": many(7), "two": many(2)})
        sandbox.clock.advance(60)
        found = await answers(account, (await ended(account, batch)).ending)
        shown = {one: json.loads(found[one].body)["embeddings"] for one in found}
        assert {one: len(embeddings) for one, embeddings in shown.items()} == {"one": 1, "seven": 7, "two": 2}
        assert shown["seven"][:2] == shown["two"]
        assert shown["two"][:1] == shown["one"]
        assert shown["two"][0] != shown["two"][1]

    async def test_the_first_failure_of_contents_embedded_together_is_reported_once(
        self, sandbox: Sandbox, account: Account
    ) -> None:
        contents = [{"content": {"parts": [{"text": word}]}} for word in ("a", "fault:429", "fault:429", "b")]
        wish = asked("/v1/models:batchEmbedContents", model=EMBEDDING)
        batch = await submit(account, wish, {ID: json.dumps({"requests": contents}).encode()})
        sandbox.clock.advance(60)
        found = await answers(account, (await ended(account, batch)).ending)
        assert {one: found[one].status for one in found} == {ID: 429}

    async def test_contents_of_which_one_is_lost_are_not_answered_in_part(
        self, sandbox: Sandbox, account: Account
    ) -> None:
        sandbox.faults.add(faults.LoseRows(n=1))
        contents = [{"content": {"parts": [{"text": word}]}} for word in ("a", "b")]
        wish = asked("/v1/models:batchEmbedContents", model=EMBEDDING)
        batch = await submit(account, wish, {ID: json.dumps({"requests": contents}).encode()})
        sandbox.clock.advance(60)
        assert await answers(account, (await ended(account, batch)).ending) == {}

    async def test_an_upload_that_was_torn_off_after_its_end_is_taken_as_it_is(
        self, sandbox: Sandbox, account: Account
    ) -> None:
        sandbox.faults.add(faults.DropUploadAnswer())
        lines = lines_of(FORM.endpoint, {ID: body("Why?", MODEL)})
        with pytest.raises(TemporaryError):
            await PROVIDER.upload(account, asked(), lines)
        file = await PROVIDER.upload(account, asked(), lines)
        assert await PROVIDER.upload(account, asked(), lines) == file
        other = lines_of(FORM.endpoint, {ID: body("Who?", MODEL)})
        assert await PROVIDER.upload(account, asked(), other) != file
        assert await PROVIDER.upload(account, asked(label="batchling-test-2"), lines) != file

    async def test_a_large_file_is_sent_in_chunks_from_its_start(
        self, sandbox: Sandbox, account: Account
    ) -> None:
        bodies = {f"k{n}": body("x" * 10_000, MODEL) for n in range(2_000)}
        lines = lines_of(FORM.endpoint, bodies)
        lines.seek(77)
        file = await PROVIDER.upload(account, asked(), lines)
        assert raw(sandbox, f"/v1/{file}", "AIza-canary")["sizeBytes"] == str(len(lines.getvalue()))
        assert sandbox.ledger().calls["gemini POST /upload/{version:v1(?:alpha|beta)?}/files"] == 4

    @pytest.mark.parametrize(
        "location",
        [
            "https://evil.example/upload/v1/files?upload_id=7",
            "http://127.0.0.1:9/x/upload/v1/files?upload_id=7",
        ],
    )
    async def test_an_upload_goes_to_no_other_host(self, http: httpx.AsyncClient, location: str) -> None:
        def reply(seen: Seen) -> bytes:
            if "upload_id" not in seen.target:
                return answer(b"", headers=f"X-Goog-Upload-URL: {location}\r\n")
            return answer(b'{"file":{"name":"files/seven"}}', headers="X-Goog-Upload-Status: final\r\n")

        async with Wire() as wire:
            wire.reply = reply
            account = account_at(f"{wire.url}/proxy", http)
            assert await PROVIDER.upload(account, asked(), io.BytesIO(b"{}\n")) == "files/seven"
        assert [seen.target for seen in wire.seen] == [
            "/proxy/upload/v1/files",
            "/proxy/upload/v1/files?upload_id=7",
        ]

    @pytest.mark.parametrize("location", ["", "https://evil.example/other?upload_id=7", "/upload/v1/files"])
    async def test_without_a_valid_upload_url_nothing_is_sent(
        self, http: httpx.AsyncClient, location: str
    ) -> None:
        async with Wire() as wire:
            wire.reply = lambda seen: answer(b"", headers=f"X-Goog-Upload-URL: {location}\r\n")
            with pytest.raises(TemporaryError):
                await PROVIDER.upload(account_at(wire.url, http), asked(), io.BytesIO(b"{}\n"))
        assert len(wire.seen) == 1

    @pytest.mark.parametrize(
        ("message", "kind"),
        [
            ("You exceeded your current quota, please check your plan.", QuotaFull),
            ("Resource has been exhausted (e.g. check quota).", QuotaFull),
            ("Too many requests a minute.", Limited),
        ],
    )
    async def test_a_full_quota_is_distinguished_from_a_rate_limit(
        self, sandbox: Sandbox, account: Account, message: str, kind: type[Exception]
    ) -> None:
        sandbox.faults.add(faults.RefuseCreate(status=429, message=message))
        with pytest.raises(TemporaryError) as caught:
            await submit(account, asked(), {ID: body("Why?", MODEL)})
        assert type(caught.value) is kind

    async def test_the_tokens_that_are_enqueued_are_limited_at_the_create(
        self, sandbox: Sandbox, account: Account
    ) -> None:
        sandbox.limits = Limits(max_enqueued_tokens=100, quota_at_create=True)
        await submit(account, asked(), {ID: body("x" * 200, MODEL)})
        with pytest.raises(QuotaFull, match="Enqueued token limit reached"):
            await submit(account, asked(label="batchling-test-2"), {ID: body("x" * 200, MODEL)})

    async def test_a_batch_that_failed_hands_on_googles_own_words(
        self, sandbox: Sandbox, account: Account
    ) -> None:
        sandbox.faults.add(faults.FailBatch(code="invalid", message="The input is wrong."))
        batch = await submit(account, asked(), {ID: body("Why?", MODEL)})
        sandbox.clock.advance(60)
        look = await ended(account, batch)
        assert (look.outcome, look.ending.status) == (Outcome.FAILED, 400)
        with pytest.raises(errors.ClientError, match=r"The input is wrong\."):
            errors.APIError.raise_error(look.ending.status, json.loads(look.ending.body), None)

    async def test_an_expired_batch_has_nothing_to_hand_out(self, sandbox: Sandbox, account: Account) -> None:
        sandbox.faults.add(faults.ExpireBatch(done=0.5))
        batch = await submit(account, asked(), {ID: body("Why?", MODEL)})
        sandbox.clock.advance(60)
        look = await ended(account, batch)
        assert (look.outcome, look.ending) == (Outcome.EXPIRED, Ending(n_succeeded=0))

    async def test_a_cancelled_batch_may_hand_out_nothing(self, sandbox: Sandbox, account: Account) -> None:
        sandbox.faults.add(faults.ForgetDoneOnCancel())
        batch = await submit(account, asked(), {ID: body("Why?", MODEL)})
        sandbox.clock.advance(0.3)
        await PROVIDER.cancel(account, batch)
        sandbox.clock.advance(60)
        look = await ended(account, batch)
        assert (look.outcome, look.ending) == (Outcome.CANCELLED, Ending(n_succeeded=0))

    async def test_a_key_that_is_refused_is_not_taken_for_a_batch_that_has_ended(
        self, sandbox: Sandbox, http: httpx.AsyncClient
    ) -> None:
        stranger = Account(
            base_url=sandbox.base_url("gemini"),
            headers={"x-goog-api-key": "invalid"},
            http=http,
            digest="b" * 20,
        )
        with pytest.raises(PermanentError) as caught:
            await PROVIDER.cancel(stranger, ProviderBatchId("batches/1"))
        assert caught.value.status == 401

    @pytest.mark.parametrize(
        ("row", "status", "name"),
        [
            ({"error": {"code": 3, "message": "No."}}, 400, "INVALID_ARGUMENT"),
            ({"error": {"code": 8, "message": "No."}}, 429, "RESOURCE_EXHAUSTED"),
            ({"error": {"code": 13, "message": "No."}}, 500, "INTERNAL"),
            ({"error": {"code": 14, "message": "No."}}, 503, "UNAVAILABLE"),
            ({"error": {"code": 99, "message": "No."}}, 500, "UNKNOWN"),
            ({"error": {"code": 403, "message": "No."}}, 403, "PERMISSION_DENIED"),
            ({"status": {"code": 5, "message": "No."}}, 404, "NOT_FOUND"),
            ({"status": {"code": "7", "message": "No."}, "response": {}}, 403, "PERMISSION_DENIED"),
        ],
    )
    async def test_codes_of_rows_become_the_sdks_own_exceptions(
        self, http: httpx.AsyncClient, row: dict[str, Any], status: int, name: str
    ) -> None:
        [found] = await self._read(http, json.dumps({"key": ID, **row}).encode())
        assert (found.status, found.origin) == (status, "provider")
        kind = errors.ClientError if status < 500 else errors.ServerError
        with pytest.raises(kind) as caught:
            errors.APIError.raise_error(found.status, json.loads(found.body), None)
        assert (caught.value.code, caught.value.status, caught.value.message) == (status, name, "No.")

    async def test_rows_of_odd_shapes_are_read_or_left_out(self, http: httpx.AsyncClient) -> None:
        content = b"\n".join(
            [
                b'{"metadata":{"key":"a"},"response":{"x":1}}',
                b'{"key":"b","response":{"x":"\\ud83d"}}',
                b'{"key":"c","response":{"x":NaN}}',
                b'\xef\xbb\xbf{"key":"d","response":{"x":1}}',
                b'{"key":"e","response":{}}',
                b'{"key":"f"}',
                b'{"key":"g","response":null}',
                b'{"key":"h","error":"No."}',
                b'{"key":"i","error":{"code":1,"message":"Cancelled."}}',
                b'{"key":"j","response":{"x":1},"error":{}}',
                b'{"key":"l","response":"{\\"x\\":1}"}',
                b'{"key":"o","response":{"candidates":[]},"error":{"code":"warning","message":"An old model."}}',
                b'{"key":"p","response":{"candidates":[]},"status":{"code":0,"message":"OK"}}',
                b'{"key":"m.0.1","response":"{\\"embedding\\":{}}"}',
                b'{"key":"n.0.2","response":"no JSON"}',
                b'{"key":7,"response":{"x":1}}',
                b'{"response":{"x":1}}',
                b'{"key":"k","respo',
                b"",
                b"[]",
            ]
        )
        found = {one.custom_id: (one.status, one.origin) for one in await self._read(http, content)}
        assert found == {
            **dict.fromkeys("abcdejlmnop", (200, "provider")),
            **dict.fromkeys("fg", (503, "batch_row_lost")),
            "h": (500, "provider"),
            "i": (499, "batch_cancelled"),
        }

    @staticmethod
    async def _read(http: httpx.AsyncClient, content: bytes) -> list[Answer]:
        async with Wire() as wire:
            wire.reply = lambda seen: answer(content)
            ending = Ending(results=("v1/files/batch-1",))
            return [one async for one in PROVIDER.results(account_at(wire.url, http), ending)]

    @pytest.mark.parametrize(
        ("operation", "expected"),
        [
            ({"metadata": {"state": "JOB_STATE_RUNNING"}}, "running"),
            ({"metadata": {"state": "BATCH_STATE_PAUSED"}}, "running"),
            ({"metadata": {}}, "running"),
            ({}, "running"),
            ({"metadata": {"state": "JOB_STATE_PARTIALLY_SUCCEEDED"}}, Outcome.COMPLETED),
            ({"metadata": {"state": "JOB_STATE_EXPIRED"}}, Outcome.EXPIRED),
            ({"done": True, "error": {"code": 13, "message": "Oh."}}, Outcome.FAILED),
            ({"done": True, "response": {"responsesFile": "files/x"}}, Outcome.COMPLETED),
            (
                {"metadata": {"state": "BATCH_STATE_SUCCEEDED", "output": {"responsesFile": "../x"}}},
                Outcome.COMPLETED,
            ),
        ],
    )
    async def test_states_of_every_spelling_are_understood(
        self, http: httpx.AsyncClient, operation: dict[str, Any], expected: object
    ) -> None:
        async with Wire() as wire:
            wire.reply = lambda seen: answer(json.dumps({"name": "batches/7", **operation}).encode())
            one = ProviderBatchId("batches/7")
            look = (await PROVIDER.look(account_at(wire.url, http), [one]))[one]
        assert (look.outcome if isinstance(look, Ended) else "running") == expected
        if isinstance(look, Ended):
            assert look.ending.results in ((), ("v1/files/x",))
