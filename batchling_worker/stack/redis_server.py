"""`python -m batchling_worker.stack.redis_server CONFIG --dir DIR --socket PATH`: run as the embedded stack's Redis."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import redis_binary
from .errors import StackError
from .layout import LONGEST_SOCKET_PATH


def main() -> None:
    """Find a server that can read the existing data, create its data directory (0700) and run it in the foreground."""
    parser = argparse.ArgumentParser(prog="python -m batchling_worker.stack.redis_server")
    parser.add_argument("config", type=Path, help="a redis.conf")
    parser.add_argument("--dir", type=Path, required=True, help="where the data is kept")
    parser.add_argument("--socket", type=Path, help="a unix socket for this user only")
    options = parser.parse_args()
    try:
        server = redis_binary.choose(os.environ.get("PATH", os.defpath), options.dir)
    except StackError as error:
        sys.exit(str(error))
    options.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    options.dir.chmod(0o700)
    words = [str(server.path), str(options.config), "--dir", str(options.dir), *server.words]
    if options.socket is not None:
        # Redis goes into its data directory before it opens the socket.
        path = options.socket.absolute()
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            sys.exit(f"{path} is too long for a socket: start Redis in a folder with a shorter path.")
        words += ["--unixsocket", str(path), "--unixsocketperm", "700"]
    # The arguments are ours and the binary was found by name: no shell reads them.
    os.execve(server.path, words, {**redis_binary.MALLOC, **os.environ})  # noqa: S606


if __name__ == "__main__":
    main()
