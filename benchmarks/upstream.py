"""The virtual environment for upstream, whose package has the same name as ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
RELEASE: Final = "batchling==0.1.0a3"
PLACE: Final = ROOT / "build" / "bench-upstream"
PATIENCE_S: Final = 300.0


def python() -> Path:
    """Return the environment's interpreter; create it on first use from the index that the installer is set to.

    It has our versions of the interpreter, the SDK and its HTTP library.
    """
    found = PLACE / "bin" / "python"
    mark = PLACE / f".{RELEASE}-{'.'.join(map(str, sys.version_info[:3]))}"
    if not mark.exists():
        shutil.rmtree(PLACE, ignore_errors=True)
        _make(found)
        mark.touch()
    return found


def _make(found: Path) -> None:
    wanted = ["--constraint", str(ROOT / "constraints.txt"), RELEASE, "groq"]
    if _runs("uv", "--version"):
        _run("uv", "venv", "--quiet", "--python", sys.executable, str(PLACE))
        _run("uv", "pip", "install", "--quiet", "--python", str(found), *wanted)
    else:
        _run(sys.executable, "-m", "venv", str(PLACE))
        _run(str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)


def _runs(*words: str) -> bool:
    try:
        return subprocess.run(words, capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        return False


def _run(*words: str) -> None:
    subprocess.run(words, check=True, timeout=PATIENCE_S)
