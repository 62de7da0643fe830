"""Bedrock: the sandbox driven by boto3, files in moto's S3, and the known behaviour of the real API."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from urllib3.exceptions import SSLError

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker import providers
from batchling_worker.dialects import aws
from batchling_worker.dialects.aws import Place
from batchling_worker.dialects.http_errors import CallInfo
from batchling_worker.errors import PermanentError
from batchling_worker.pipeline.answer_check import checked
from batchling_worker.provider import Account, Answer, Ending
from batchling_worker.providers import bedrock
from batchling_worker.sandbox import Limits, Sandbox
from batchling_worker.sandbox.world import faults
from tests.form import Ability, Form
from tests.providers.wire import Wire, answer

MODEL = "anthropic.claude-3-5-haiku-20241022-v1:0"


def _body(prompt: str, model: str) -> bytes:
    """Return a body as Anthropic's SDK sends it to Bedrock: the model is in the path."""
    asked = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": prompt}],
    }
    return json.dumps(asked).encode()


def _text(answer: Any) -> str:
    text: str = answer["content"][0]["text"]
    return text


FORM = Form(
    endpoint="/invoke",
    model=MODEL,
    slow_model="anthropic.claude-opus-4-20250514-v1:0",
    body=_body,
    text=_text,
    key=lambda key: f"{key}:secret",
    # Files are in S3, under names instead of ids, and visible to everybody; rows that never ran are in none.
    lacks=frozenset({Ability.OPENAI_FILES, Ability.INPUT_FILE, Ability.RESULT_FILES, Ability.UNDONE_ROWS}),
)
DEED = CallInfo(provider="bedrock", does="do a thing")
ROLE = "arn:aws:iam::123456789012:role/batch"
CONFIG = Config(retries={"total_max_attempts": 1}, request_checksum_calculation="when_required")


def client(sandbox: Sandbox, service: str, key: str = "AKIAONE") -> Any:
    base_url = sandbox.base_url("bedrock")
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=f"{base_url}/s3" if service == "s3" else base_url,
        aws_access_key_id=key,
        aws_secret_access_key="secret",
        config=CONFIG,
    )


def records(n: int) -> bytes:
    return b"".join(
        b'{"recordId":"rec%07d","modelInput":%b}\n' % (i, _body(f"Question {i}?", MODEL)) for i in range(n)
    )


def create(bedrock: Any, name: str = "job-1", **more: Any) -> str:
    wish: dict[str, Any] = {
        "jobName": name,
        "roleArn": ROLE,
        "modelId": MODEL,
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://bucket/in/x.jsonl"}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket/out/"}},
        "clientRequestToken": name,
        **more,
    }
    arn: str = bedrock.create_model_invocation_job(**wish)["jobArn"]
    return arn


@pytest.fixture
def stored(sandbox: Sandbox) -> Sandbox:
    """Store a hundred records in the bucket."""
    client(sandbox, "s3").put_object(Bucket="bucket", Key="in/x.jsonl", Body=records(100))
    return sandbox


def test_a_row_of_results_holds_what_was_asked(stored: Sandbox) -> None:
    bedrock, s3 = client(stored, "bedrock"), client(stored, "s3")
    job_id = create(bedrock).rpartition("/")[2]
    stored.clock.advance(60.0)
    bedrock.list_model_invocation_jobs()
    told = s3.get_object(Bucket="bucket", Key=f"out/{job_id}/x.jsonl.out")["Body"].read().splitlines()
    rows = {one["recordId"]: one["modelInput"] for one in map(json.loads, told)}
    asked = {one["recordId"]: one["modelInput"] for one in map(json.loads, records(100).splitlines())}
    assert rows == asked


def test_jobs_are_listed_by_status_and_time_and_objects_deleted(stored: Sandbox) -> None:
    bedrock, s3 = client(stored, "bedrock"), client(stored, "s3")
    create(bedrock, "one")
    stored.clock.advance(60.0)
    create(bedrock, "two")

    def names(**wanted: Any) -> list[str]:
        found = bedrock.list_model_invocation_jobs(**wanted)["invocationJobSummaries"]
        return [job["jobName"] for job in found]

    assert names(statusEquals="Completed") == ["one"]
    assert names(statusEquals="Failed") == []
    assert names(submitTimeAfter=stored.clock.now() - 30) == ["two"]
    assert names(sortOrder="Ascending", sortBy="CreationTime") == ["one", "two"]
    s3.delete_object(Bucket="bucket", Key="in/x.jsonl")
    with pytest.raises(ClientError):
        s3.get_object(Bucket="bucket", Key="in/x.jsonl")
    s3.put_object(Bucket="bucket", Key="a&b", Body=b"x")
    s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "a&b"}]})
    assert "Contents" not in s3.list_objects_v2(Bucket="bucket", Prefix="a")


def test_a_job_walks_its_states_and_its_results_lie_below_its_id(stored: Sandbox) -> None:
    bedrock, s3 = client(stored, "bedrock"), client(stored, "s3")
    arn = create(bedrock)
    assert bedrock.get_model_invocation_job(jobIdentifier=arn)["status"] == "Validating"
    stored.clock.advance(0.3)
    assert bedrock.get_model_invocation_job(jobIdentifier=arn)["status"] == "InProgress"
    stored.clock.advance(60.0)
    [job] = bedrock.list_model_invocation_jobs(statusEquals="Completed")["invocationJobSummaries"]
    assert (job["jobArn"], job["status"], job["successRecordCount"]) == (arn, "Completed", 100)
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket="bucket", Prefix="out/")["Contents"]]
    job_id = arn.rpartition("/")[2]
    assert keys == [f"out/{job_id}/manifest.json.out", f"out/{job_id}/x.jsonl.out"]
    lines = s3.get_object(Bucket="bucket", Key=keys[1])["Body"].read().splitlines()
    assert len(lines) == 100
    assert "Question" in _text(json.loads(lines[0])["modelOutput"])


def test_the_same_token_makes_no_second_job_and_the_same_name_is_refused(stored: Sandbox) -> None:
    bedrock = client(stored, "bedrock")
    assert create(bedrock) == create(bedrock)
    with pytest.raises(ClientError, match="ConflictException"):
        create(bedrock, clientRequestToken="another")
    assert stored.ledger().totals.n_batches == 1


def test_too_few_records_fail_the_job(sandbox: Sandbox) -> None:
    assert providers.load("bedrock").facts.min_rows == 100
    client(sandbox, "s3").put_object(Bucket="bucket", Key="in/x.jsonl", Body=records(99))
    bedrock = client(sandbox, "bedrock")
    arn = create(bedrock)
    sandbox.clock.advance(60.0)
    job = bedrock.get_model_invocation_job(jobIdentifier=arn)
    assert (job["status"], job["message"]) == ("Failed", "The job has 99 records; the least is 100.")


def test_a_stopped_job_keeps_what_was_done(stored: Sandbox) -> None:
    bedrock = client(stored, "bedrock")
    arn = create(bedrock)
    stored.clock.advance(0.4)
    bedrock.stop_model_invocation_job(jobIdentifier=arn)
    assert bedrock.get_model_invocation_job(jobIdentifier=arn)["status"] == "Stopping"
    stored.clock.advance(5.0)
    assert bedrock.get_model_invocation_job(jobIdentifier=arn)["status"] == "Stopped"
    with pytest.raises(ClientError, match="ConflictException"):
        bedrock.stop_model_invocation_job(jobIdentifier=arn)


def test_a_key_sees_its_own_jobs_and_a_bad_one_nothing(stored: Sandbox) -> None:
    arn = create(client(stored, "bedrock"))
    other = client(stored, "bedrock", "AKIATWO")
    assert other.list_model_invocation_jobs()["invocationJobSummaries"] == []
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        other.get_model_invocation_job(jobIdentifier=arn)
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        client(stored, "bedrock", "invalid").list_model_invocation_jobs()


def answer_in(line: bytes) -> Answer | None:
    return next(bedrock.reader().answers([line]), None)


def test_an_answer_beside_an_empty_error_succeeds() -> None:
    told = {"recordId": "a", "modelOutput": {"content": []}, "error": {"errorCode": 0, "errorMessage": ""}}
    found = answer_in(json.dumps(told).encode())
    assert found is not None
    assert found.status == 200


def test_an_answer_in_a_text_of_json_is_taken_out_and_an_absent_one_is_lost() -> None:
    inner = {"content": [{"type": "text", "text": "hello"}]}
    for told in (inner, json.dumps(inner)):
        found = answer_in(json.dumps({"recordId": "a", "modelOutput": told}).encode())
        assert found is not None
        assert (found.status, json.loads(found.body)) == (200, inner)
    nothing: tuple[dict[str, object], ...] = ({}, {"modelOutput": None})
    for absent in nothing:
        found = answer_in(json.dumps({"recordId": "a", **absent}).encode())
        assert found is not None
        assert found.origin == "batch_row_lost"
    empty: tuple[object, ...] = ({}, "", [])
    for output in empty:
        found = answer_in(json.dumps({"recordId": "a", "modelOutput": output}).encode())
        assert found is not None
        assert checked(found, "/invoke").origin == "batch_answer_unfit", "it was run, and is not run again"


async def test_half_of_a_surrogate_pair_in_a_record_costs_nothing(stored: Sandbox) -> None:
    half = '{"recordId":"CUSTOM_ID","modelOutput":{"content":[{"type":"text","text":"cut \\ud83d"}]}}'
    refusal = '{"recordId":"CUSTOM_ID","error":{"errorCode":400,"errorMessage":"no \\ud83d"}}'
    stored.faults.add(faults.SpoilRows(n=1, lines=(half,)))
    create(client(stored, "bedrock"))
    stored.faults.add(faults.SpoilRows(n=1, lines=(refusal,)))
    create(client(stored, "bedrock"), "job-2")
    stored.clock.advance(60.0)

    async with httpx.AsyncClient() as http:
        account = Account(
            base_url=stored.base_url("bedrock"),
            headers={"x-aws-credentials": "AKIAONE:secret"},
            http=http,
            digest="a",
            staging="s3://bucket/out",
            staging_url=f"{stored.base_url('bedrock')}/s3",
        )
        ending = Ending(results=("s3://bucket/out/",))
        told = [one async for one in providers.load("bedrock").results(account, ending)]

    assert len(told) == 200
    assert sorted(one.status for one in told) == [200] * 199 + [400]
    [spoilt] = [json.loads(one.body) for one in told if b"cut " in one.body]
    assert _text(spoilt) == "cut \ud83d"
    [refused] = [json.loads(one.body) for one in told if one.status == 400]
    assert refused == {"message": "no \ufffd"}


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """Run moto's S3, an independent implementation."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        made = aws.client(
            "s3",
            "us-east-1",
            f"http://{host}:{port}",
            aws.Keys(access_key_id="a", secret_access_key="b"),
            10.0,
        )
        made.create_bucket(Bucket="bucket")
        yield made
    finally:
        server.stop()


async def test_a_file_of_many_parts_is_stored_listed_and_read_as_it_was(s3: Any) -> None:
    content = records(60_000)
    assert len(content) > 9_000_000
    place = Place.read("s3://bucket/batches").below("label", "input.jsonl")
    async with httpx.AsyncClient() as http:
        account = Account(base_url="", headers={}, http=http, digest="a")
        await aws.call(account, DEED, lambda: aws.upload(s3, place, io.BytesIO(content)))
        assert aws.keys_below(s3, Place.read("s3://bucket/batches/label/")) == [place.key]
        read = [piece async for piece in aws.pieces(account, DEED, s3, place.bucket, place.key)]
        assert b"".join(read) == content
        with pytest.raises(PermanentError):
            [piece async for piece in aws.pieces(account, DEED, s3, place.bucket, "nothing")]


def test_keys_are_removed_from_error_messages(sandbox: Sandbox) -> None:
    keys = aws.Keys.read("AKIAONE:top-secret:session")
    assert "top-secret" not in repr(keys)
    for said in ("AKIAONE", "", ":", "AKIAONE:"):
        with pytest.raises(PermanentError) as caught:
            aws.Keys.read(said)
        assert caught.value.status == 401
    assert sandbox.limits == Limits()


class Torn:
    """An object in S3 whose body breaks off once, in the middle, with an error of urllib3."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.n_read = 0

    def get_object(self, *, Range: str = "", **_: str) -> dict[str, Any]:  # noqa: N803 - AWS's spelling
        self.asked.append(Range)
        return {"ETag": "e", "Body": self}

    def read(self, _: int) -> bytes:
        self.n_read += 1
        if self.n_read == 2:
            raise SSLError("decryption failed or bad record mac")
        return {1: b"first ", 3: b"second"}.get(self.n_read, b"")


async def test_a_body_that_breaks_off_with_an_error_of_urllib3_is_read_on() -> None:
    torn = Torn()
    async with httpx.AsyncClient() as http:
        account = Account(base_url="", headers={}, http=http, digest="a")
        read = [piece async for piece in aws.pieces(account, DEED, torn, "bucket", "key")]
    assert (b"".join(read), torn.asked) == (b"first second", ["", "bytes=6-"])


QUOTED = "The Canonical String for this request should have been\n'POST\nx-amz-security-token:{}\n{}'"


@pytest.fixture
def own_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a credential into the worker's environment, and clear what was cached of it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOWN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setattr(aws, "_session", boto3.session.Session)


SECRET, TOKEN = "canary-secret-7d1c", "canary-token-91fe"


@pytest.mark.parametrize(
    "headers", [{}, {"x-aws-credentials": f"AKIAONE:{SECRET}:{TOKEN}"}], ids=["own", "told"]
)
async def test_secrets_are_removed_from_errors_that_quote_the_call(
    own_keys: None, headers: dict[str, str]
) -> None:
    said = {"__type": "InvalidSignatureException", "message": QUOTED.format(TOKEN, SECRET) + "x" * 10_000}
    async with Wire() as wire, httpx.AsyncClient(trust_env=False) as http:
        wire.reply = lambda seen: answer(json.dumps(said).encode(), status=403)
        account = Account(base_url=wire.url, headers=headers, http=http, digest="a", own_credential=True)
        with pytest.raises(PermanentError) as caught:
            await providers.load("bedrock").look(account, [ProviderBatchId("job")])
    assert caught.value.status == 401
    assert "x-amz-security-token:[redacted]" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "headers", [{}, {"x-aws-credentials": f"AKIAONE:{SECRET}:{TOKEN}"}], ids=["own", "told"]
)
async def test_settings_of_aws_that_make_no_client_are_named(
    own_keys: None, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nope")
    async with httpx.AsyncClient(trust_env=False) as http:
        account = Account(
            base_url="https://bedrock-runtime.mars-1.amazonaws.com",
            headers=headers,
            http=http,
            digest="a",
            own_credential=True,
        )
        with pytest.raises(PermanentError, match="AWS_PROFILE") as caught:
            await providers.load("bedrock").look(account, [ProviderBatchId("job")])
    assert caught.value.status == 401
    assert "ProfileNotFound" in str(caught.value)
    assert SECRET not in str(caught.value)
