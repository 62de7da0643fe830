"""Programs in separate processes that take part in a rehearsal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from batchling_worker.sandbox import Sandbox, environment

WITHIN_S = 120
BODY = {"model": "m", "messages": [{"role": "user", "content": "q"}]}
KEY = "sk-CANARY"
KEYS = {"authorization": f"Bearer {KEY}"}
POST = f"""
import json, sys
def post(library, url):
    answer = library.post(url, json={BODY!r}, headers={KEYS!r})
    print(answer.status_code, "batchling" in answer.text or "rehearsal" in answer.text)
"""
MISTRAL = "https://api.mistral.ai/v1/chat/completions"


def rehearsed(sandbox: Sandbox, **more: str) -> dict[str, str]:
    """Return the environment of a program in a rehearsal."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHLING", "AWS_"))}
    return {**kept, **environment.variables(sandbox.url, (), {**kept, **more})}


def run(
    program: str, env: dict[str, str], *, python: str = sys.executable, cwd: Path | None = None
) -> tuple[str, str]:
    """Run a program; return its stdout and stderr."""
    done = subprocess.run(
        [python, "-c", program],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr
