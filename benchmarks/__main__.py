"""`python -m benchmarks [NAME ...]`: measure, print tables, and write the figures as JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from .figures import Report
from .upstream import ROOT

NAMES: Final = (
    "ten_thousand",
    "worker_memory",
    "script_times",
    "fsync_intent",
    "torn_download",
    "rolling_restart",
    "looks",
    "looking",
    "pages",
    "servers",
    "thread_hop",
)


def main() -> int:
    """Run the named measurements, or all; return 0 even if a target is missed, because machines differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=(*NAMES, []), help="what to measure, all by default")
    parser.add_argument("--runs", type=int, default=3, help="rounds of ten_thousand (3)")
    parser.add_argument("--requests", type=int, default=10_000, help="requests of ten_thousand (10000)")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "build" / "benchmarks.json", help="where to write"
    )
    options = parser.parse_args()
    found: dict[str, object] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    print(f"Python {found['python']}, {found['system']}", flush=True)
    for name in options.names or NAMES:
        # Import and run one at a time: measurements that run at once disturb each other.
        measure: Callable[..., Report] = importlib.import_module(f".{name}", __package__).measure
        if name == "ten_thousand":
            measure = partial(measure, options.requests, max(1, options.runs))
        report = measure()
        found[name] = report.to_json()
        print(f"\n{report.shown()}", flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"\nFigures: {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
