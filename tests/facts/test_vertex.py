"""The sandbox's Vertex and Cloud Storage, driven by the official SDKs, behave as the real APIs; so does the adapter."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from gcp_storage_emulator.server import create_server
from google import genai
from google.api_core.exceptions import NotFound as ObjectNotFound
from google.api_core.exceptions import PreconditionFailed
from google.auth.exceptions import RefreshError
from google.cloud import storage
from google.genai import errors, types
from google.oauth2.credentials import Credentials

from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.routes import Routes
from batchling_client.wire.states import Outcome
from batchling_worker import providers
from batchling_worker.dialects.google import cloud_storage
from batchling_worker.dialects.google.cloud_storage import Objects, Place
from batchling_worker.errors import Denied, PermanentError, QuotaFull, TemporaryError
from batchling_worker.provider import Account, Answer, Ended, Ending, Look, Running, Source, Submission
from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world import faults
from tests.form import Ability, Form
from tests.providers.desk import submission
from tests.providers.wire import Wire, answer

MODEL = "gemini-2.5-flash"
ID = "abcdefghijklmnopqrstuvwxyz"
TOKEN = "ya29.canary"
MIB = 1024 * 1024


def body(prompt: str, model: str) -> bytes:
    return json.dumps({"contents": [{"role": "user", "parts": [{"text": prompt}]}]}).encode()


def text(answer: Any) -> str:
    found: str = answer["candidates"][0]["content"]["parts"][0]["text"]
    return found


FORM = Form(
    endpoint="/v1beta1/projects/acme/locations/us-central1:generateContent",
    model=MODEL,
    slow_model="gemini-2.5-pro",
    body=body,
    text=text,
    # Files are in Cloud Storage, under names instead of ids, visible to everybody; rows that never ran are in none.
    lacks=frozenset(
        {
            Ability.OPENAI_FILES,
            Ability.INPUT_FILE,
            Ability.RESULT_FILES,
            Ability.UNDONE_ROWS,
        }
    ),
)


def line(custom_id: str, prompt: str = "Say hello.", **more: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "request": {**json.loads(body(prompt, MODEL)), **more}}


def jsonl(*lines: dict[str, Any] | str) -> bytes:
    return "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines).encode()


def client_of(sandbox: Sandbox, *, location: str = "us-central1", version: str | None = None) -> genai.Client:
    return genai.Client(
        vertexai=True,
        project="acme",
        location=location,
        credentials=Credentials(token=TOKEN),
        http_options=types.HttpOptions(base_url=sandbox.base_url("vertex"), api_version=version),
    )


@pytest.fixture
def vertex(sandbox: Sandbox) -> Iterator[genai.Client]:
    with client_of(sandbox) as client:
        yield client


def bucket_of(endpoint: str, token: str = TOKEN) -> Any:
    client = storage.Client(
        project="acme", credentials=Credentials(token=token), client_options={"api_endpoint": endpoint}
    )
    return client.bucket("bucket")


@pytest.fixture
def bucket(sandbox: Sandbox) -> Any:
    return bucket_of(f"{sandbox.base_url('vertex')}/gcs")


def create(
    client: genai.Client, bucket: Any, *lines: dict[str, Any] | str, name: str = "job"
) -> types.BatchJob:
    bucket.blob(f"{name}.jsonl").upload_from_string(jsonl(*lines))
    config = types.CreateBatchJobConfig(display_name=name, dest=f"gs://bucket/{name}-out")
    return client.batches.create(model=MODEL, src=f"gs://bucket/{name}.jsonl", config=config)


def finish(
    sandbox: Sandbox, client: genai.Client, job: types.BatchJob, seconds: float = 10
) -> types.BatchJob:
    sandbox.clock.advance(seconds)
    assert job.name
    return client.batches.get(name=job.name)


def rows(bucket: Any, name: str = "job") -> list[dict[str, Any]]:
    found = list(bucket.client.list_blobs(bucket, prefix=f"{name}-out/prediction-model-"))
    return [json.loads(one) for blob in found for one in blob.download_as_bytes().splitlines()]


def raw(sandbox: Sandbox, path: str) -> Any:
    headers = {"authorization": f"Bearer {TOKEN}"}
    found = httpx.get(sandbox.base_url("vertex") + path, headers=headers, trust_env=False)
    assert found.status_code == 200, found.text
    return found.json()


class TestJobs:
    def test_job_goes_through_its_states_in_time(
        self, sandbox: Sandbox, vertex: genai.Client, bucket: Any
    ) -> None:
        job = create(vertex, bucket, line("a"), line("b", "fault:400"))
        assert job.name
        assert job.name.startswith("projects/715812345678/locations/us-central1/batchPredictionJobs/")
        assert (job.state, job.display_name) == (types.JobState.JOB_STATE_PENDING, "job")
        assert finish(sandbox, vertex, job, 0.3).state is types.JobState.JOB_STATE_RUNNING
        ended = finish(sandbox, vertex, job)
        assert ended.state is types.JobState.JOB_STATE_SUCCEEDED
        shown = raw(sandbox, f"/v1/{job.name}")
        assert shown["completionStats"] == {
            "successfulCount": "1",
            "failedCount": "1",
            "incompleteCount": "0",
        }
        assert shown["outputInfo"]["gcsOutputDirectory"].startswith("gs://bucket/job-out/prediction-model-")

    def test_rows_are_echoed_with_what_stood_beside_their_request(
        self, sandbox: Sandbox, vertex: genai.Client, bucket: Any
    ) -> None:
        finish(sandbox, vertex, create(vertex, bucket, line("a", "Why?"), line("b", "fault:400")))
        by_id = {row["custom_id"]: row for row in rows(bucket)}
        assert by_id.keys() == {"a", "b"}
        assert by_id["a"]["status"] == ""
        assert by_id["a"]["request"] == line("a", "Why?")["request"]
        assert "Why?" in text(by_id["a"]["response"])
        assert by_id["b"]["status"].startswith('Bad Request: {"error":')
        assert by_id["b"]["response"] == {}

    def test_many_rows_are_in_shards(self, sandbox: Sandbox, vertex: genai.Client, bucket: Any) -> None:
        finish(sandbox, vertex, create(vertex, bucket, *(line(f"k{n}") for n in range(50))))
        assert len(list(bucket.client.list_blobs(bucket, prefix="job-out/"))) == 3
        assert {row["custom_id"] for row in rows(bucket)} == {f"k{n}" for n in range(50)}

    def test_a_missing_input_fails_the_job_and_not_the_create(
        self, sandbox: Sandbox, vertex: genai.Client
    ) -> None:
        job = vertex.batches.create(
            model=MODEL,
            src="gs://bucket/none.jsonl",
            config=types.CreateBatchJobConfig(dest="gs://bucket/out"),
        )
        ended = finish(sandbox, vertex, job)
        assert ended.state is types.JobState.JOB_STATE_FAILED
        assert ended.error
        assert ended.error.code == 9

    @pytest.mark.parametrize(
        "more",
        [
            {"tools": [{"googleSearch": {}}]},
            {"generationConfig": {"responseJsonSchema": {"$defs": {"a": {"type": "string"}}}}},
            {"generationConfig": {"responseSchema": {"type": ["string", "null"]}}},
        ],
    )
    def test_one_request_that_cannot_be_imported_fails_the_job(
        self, sandbox: Sandbox, vertex: genai.Client, bucket: Any, more: dict[str, Any]
    ) -> None:
        ended = finish(sandbox, vertex, create(vertex, bucket, line("a"), line("b", **more)))
        assert ended.error
        assert ended.error.code == 3
        assert "Failed to import data" in (ended.error.message or "")

    def test_list_is_filtered_paged_and_of_one_location(
        self, sandbox: Sandbox, vertex: genai.Client, bucket: Any
    ) -> None:
        names = [create(vertex, bucket, line("a"), name=f"job-{n}").name for n in range(5)]
        listed = vertex.batches.list(config=types.ListBatchJobsConfig(page_size=2))
        assert [job.name for job in listed] == names[::-1]
        wanted = types.ListBatchJobsConfig(filter='display_name="job-3"')
        assert [job.name for job in vertex.batches.list(config=wanted)] == [names[3]]
        with client_of(sandbox, location="global") as other:
            assert list(other.batches.list()) == []

    def test_cancelled_and_deleted(self, sandbox: Sandbox, vertex: genai.Client, bucket: Any) -> None:
        job = create(vertex, bucket, *(line(f"k{n}") for n in range(20)))
        assert job.name
        sandbox.clock.advance(0.3)
        vertex.batches.cancel(name=job.name)
        assert raw(sandbox, f"/v1/{job.name}")["state"] == "JOB_STATE_CANCELLING"
        assert finish(sandbox, vertex, job).state is types.JobState.JOB_STATE_CANCELLED
        assert 0 < len(rows(bucket)) < 20
        with pytest.raises(errors.ClientError):
            vertex.batches.cancel(name=job.name)
        vertex.batches.delete(name=job.name)
        with pytest.raises(errors.ClientError) as caught:
            vertex.batches.get(name=job.name)
        assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")

    def test_model_or_token_that_is_not_known(self, sandbox: Sandbox, vertex: genai.Client) -> None:
        with pytest.raises(errors.ClientError) as caught:
            vertex.models.generate_content(model="unknown-model", contents="Hi.")
        assert caught.value.code == 404
        invalid = {"authorization": "Bearer invalid"}
        url = f"{sandbox.base_url('vertex')}/v1/projects/acme/locations/l/batchPredictionJobs"
        found = httpx.get(url, headers=invalid, trust_env=False)
        assert (found.status_code, found.json()["error"]["status"]) == (401, "UNAUTHENTICATED")

    def test_realtime_answers_at_once_and_streams(self, sandbox: Sandbox, vertex: genai.Client) -> None:
        assert "Hi." in (vertex.models.generate_content(model=MODEL, contents="Hi.").text or "")
        chunks = vertex.models.generate_content_stream(model=MODEL, contents="Hi.")
        assert "Hi." in "".join(chunk.text or "" for chunk in chunks)
        assert sandbox.ledger().totals.n_realtime == 2

    def test_every_row_of_a_job_whose_output_comes_late_is_there_in_the_end(
        self, sandbox: Sandbox, vertex: genai.Client, bucket: Any
    ) -> None:
        sandbox.speeds.set({"*": 10.0})
        sandbox.faults.add(faults.LateFileIds(seconds=60.0))
        job = create(vertex, bucket, *(line(f"r{number}") for number in range(6)))
        assert finish(sandbox, vertex, job, 7).state is types.JobState.JOB_STATE_RUNNING
        assert finish(sandbox, vertex, job).state is types.JobState.JOB_STATE_SUCCEEDED
        assert 0 < len(rows(bucket)) < 6
        finish(sandbox, vertex, job, 60)
        assert len(rows(bucket)) == 6


class TestCloudStorage:
    @pytest.mark.parametrize("size", [10, 9 * MIB, 20 * MIB])
    def test_object_is_stored_once_and_read_in_parts(self, bucket: Any, size: int) -> None:
        content = bytes(range(250)) * (size // 250 + 1)
        blob = bucket.blob("a/b c.jsonl", chunk_size=8 * MIB)
        blob.upload_from_string(content, if_generation_match=0, checksum="md5")
        with pytest.raises(PreconditionFailed):
            bucket.blob("a/b c.jsonl").upload_from_string(b"other", if_generation_match=0)
        [listed] = bucket.client.list_blobs(bucket, prefix="a/")
        assert (listed.name, listed.size, listed.generation) == ("a/b c.jsonl", len(content), blob.generation)
        assert bucket.blob("a/b c.jsonl").download_as_bytes(start=3, end=7) == content[3:8]
        assert bucket.blob("a/b c.jsonl").download_as_bytes() == content
        blob.upload_from_string(b"other")
        with pytest.raises(ObjectNotFound):
            bucket.blob("a/b c.jsonl", generation=listed.generation).download_as_bytes()

    def test_nothing_is_read_without_a_token(self, sandbox: Sandbox) -> None:
        with pytest.raises(RefreshError):
            list(bucket_of(f"{sandbox.base_url('vertex')}/gcs", "invalid").list_blobs(retry=None))


PROVIDER = providers.load("vertex")


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:
        yield client


@pytest.fixture
def account(sandbox: Sandbox, http: httpx.AsyncClient) -> Account:
    url = sandbox.base_url("vertex")
    return account_at(url, http, staging_url=f"{url}/gcs")


def account_at(url: str, http: httpx.AsyncClient, **more: Any) -> Account:
    said: dict[str, Any] = {
        "headers": {"authorization": f"Bearer {TOKEN}"},
        "staging": "gs://bucket/run",
        **more,
    }
    return Account(base_url=url, http=http, digest="a" * 20, **said)


def asked(endpoint: str = FORM.endpoint, label: str = "batchling-test-1") -> Submission:
    return submission(label, 1, replace(FORM, endpoint=endpoint))


def lines_of(bodies: dict[str, bytes]) -> io.BytesIO:
    made = (PROVIDER.line(custom_id=one, endpoint=FORM.endpoint, body=b) for one, b in bodies.items())
    return io.BytesIO(b"".join(made))


async def submit(account: Account, wish: Submission, bodies: dict[str, bytes]) -> ProviderBatchId:
    file = await PROVIDER.upload(account, wish, lines_of(bodies))
    return await PROVIDER.create(account, wish, Source(file_id=file))


async def look(account: Account, batch: ProviderBatchId) -> Look:
    look = (await PROVIDER.look(account, [batch]))[batch]
    assert not isinstance(look, Exception)
    return look


async def ended(account: Account, batch: ProviderBatchId) -> Ended:
    found = await look(account, batch)
    assert isinstance(found, Ended), found
    return found


async def answers(account: Account, ending: Ending) -> dict[str, Answer]:
    return {one.custom_id: one async for one in PROVIDER.results(account, ending)}


class TestAdapter:
    @pytest.mark.parametrize(
        "host",
        [
            "us-central1-aiplatform.googleapis.com",
            "europe-west4-aiplatform.googleapis.com",
            "aiplatform.googleapis.com",
            "aiplatform.us.rep.googleapis.com",
            "aiplatform.eu.rep.googleapis.com",
        ],
    )
    def test_calls_of_every_location_are_batched_there(self, host: str) -> None:
        route = Routes().of_host(host)
        assert route is not None
        assert route.provider == "vertex"
        place = route.place(
            f"/v1/projects/p/locations/europe-west4/publishers/google/models/{MODEL}:generateContent"
        )
        assert place == ("/v1/projects/p/locations/europe-west4:generateContent", MODEL)
        assert route.place(f"/v1/publishers/google/models/{MODEL}:generateContent") is None

    def test_a_body_goes_into_its_line_byte_for_byte(self) -> None:
        exotic = (
            '{"contents":[{"parts":[{"text":"\\ud83d\\ude00 é"}]}],"systemInstruction":{"parts":[]},'
            '"tools":[{"functionDeclarations":[{"name":"f"}]}],"labels":{"team":"x"},"generationConfig":{"seed":1.0e0}}'
        ).encode()
        made = PROVIDER.line(custom_id=ID, endpoint=FORM.endpoint, body=exotic)
        assert made == b'{"custom_id":"%b","request":%b}\n' % (ID.encode(), exotic)

    async def test_a_job_is_looked_at_and_read_under_its_own_version_and_location(
        self, sandbox: Sandbox, account: Account
    ) -> None:
        places = ("/v1/projects/acme/locations/europe-west4", "/v1beta1/projects/acme/locations/global")
        batches = [
            await submit(
                account, asked(f"{place}:generateContent", f"batchling-test-{n}"), {ID: body("Why?", MODEL)}
            )
            for n, place in enumerate(places)
        ]
        assert batches[0].startswith("v1/projects/715812345678/locations/europe-west4/")
        assert batches[1].startswith("projects/715812345678/locations/global/")
        looks = await PROVIDER.look(account, batches)
        assert {one: type(found) for one, found in looks.items()} == dict.fromkeys(batches, Running)
        sandbox.clock.advance(60)
        for batch in batches:
            found = await answers(account, (await ended(account, batch)).ending)
            assert "Why?" in text(json.loads(found[ID].body))

    async def test_rows_are_read_from_every_shard(self, sandbox: Sandbox, account: Account) -> None:
        bodies = {f"k{n}": body(f"Question {n}?", MODEL) for n in range(50)}
        batch = await submit(account, asked(), bodies)
        sandbox.clock.advance(60)
        found = await answers(account, (await ended(account, batch)).ending)
        assert found.keys() == bodies.keys()
        assert {one.status for one in found.values()} == {200}

    async def test_rows_that_are_done_are_read_while_the_job_runs(
        self, sandbox: Sandbox, account: Account
    ) -> None:
        sandbox.speeds.set({"*": 10.0})
        bodies = {f"k{n}": body(f"Question {n}?", MODEL) for n in range(50)}
        batch = await submit(account, asked(), bodies)
        assert (await self._running(account, batch)).early is None
        seen: list[int] = []
        for _ in range(2):
            sandbox.clock.advance(3.5)
            early = (await self._running(account, batch)).early
            assert early is not None
            found = await answers(account, early)
            assert {one.status for one in found.values()} == {200}
            seen.append(len(found))
        assert 0 < seen[0] < seen[1] < 50

    @staticmethod
    async def _running(account: Account, batch: ProviderBatchId) -> Running:
        found = await look(account, batch)
        assert isinstance(found, Running), found
        return found

    async def test_an_upload_is_done_once_and_never_over_another(
        self, sandbox: Sandbox, account: Account, bucket: Any
    ) -> None:
        lines = lines_of({ID: body("Why?", MODEL)})
        lines.seek(5)
        file = await PROVIDER.upload(account, asked(), lines)
        assert file.startswith("gs://bucket/run/batchling-test-1/")
        assert await PROVIDER.upload(account, asked(), lines) == file
        other = lines_of({ID: body("Who?", MODEL)})
        assert await PROVIDER.upload(account, asked(), other) != file
        [blob] = [one for one in bucket.list_blobs() if f"gs://bucket/{one.name}" == file]
        assert blob.download_as_bytes() == lines.getvalue()

    async def test_outputs_of_two_submissions_never_meet(self, sandbox: Sandbox, account: Account) -> None:
        batches = [
            await submit(account, asked(label=f"batchling-test-{n}"), {f"k{n}": body("Why?", MODEL)})
            for n in range(2)
        ]
        sandbox.clock.advance(60)
        for n, batch in enumerate(batches):
            assert (await answers(account, (await ended(account, batch)).ending)).keys() == {f"k{n}"}

    async def test_a_failed_import_gives_all_requests_the_providers_message(
        self, sandbox: Sandbox, account: Account
    ) -> None:
        bad = json.dumps({**json.loads(body("Why?", MODEL)), "tools": [{"googleSearch": {}}]}).encode()
        batch = await submit(account, asked(), {"k0": body("Why?", MODEL), "k1": bad})
        sandbox.clock.advance(60)
        found = await ended(account, batch)
        assert (found.outcome, found.ending.status) == (Outcome.FAILED, 400)
        with pytest.raises(errors.ClientError, match="Failed to import data"):
            errors.APIError.raise_error(found.ending.status, json.loads(found.ending.body), None)

    async def test_a_missing_bucket_setting_is_a_clear_error(self, account: Account) -> None:
        for staging, words in (("", "vertex_gcs_prefix"), ("s3://bucket", "not a Cloud Storage URL")):
            with pytest.raises(PermanentError, match=words):
                await submit(replace(account, staging=staging), asked(), {ID: body("Why?", MODEL)})

    async def test_a_full_quota_is_no_refusal(self, sandbox: Sandbox, account: Account) -> None:
        sandbox.faults.add(faults.RefuseCreate(status=429, message="Quota exceeded for online prediction."))
        with pytest.raises(QuotaFull):
            await submit(account, asked(), {ID: body("Why?", MODEL)})

    async def test_the_workers_own_credential_is_used_for_every_call_where_settings_say_so(
        self, sandbox: Sandbox, account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        own = replace(account, headers={}, own_credential=True)
        monkeypatch.setattr("batchling_worker.providers.vertex._own", cloud_storage.OwnCredential())
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
        with pytest.raises(PermanentError, match="Application Default Credentials") as caught:
            await submit(own, asked(), {ID: body("Why?", MODEL)})
        assert caught.value.status == 401
        monkeypatch.setattr("google.auth.default", lambda scopes: (Credentials(token=TOKEN), "acme"))
        batch = await submit(own, asked(), {ID: body("Why?", MODEL)})
        sandbox.clock.advance(60)
        assert (await answers(own, (await ended(own, batch)).ending)).keys() == {ID}
        await PROVIDER.cancel(own, batch)
        # The same account as the token's, so the same owner.
        assert isinstance(await look(account, batch), Ended)

    async def test_a_token_that_has_run_out_is_refused_and_nowhere_repeated(
        self, sandbox: Sandbox, account: Account
    ) -> None:
        stale = replace(account, headers={"authorization": "Bearer invalid-ya29.stale"})
        ending = Ending(results=("gs://bucket/run/batchling-test-1/output/prediction-model-1",))
        lines = lines_of({ID: body("Why?", MODEL)})
        for call in (
            lambda: PROVIDER.upload(stale, asked(), lines),
            lambda: PROVIDER.create(stale, asked(), Source(file_id="gs://bucket/run/x.jsonl")),
            lambda: answers(stale, ending),
        ):
            with pytest.raises(PermanentError) as caught:
                await call()
            assert caught.value.status == 401
            assert "ya29" not in f"{caught.value!r} {caught.value.body!r}"
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None

    async def test_results_that_are_not_there_yet_are_waited_for(self, account: Account) -> None:
        with pytest.raises(Denied):
            await answers(account, Ending(results=("gs://bucket/run/none",)))

    @pytest.mark.parametrize(
        ("status", "expected", "message"),
        [
            ('Bad Request: {"error":{"code":400,"message":"No.","status":"INVALID_ARGUMENT"}}', 400, "No."),
            ('Oh: {"code":8,"message":"Full."}', 429, "Full."),
            ("Too Many Requests: slow down", 429, "Too Many Requests: slow down"),
            ("RESOURCE_EXHAUSTED: slow down", 429, "RESOURCE_EXHAUSTED: slow down"),
            ("Deadline exceeded", 504, "Deadline exceeded"),
            ("Bad Request: {broken", 400, "Bad Request: {broken"),
            ("What?", 500, "What?"),
        ],
    )
    async def test_texts_of_failed_rows_become_the_sdks_own_exceptions(
        self, account: Account, bucket: Any, status: str, expected: int, message: str
    ) -> None:
        found = await self._read(account, bucket, {"custom_id": ID, "status": status, "response": {}})
        assert found[ID].status == expected
        kind = errors.ClientError if expected < 500 else errors.ServerError
        with pytest.raises(kind) as caught:
            errors.APIError.raise_error(found[ID].status, json.loads(found[ID].body), None)
        assert caught.value.message == message

    async def test_rows_that_never_ran_or_lack_an_id_are_not_answers(
        self, account: Account, bucket: Any
    ) -> None:
        found = await self._read(
            account,
            bucket,
            {"custom_id": "a", "request": {}},
            {"custom_id": "b", "status": "", "response": {}},
            {"custom_id": 7, "status": "", "response": {"x": 1}},
            {"status": "", "response": {"x": 1}},
            {"custom_id": "c", "status": "", "response": {"x": 1}},
        )
        assert {one: (said.status, said.origin) for one, said in found.items()} == {
            "a": (503, "batch_row_lost"),
            "b": (200, "provider"),
            "c": (200, "provider"),
        }

    async def test_an_answer_in_a_text_is_taken_out_and_another_text_is_not_lost(
        self, account: Account, bucket: Any
    ) -> None:
        told = json.dumps({"candidates": []})
        rows = ({"custom_id": one, "response": text} for one, text in (("a", told), ("b", "no JSON")))
        found = await self._read(account, bucket, *rows)
        assert {one: said.body for one, said in found.items()} == {"a": told.encode(), "b": b'"no JSON"'}
        assert {said.origin for said in found.values()} == {"provider"}

    @staticmethod
    async def _read(account: Account, bucket: Any, *lines: dict[str, Any]) -> dict[str, Answer]:
        bucket.blob("run/out/predictions_00001.jsonl").upload_from_string(jsonl(*lines))
        bucket.blob("run/out/manifest.json").upload_from_string(b"not a row\n")
        return await answers(account, Ending(results=("gs://bucket/run/out",)))

    @pytest.mark.parametrize(
        ("job", "expected"),
        [
            ({"state": "JOB_STATE_PARTIALLY_SUCCEEDED"}, Outcome.COMPLETED),
            ({"state": "JOB_STATE_EXPIRED"}, Outcome.EXPIRED),
            (
                {"state": "JOB_STATE_FAILED", "error": {"code": 7, "message": "No right to the bucket."}},
                Outcome.FAILED,
            ),
            ({"state": "JOB_STATE_PAUSED"}, None),
            ({"state": "JOB_STATE_UPDATING"}, None),
            ({"state": "JOB_STATE_CANCELLING"}, None),
            ({"completionStats": {"incompleteCount": "-1"}}, None),
            ({}, None),
        ],
    )
    async def test_every_state_is_understood(
        self, http: httpx.AsyncClient, job: dict[str, Any], expected: Outcome | None
    ) -> None:
        name = ProviderBatchId("projects/1/locations/l/batchPredictionJobs/7")
        async with Wire() as wire:
            wire.reply = lambda seen: answer(json.dumps({"name": name, **job}).encode())
            found = await look(account_at(wire.url, http), name)
        assert (found.outcome if isinstance(found, Ended) else None) is expected
        if isinstance(found, Ended) and expected is Outcome.FAILED:
            assert found.ending.status == 403


class TestWithAnEmulatorOfOthers:
    """The library's calls against gcp-storage-emulator, an independent implementation without preconditions."""

    @pytest.fixture
    def emulator(self) -> Iterator[str]:
        server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
        server.start()
        try:
            yield f"http://127.0.0.1:{server._api._httpd.server_port}"
        finally:
            server.stop()

    async def test_objects_are_stored_listed_and_read_in_pieces(
        self, emulator: str, http: httpx.AsyncClient
    ) -> None:
        objects = Objects(account_at(emulator, http, staging_url=emulator), "vertex", TOKEN)
        content = bytes(range(250)) * (18 * MIB // 250)
        place = Place("bucket", "run").below("label", "input.jsonl")
        await objects.upload(place, io.BytesIO(content), len(content))
        await objects.upload(Place("bucket", "running/other"), io.BytesIO(b"x"), 1)
        [found] = await objects.below(Place("bucket", "run"))
        assert (found.name, found.size) == ("run/label/input.jsonl", len(content))
        pieces = [piece async for piece in objects.pieces(found)]
        assert b"".join(pieces) == content
        assert max(map(len, pieces)) == cloud_storage.CHUNK
        with pytest.raises(TemporaryError):
            [piece async for piece in objects.pieces(replace(found, name="run/none"))]
