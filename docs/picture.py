"""The README's picture: `python docs/picture.py` rehearses an example in tmux and draws what the terminal shows."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

ROOT: Final = Path(__file__).resolve().parent.parent
PICTURE: Final = ROOT / "docs" / "picture.svg"
EXAMPLE: Final = "examples/streaming_batches.py:compare"
SEEN: Final = ("llama-3.1-8b-instant: ", "50 %", "running")
"""The answer of the model whose batch is done, while the other batch still runs."""
COLUMNS: Final = 80
LINES: Final = 12
WITHIN_S: Final = 90.0
ENDED_WITHIN_S: Final = 20.0
LOOK_S: Final = 0.1
_FONT_FROM_ELSEWHERE: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def main() -> None:
    """Draw the picture; exit with a sentence where tmux is missing or the answer does not come."""
    if shutil.which("tmux") is None:
        sys.exit("The picture is taken in tmux: install it first.")
    screen = _frame()
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
    console.print(Text(f"$ batchling run --sandbox {EXAMPLE}", style="bold"))
    console.print(Text.from_ansi(screen))
    drawn = console.export_svg(title="batchling", unique_id="batchling")
    # A page that shows the picture loads no font from another host.
    PICTURE.write_text(_FONT_FROM_ELSEWHERE.sub("", drawn), encoding="utf-8")


def _runs(tmux: list[str]) -> bool:
    return subprocess.run([*tmux, "has-session"], check=False, stderr=subprocess.DEVNULL).returncode == 0


def _frame() -> str:
    """Return the screen, with its colours, at the moment when the first answer has come and the second has not."""
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        name = Path(home).name
        command = [str(Path(sys.executable).with_name("batchling")), "run", "--sandbox", EXAMPLE]
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        settings = ["-e", f"BATCHLING_HOME={home}", "-e", f"PYTHONPATH={ROOT}"]
        tmux = ["tmux", "-L", name, "-f", os.devnull]
        subprocess.run([*tmux, "new-session", "-d", *size, *settings, *command], cwd=ROOT, check=True)
        try:
            by = time.monotonic() + WITHIN_S
            while time.monotonic() < by:
                time.sleep(LOOK_S)
                capture = [*tmux, "capture-pane", "-p", "-e"]
                screen = subprocess.run(capture, capture_output=True, text=True, check=True).stdout
                if all(words in screen for words in SEEN):
                    return screen.rstrip("\n")
        finally:
            # The server ends with its last program, which clears its stack away first.
            subprocess.run([*tmux, "send-keys", "C-c"], check=False)
            by = time.monotonic() + ENDED_WITHIN_S
            while time.monotonic() < by and _runs(tmux):
                time.sleep(LOOK_S)
            subprocess.run([*tmux, "kill-server"], check=False, stderr=subprocess.DEVNULL)
    sys.exit(f"No answer of the faster model was seen within {WITHIN_S:g} s.")


if __name__ == "__main__":
    main()
