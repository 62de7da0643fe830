"""Bedrock: jobs are made in the region of the call, over the same kind of endpoint, with the body of the call's API."""

from __future__ import annotations

import json

import boto3
import httpx
import pytest
from botocore.config import Config

from batchling_client.intercept.interceptor import PASS_THROUGH
from batchling_client.session.calls import Calls, Request
from batchling_client.session.lanes import Terms
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.routes import Routes
from batchling_worker.provider import Account
from batchling_worker.providers import bedrock
from batchling_worker.sandbox import Sandbox
from tests.client.asking import a_call

CHAT = "/openai/v1/chat/completions"
HOST = "bedrock-runtime.us-west-2.amazonaws.com"
GPT = "openai.gpt-oss-20b-1:0"


async def neighbours(base_url: str) -> tuple[str, str]:
    """Where jobs are made for calls to a host, and where their files lie."""
    async with httpx.AsyncClient() as http:
        account = Account(
            base_url=base_url, headers={"x-aws-credentials": "AKIA:secret"}, http=http, digest="d"
        )
        return (
            bedrock._bedrock(account).meta.endpoint_url,
            bedrock._s3(account).meta.endpoint_url,
        )


@pytest.mark.parametrize(
    ("called", "jobs", "files"),
    [
        ("bedrock-runtime.eu-west-1.amazonaws.com", "bedrock.eu-west-1.amazonaws.com", "s3.eu-west-1"),
        (
            "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
            "bedrock-fips.us-gov-west-1.amazonaws.com",
            "s3-fips.us-gov-west-1",
        ),
        ("bedrock-runtime.us-west-2.api.aws", "bedrock.us-west-2.api.aws", "s3.dualstack.us-west-2"),
        (
            "bedrock-runtime-fips.us-west-2.api.aws",
            "bedrock-fips.us-west-2.api.aws",
            "s3-fips.dualstack.us-west-2",
        ),
        (
            "bedrock-runtime.cn-north-1.amazonaws.com.cn",
            "bedrock.cn-north-1.amazonaws.com.cn",
            "s3.cn-north-1",
        ),
    ],
)
async def test_jobs_are_made_beside_the_host_that_was_called(called: str, jobs: str, files: str) -> None:
    of_jobs, of_files = await neighbours(f"https://{called}")
    assert of_jobs == f"https://{jobs}"
    assert of_files.startswith(f"https://{files}.")


async def test_a_stand_in_is_called_as_it_is_named() -> None:
    assert (await neighbours("http://127.0.0.1:9/bedrock"))[0] == "http://127.0.0.1:9/bedrock"


def read(host: str, path: str, model: str, authorization: str = "Bearer key") -> object:
    calls = Calls(Terms(run_id=new_run_id(), run_name=""), Routes())
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}).encode()
    return calls.read(a_call(host=host, path=path, body=body, headers={"authorization": authorization}))


def test_chat_completions_of_openais_models_are_batched_and_of_others_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = read(HOST, CHAT, GPT)
    assert isinstance(request, Request)
    spec = request.lane.spec
    assert (spec.provider, spec.host, spec.model) == ("bedrock", HOST, GPT)
    assert bedrock.KINDS[spec.endpoint] == "InvokeModel"
    assert not caplog.records
    assert read(HOST, CHAT, "deepseek.v3-v1:0") is PASS_THROUGH
    assert "full price" in caplog.text
    assert "deepseek.v3-v1:0" in caplog.text


def test_a_signed_call_is_batched_by_workers_at_bedrock_and_passes_elsewhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    signature = "AWS4-HMAC-SHA256 Credential=AKIA/20261129/us-west-2/x/aws4_request, Signature=CANARY"
    assert isinstance(read(HOST, CHAT, GPT, signature), Request)
    aws = "aws-external-anthropic.us-west-2.api.aws"
    assert read(aws, "/v1/messages", "claude", signature) is PASS_THROUGH
    assert f"A call to {aws} is signed" in caplog.text
    assert "CANARY" not in caplog.text


def test_openais_models_answer_a_job_with_chat_completions(sandbox: Sandbox) -> None:
    config = Config(retries={"total_max_attempts": 1}, request_checksum_calculation="when_required")
    base_url = sandbox.base_url("bedrock")
    jobs, s3 = (
        boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id="AKIAONE",
            aws_secret_access_key="secret",
            config=config,
        )
        for service, url in (("bedrock", base_url), ("s3", f"{base_url}/s3"))
    )
    body = {"model": GPT, "messages": [{"role": "user", "content": "Question?"}]}
    lines = [
        bedrock.PROVIDER.line(custom_id=f"rec{i:07d}", endpoint=CHAT, body=json.dumps(body).encode())
        for i in range(100)
    ]
    s3.put_object(Bucket="bucket", Key="in/x.jsonl", Body=b"".join(lines))
    jobs.create_model_invocation_job(
        jobName="j",
        roleArn="arn:aws:iam::123456789012:role/batch",
        modelId=GPT,
        clientRequestToken="j",
        modelInvocationType=bedrock.KINDS[CHAT],
        inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://bucket/in/x.jsonl"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://bucket/out/"}},
    )
    sandbox.clock.advance(600.0)
    [_] = jobs.list_model_invocation_jobs(statusEquals="Completed")["invocationJobSummaries"]
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket="bucket", Prefix="out/")["Contents"]]
    [results] = [key for key in keys if key.endswith("x.jsonl.out")]
    first = json.loads(s3.get_object(Bucket="bucket", Key=results)["Body"].read().splitlines()[0])
    assert first["modelOutput"]["object"] == "chat.completion"
