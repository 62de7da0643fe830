"""Run each column's tests in its environment and print the results by SDK: `python -m tests.sdks ENVIRONMENTS`.

`make test-sdks` creates the environments; further arguments are pytest's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .matrix import Column, columns
from .report import Seen, read, table

ROOT = Path(__file__).resolve().parents[2]
NO_TEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one column's tests."""

    column: Column
    code: int
    said: str
    seen: list[Seen]


def run(column: Column, environments: Path, words: list[str]) -> Outcome:
    """Run the tests of one column in its environment."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [str(environments / column.name / "bin" / "python"), "-m", "pytest", column.tests]
        command += [
            f"--junitxml={report}",
            "-o",
            "junit_family=xunit1",
            "-o",
            f"cache_dir=.pytest_cache/{column.name}",
            *words,
        ]
        command += [f"-W{warning}" for warning in column.warnings]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        seen = read(report, column) if report.is_file() else []
    return Outcome(column=column, code=done.returncode, said=done.stdout, seen=seen)


def main(environments: Path, words: list[str]) -> int:
    """Run the columns in parallel, since tests mostly wait; return 0 if all passed."""
    wanted = [column for column in columns().values() if (environments / column.name).is_dir()]
    with ThreadPoolExecutor(len(wanted)) as pool:
        outcomes = []
        for outcome in pool.map(lambda column: run(column, environments, words), wanted):
            print(f"== {outcome.column.name}: {outcome.column.says}\n{outcome.said}", flush=True)
            outcomes.append(outcome)
    print(table([one for outcome in outcomes for one in outcome.seen]))
    # Options such as -k may leave a column without tests, but not every column.
    codes = {outcome.code for outcome in outcomes}
    return max(codes - {NO_TEST}, default=NO_TEST)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
