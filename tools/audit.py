"""Asks an advisory service for known holes in the packages of a file with hashes: `make audit`.

Exit code 1: holes are known. 0: none is known, or no service could be asked, which it says; with --strict that is 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCKED: Final = ("locks/all.txt", "locks/dev.txt")
UNASKED: Final = "No advisory service could be asked, so nothing is known of {}: {}"
SERVICES: Final = ("pypi", "osv")
PATIENCE_S: Final = 600
"""How long a service may take for all packages of a file."""


def asked(locked: str, service: str) -> tuple[list[dict[str, Any]] | None, str]:
    """Return the packages of a file as pip-audit reports them, or None and its last words."""
    options = ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json"]
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / locked), *options]
    try:
        done = subprocess.run(
            [*command, "--vulnerability-service", service, "--timeout", "15"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"{service} did not answer within {PATIENCE_S} s"
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return None, (done.stderr.strip().splitlines() or ["no answer"])[-1].partition("(")[0][:90]
    # An index that is a mirror knows no advisories: pip-audit then leaves every package out, and finds no hole.
    if packages and all("skip_reason" in package for package in packages):
        return None, "it knows none of the packages"
    return packages, ""


def lines_of(packages: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each known hole: package, version, advisory, and the versions that mend it."""
    return [
        f"{package['name']} {package['version']}: {hole['id']}, mended in "
        f"{', '.join(hole.get('fix_versions') or ()) or 'no release'}"
        for package in packages
        for hole in package.get("vulns", ())
    ]


def main(words: Sequence[str] | None = None) -> int:
    """Audit each file; return the exit code."""
    parser = argparse.ArgumentParser(prog="make audit", description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail where no service can be asked")
    parser.add_argument("files", nargs="*", default=LOCKED, help="files with hashes")
    options = parser.parse_args(words)
    code = 0
    for locked in options.files:
        packages, why = None, ""
        for service in SERVICES:
            packages, said = asked(locked, service)
            why = f"{why}; {service}: {said}" if why else f"{service}: {said}"
            if packages is not None:
                break
        if packages is None:
            print(UNASKED.format(locked, why))
            code = max(code, int(options.strict))
            continue
        holes = lines_of(packages)
        left_out = [str(package["name"]) for package in packages if "skip_reason" in package]
        print(f"{locked}: {len(packages) - len(left_out)} packages, {len(holes) or 'no'} known holes")
        print("\n".join(holes), end="\n" if holes else "")
        if left_out:
            print(f"Nothing is known of {', '.join(left_out)}.")
        code = max(code, int(bool(holes) or (options.strict and bool(left_out))))
    return code


if __name__ == "__main__":
    sys.exit(main())
