"""`python -m batchling_worker.stack.redis_server CONFIG --dir DIR`: run as the Redis of the embedded stack."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import redis_binary
from .errors import StackError


def main() -> None:
    """Find a server that can read the existing data, create its data directory (0700) and run it in the foreground."""
    parser = argparse.ArgumentParser(prog="python -m batchling_worker.stack.redis_server")
    parser.add_argument("config", type=Path, help="a redis.conf")
    parser.add_argument("--dir", type=Path, required=True, help="where the data is kept")
    options = parser.parse_args()
    try:
        server = redis_binary.choose(os.environ.get("PATH", os.defpath), options.dir)
    except StackError as error:
        sys.exit(str(error))
    options.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    words = [str(server.path), str(options.config), "--dir", str(options.dir), *server.words]
    # The arguments are ours and the binary was found by name: no shell reads them.
    os.execve(server.path, words, {**redis_binary.MALLOC, **os.environ})  # noqa: S606


if __name__ == "__main__":
    main()
