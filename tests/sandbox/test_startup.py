"""Every Python process of a rehearsal takes part in it, whether or not its program uses batchling."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from batchling_client.wire.deployment.rehearsing import HOSTS, SAID, STARTUP
from batchling_worker.sandbox import Sandbox, environment

from .processes import MISTRAL, POST, rehearsed, run


class TestCalls:
    def test_a_program_without_batchling_reaches_the_sandbox_whatever_host_and_key_it_names(
        self, sandbox: Sandbox
    ) -> None:
        program = (
            POST + f"import httpx; post(httpx, '{MISTRAL}'); post(httpx, 'https://llm.invalid/v1/responses')"
        )
        assert run(program, rehearsed(sandbox)) == ("200 False\n403 True\n", "")
        [call] = sandbox.ledger().realtime
        assert call.provider == "mistral"

    def test_calls_that_no_library_intercepts_are_refused(self, sandbox: Sandbox) -> None:
        program = """
import http.client, httpx, socket, urllib.request
for call in (
    lambda: socket.create_connection(("api.openai.com", 443)),
    lambda: http.client.HTTPSConnection("my-own.openai.azure.com").request("POST", "/"),
    lambda: urllib.request.urlopen(urllib.request.Request("https://llm.invalid/v1/chat/completions", b"{}")),
):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, "was not sent" in str(error))
"""
        assert run(program, rehearsed(sandbox)) == ("RequestRefused True\n" * 3, "")
        assert sandbox.ledger().realtime == []


class TestProcesses:
    def test_batchling_is_imported_with_the_first_http_library_and_not_before(self, sandbox: Sandbox) -> None:
        program = """
import sys
before = "batchling_client" in sys.modules
import requests
print(before, "batchling_client" in sys.modules, [one for one in sys.path if "startup" in one])
"""
        assert run(program, rehearsed(sandbox)) == ("False True []\n", "")

    @pytest.mark.parametrize("fails", [False, True])
    def test_the_next_sitecustomize_runs_too(self, sandbox: Sandbox, tmp_path: Path, fails: bool) -> None:
        own = tmp_path / "sitecustomize.py"
        own.write_text("WHOSE = 'own'\nimport httpx\n" + ("raise ValueError('own error')\n" if fails else ""))
        env = rehearsed(sandbox, PYTHONPATH=str(tmp_path))
        program = POST + f"import httpx; post(httpx, '{MISTRAL}')"
        if not fails:
            program += "\nimport sitecustomize; print(sitecustomize.WHOSE, sitecustomize.__file__)"
        out, err = run(program, env)
        assert out.startswith("200 False\n")
        assert out.endswith("" if fails else f"own {own}\n")
        assert ("own error" in err) is fails

    def test_a_variable_of_the_user_is_kept_behind_the_folder(self, sandbox: Sandbox) -> None:
        told = environment.variables(sandbox.url, (), {"PYTHONPATH": "/own"})
        assert told["PYTHONPATH"] == f"{STARTUP}{os.pathsep}/own"
        assert environment.variables(sandbox.url)["PYTHONPATH"] == str(STARTUP)


class TestWithoutBatchling:
    """A Python without batchling, with an HTTP library of its own."""

    PROGRAM = """
import socket, urllib3
for host in ("api.openai.com", b"my-own.openai.azure.com", "API.GROQ.COM."):
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        print(type(error).__name__, "was not sent" in str(error))
print(socket.getaddrinfo("127.0.0.1", 80)[0][4][0])
"""

    @pytest.fixture
    def env(self, sandbox: Sandbox, tmp_path: Path) -> dict[str, str]:
        (tmp_path / "libraries").mkdir()
        (tmp_path / "libraries" / "urllib3.py").write_text("")
        (tmp_path / SAID).mkdir()
        own = rehearsed(sandbox, PYTHONPATH=str(tmp_path / "libraries"))
        return {**own, "BATCHLING_HOME": str(tmp_path)}

    @pytest.fixture
    def python(self) -> str:
        base: Any = getattr(sys, "_base_executable", None)
        return str(base or sys.executable)

    def test_it_runs_with_one_notice_and_connects_to_no_provider(
        self, env: dict[str, str], python: str, tmp_path: Path
    ) -> None:
        out, err = run(self.PROGRAM, env, python=python, cwd=tmp_path)
        assert out == "PermissionError True\n" * 3 + "127.0.0.1\n"
        assert err.count("has no batchling") == 1
        assert err.count("was not sent") == 3, "once for each host"
        again, err = run(self.PROGRAM, env, python=python, cwd=tmp_path)
        assert again == out
        assert "has no batchling" not in err, "one process of a rehearsal says it for all"

    def test_batchling_that_cannot_be_imported_does_not_break_the_program(
        self, env: dict[str, str], python: str, tmp_path: Path
    ) -> None:
        (tmp_path / "libraries" / "batchling_client.py").write_text("raise RuntimeError('old')")
        out, err = run(self.PROGRAM, env, python=python, cwd=tmp_path)
        assert out == "PermissionError True\n" * 3 + "127.0.0.1\n"
        assert "cannot import batchling (RuntimeError: old)" in err


def test_the_hosts_of_every_provider_are_named() -> None:
    own = {"OWN": "https://llm.example/v1", "NEAR": "http://127.0.0.1:8000/v1"}
    settings = {f"BATCHLING_PROVIDERS__{name}__BASE_URL": url for name, url in own.items()}
    told = environment.variables("http://127.0.0.1:1", (), settings)[HOSTS].split(",")
    assert {"api.openai.com", "*.openai.azure.com", "bedrock-mantle.*.api.aws", "llm.example"} <= set(told)
    assert "127.0.0.1" not in told
