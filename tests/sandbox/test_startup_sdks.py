"""In a rehearsal the official SDKs and child processes reach the sandbox, whatever host they name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from batchling_worker.sandbox import Sandbox

from .processes import BODY, KEY, KEYS, MISTRAL, WITHIN_S, rehearsed, run


class TestCalls:
    def test_every_library_reaches_the_sandbox(self, sandbox: Sandbox) -> None:
        program = f"""
import asyncio, urllib3
print(urllib3.request("POST", "{MISTRAL}", json={BODY!r}, headers={KEYS!r}).status)
import requests
print(requests.post("{MISTRAL}", json={BODY!r}, headers={KEYS!r}).status_code)
import httpx2
print(httpx2.post("{MISTRAL}", json={BODY!r}, headers={KEYS!r}).status_code)
import aiohttp
async def main():
    async with aiohttp.ClientSession(headers={KEYS!r}) as session:
        async with session.post("{MISTRAL}", json={BODY!r}) as answer:
            print(answer.status)
asyncio.run(main())
"""
        assert run(program, rehearsed(sandbox)) == ("200\n" * 4, "")
        assert len(sandbox.ledger().realtime) == 4

    def test_official_sdks_that_read_no_base_url_reach_the_sandbox(self, sandbox: Sandbox) -> None:
        program = """
import asyncio, boto3, openai
from google import genai
from mistralai.client import Mistral
asked = [{"role": "user", "content": "q"}]
said = [
    Mistral(api_key="sk-CANARY").chat.complete(model="m", messages=asked).choices[0].message.content,
    openai.OpenAI(base_url="https://api.openai.com/v1", api_key="sk-CANARY")
    .chat.completions.create(model="m", messages=asked).choices[0].message.content,
]
google = genai.Client(
    api_key="sk-CANARY", http_options={"base_url": "https://generativelanguage.googleapis.com"}
)
said.append(google.models.generate_content(model="gemini-m", contents="q").text)
said.append(asyncio.run(google.aio.models.generate_content(model="gemini-m", contents="q")).text)
aws = boto3.client("bedrock-runtime", region_name="eu-west-1")
asked = [{"role": "user", "content": [{"text": "q"}]}]
said.append(aws.converse(modelId="m", messages=asked)["output"]["message"]["content"][0]["text"])
print(all(said), len(said))
"""
        assert run(program, rehearsed(sandbox)) == ("True 5\n", "")
        assert len(sandbox.ledger().realtime) == 5

    @pytest.mark.parametrize("own", [{}, {"AWS_BEARER_TOKEN_BEDROCK": KEY}, {"AWS_ACCESS_KEY_ID": KEY}])
    def test_the_sdk_of_aws_reaches_the_sandbox_with_any_credential(
        self, sandbox: Sandbox, own: dict[str, str]
    ) -> None:
        program = f"""
import boto3, json
for place in ({{}}, {{"endpoint_url": "https://bedrock-runtime.us-east-1.amazonaws.com"}}):
    aws = boto3.client("bedrock-runtime", region_name="us-east-1", **place)
    answer = aws.invoke_model(modelId="anthropic.claude-m", body=json.dumps({BODY!r}))
    print(json.loads(answer["body"].read())["type"])
"""
        more = {**own, **({"AWS_SECRET_ACCESS_KEY": KEY} if "AWS_ACCESS_KEY_ID" in own else {})}
        assert run(program, {**more, **rehearsed(sandbox, **more)}) == ("message\nmessage\n", "")


class TestProcesses:
    def test_children_take_part(self, sandbox: Sandbox, tmp_path: Path) -> None:
        ask = f"httpx.post('{MISTRAL}', json={BODY!r}, headers={KEYS!r}).status_code"
        test, child = tmp_path / "test_own.py", tmp_path / "child.py"
        test.write_text(f"import httpx\ndef test_own():\n    assert {ask} == 200\n")
        child.write_text(f"import httpx\ndef ask(n):\n    return {ask}\n")
        program = f"""
import multiprocessing, subprocess, sys
sys.path.insert(0, {str(tmp_path)!r})
import child
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(child.ask, [1]))
    words = ["-p", "no:cacheprovider", "-p", "no:randomly", "-q", {str(test)!r}]
    print(subprocess.run([sys.executable, "-m", "pytest", *words], stdout=subprocess.DEVNULL).returncode)
"""
        main = tmp_path / "main.py"
        main.write_text(program)
        done = subprocess.run(
            [sys.executable, str(main)],
            env=rehearsed(sandbox),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.stdout == "[200]\n0\n", done.stderr
        assert len(sandbox.ledger().realtime) == 2
