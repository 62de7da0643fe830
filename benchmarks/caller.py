"""The measured program: many requests at once through AsyncGroq, answered in one of three ways.

It runs under two virtual environments, so it imports nothing but the standard library, groq with its httpx, and the
`batchling` of the environment it runs in; it is started by path and prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import enum
import importlib
import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
from groq import AsyncGroq

MODEL = "llama-3.1-8b-instant"
POLL_S = 0.1
WINDOW_S = 2.0


class _Memory(httpx.AsyncBaseTransport):
    """A transport that answers at once at the least cost: what remains is the work of the SDK and its HTTP library."""

    def __init__(self) -> None:
        message = {"role": "assistant", "content": "A queue walked into a bar: I will wait. (Asked: ?)"}
        body = {
            "id": "chatcmpl-0123456789abcdef01234567",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 12, "completion_tokens": 24, "total_tokens": 36},
            "system_fingerprint": "fp_memory",
        }
        self._before, _, self._after = json.dumps(body).encode().partition(b"?")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = request.content.partition(b'"content":"')[2].partition(b'"')[0]
        body = b"%b%b%b" % (self._before, asked, self._after)
        return httpx.Response(200, headers={"content-type": "application/json"}, content=body)


def _block(n: int) -> AbstractAsyncContextManager[Any]:
    # Two packages have this name; the environment decides which one it is, so neither is imported above.
    block: AbstractAsyncContextManager[Any] = importlib.import_module("batchling").batchify(
        batch_size=n,
        batch_window_seconds=WINDOW_S,
        batch_poll_interval_seconds=POLL_S,
        cache=False,
        live_display=False,
    )
    return block


def _upstream(n: int, base_url: str) -> AbstractAsyncContextManager[Any]:
    """Return upstream at its best setting, with its calls to https://api.groq.com sent to `base_url`.

    Only the code that makes an address of a host name is replaced; everything else is upstream's own.
    """
    if sys.version_info < (3, 12):
        # Upstream tests `"completed" in SomeStrEnum`, which accepts values only since 3.12: on 3.11, which it declares
        # to support, the first poll raises TypeError. This gives 3.11 the result of 3.12.
        _let_enums_hold_values()
    groq = importlib.import_module("batchling.providers.groq")
    groq.GroqProvider._normalize_base_url = lambda self, *, url: base_url
    return _block(n)


def _let_enums_hold_values() -> None:
    by_member = enum.EnumMeta.__contains__

    def contains(cls: Any, value: object) -> bool:
        if isinstance(value, enum.Enum):
            return by_member(cls, value)
        return any(member.value == value for member in cls)

    setattr(enum.EnumMeta, "__contains__", contains)  # noqa: B010 - a method of a builtin class, as typed


def peak_rss_mib() -> float:
    """Return the peak memory of this process, in MiB."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # ru_maxrss survives an exec, so it may be the peak of the program that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _measure(
    block: AbstractAsyncContextManager[Any], sdk: AsyncGroq, prompts: Sequence[str]
) -> dict[str, float]:
    """Measure one block with one gather, from before it is entered until it is left."""

    async def ask(prompt: str) -> str:
        answer = await sdk.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}]
        )
        return answer.choices[0].message.content or ""

    rss_before_mib = peak_rss_mib()
    cpu_before_s, started_s = _cpu_s(), time.perf_counter()
    async with block:
        answers = await asyncio.gather(*(ask(prompt) for prompt in prompts), return_exceptions=True)
    wall_s, cpu_s = time.perf_counter() - started_s, _cpu_s() - cpu_before_s
    n_right = sum(
        isinstance(answer, str) and answer.endswith(f"(Asked: {prompt})")
        for prompt, answer in zip(prompts, answers, strict=True)
    )
    wrong = next((answer for answer in answers if isinstance(answer, BaseException)), None)
    if wrong is not None:
        sys.stderr.write(f"{type(wrong).__name__}: {wrong}\n")
    return {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "rss_mib": peak_rss_mib(),
        "rss_before_mib": rss_before_mib,
        "n_right": n_right,
    }


async def _run(way: str, n: int, base_url: str) -> dict[str, float]:
    prompts = [f"Tell me joke number {number} about queues." for number in range(n)]
    block: AbstractAsyncContextManager[Any] = contextlib.nullcontext()
    http = None
    if way == "floor":
        http = httpx.AsyncClient(transport=_Memory())
    elif way == "ours":
        block = _block(n)
    else:
        block = _upstream(n, base_url)
    # The SDK's own retries would hide errors of the block.
    async with AsyncGroq(api_key="gsk-benchmark", http_client=http, max_retries=0) as sdk:
        return await _measure(block, sdk, prompts)


def main() -> None:
    """Send the requests, and print what they took as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=("floor", "ours", "upstream"))
    parser.add_argument("n", type=int)
    parser.add_argument("--base-url", default="")
    options = parser.parse_args()
    figures: dict[str, Any] = {**asyncio.run(_run(options.way, options.n, options.base_url))}
    figures["groq"] = importlib.metadata.version("groq")
    if options.way != "floor":
        figures["batchling"] = importlib.metadata.version("batchling")
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
