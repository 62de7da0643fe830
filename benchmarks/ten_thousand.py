"""Ten thousand requests through AsyncGroq and a one-second batch: upstream, ours, and the SDK alone.

The three take turns in one run against one sandbox. Other work on the machine only adds to a time, so ratios and
targets use the best runs; medians are printed, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from . import upstream
from .figures import Cell, Report, Target, median
from .stand import PATIENCE_S, Sandbox, Stack, clean_environment, cpu_s, embedded_stack

CALLER: Final = Path(__file__).with_name("caller.py")
BATCH_S: Final = 1.0
WAYS: Final = ("upstream", "ours", "floor")
MOST_US: Final = 120.0
"""Microseconds of client CPU per request, beyond what the SDK itself takes."""

Figures: TypeAlias = dict[str, Any]


def measure(n: int = 10_000, n_runs: int = 3) -> Report:
    """Run each way `n_runs` times, in an order that rotates with each round."""
    pythons = {"upstream": str(upstream.python()), "ours": sys.executable, "floor": sys.executable}
    found: dict[str, list[Figures]] = {way: [] for way in WAYS}
    with Sandbox(BATCH_S) as sandbox, embedded_stack(sandbox.settings) as stack:
        _run("ours", 10, sys.executable, sandbox, stack)
        for number in range(n_runs):
            for way in (*WAYS[number % 3 :], *WAYS[: number % 3]):
                found[way].append(_run(way, n, pythons[way], sandbox, stack))
    return _report(n, n_runs, found)


def _run(way: str, n: int, python: str, sandbox: Sandbox, stack: Stack) -> Figures:
    sandbox.reset()
    behind_s = cpu_s(stack.worker), cpu_s(stack.redis)
    # -I: neither this directory nor the caller's PYTHONPATH may decide which `batchling` is imported.
    words = [python, "-I", str(CALLER), way, str(n), "--base-url", str(sandbox.base_url())]
    environment = stack.environment if way == "ours" else clean_environment()
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the caller of {way} failed: {done.stderr[-2000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    if figures["n_right"] != n:
        raise RuntimeError(f"{way} answered {figures['n_right']} of {n} rightly: {done.stderr[-2000:]}")
    figures["n_batches"] = len(sandbox.batches())
    if way == "ours":
        figures["worker_cpu_s"] = cpu_s(stack.worker) - behind_s[0]
        figures["redis_cpu_s"] = cpu_s(stack.redis) - behind_s[1]
    return figures


def _report(n: int, n_runs: int, found: Mapping[str, Sequence[Figures]]) -> Report:
    def middle(way: str, name: str) -> float:
        return median([run[name] for run in found[way]])

    def best(way: str, name: str) -> float:
        return min(float(run[name]) for run in found[way])

    def over_us(way: str) -> float:
        return (best(way, "cpu_s") - best("floor", "cpu_s")) / n * 1e6

    rows: list[list[Cell]] = [
        [
            way,
            middle(way, "wall_s"),
            best(way, "wall_s"),
            best(way, "wall_s") / best("upstream", "wall_s"),
            middle(way, "cpu_s"),
            best(way, "cpu_s"),
            round(over_us(way)),
            round(middle(way, "rss_mib")),
            round(middle(way, "rss_before_mib")),
            "-" if way == "floor" else int(max(run["n_batches"] for run in found[way])),
        ]
        for way in WAYS
    ]
    targets = [
        Target(
            promise="wall not above upstream's",
            found=f"{best('ours', 'wall_s'):.2f} s to {best('upstream', 'wall_s'):.2f} s",
            met=best("ours", "wall_s") <= best("upstream", "wall_s"),
        ),
        Target(
            promise="client RSS below upstream's",
            found=f"{middle('ours', 'rss_mib'):.0f} MiB to {middle('upstream', 'rss_mib'):.0f} MiB",
            met=middle("ours", "rss_mib") < middle("upstream", "rss_mib"),
        ),
        Target(
            promise=f"client CPU over the SDK's floor below {MOST_US:.0f} us a request",
            found=f"{over_us('ours'):.0f} us (upstream {over_us('upstream'):.0f} us)",
            met=over_us("ours") < MOST_US,
        ),
    ]
    return Report(
        title=f"{n:,} requests, a batch of {BATCH_S:g} s, {n_runs} rounds; behind our client: worker "
        f"{middle('ours', 'worker_cpu_s'):.1f} s, Redis {middle('ours', 'redis_cpu_s'):.1f} s of CPU",
        columns=(
            *("way", "wall s", "best", "to upstream", "CPU s", "best ", "us over floor"),
            *("RSS MiB", "at start", "batches"),
        ),
        rows=rows,
        targets=targets,
        raw=found,
    )
