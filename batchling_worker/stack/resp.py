"""One question to Redis over its unix socket; redis-py takes longer to import than a whole attach may last."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

_PATIENCE_SECONDS: Final = 2.0


class NoAnswer(Exception):
    """Redis is unreachable or does not answer in time."""


def ask(path: Path, *words: str) -> str:
    """Return the answer's text, '' if the key is missing; an error answer keeps its leading `-`. Raises `NoAnswer`."""
    request = b"*%d\r\n" % len(words) + b"".join(
        b"$%d\r\n%s\r\n" % (len(w), w) for w in map(str.encode, words)
    )
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE_SECONDS)
            connection.connect(str(path))
            connection.sendall(request)
            with connection.makefile("rb") as answer:
                line = answer.readline()
                if line.startswith(b"$"):
                    line = b"$" + answer.read(max(0, int(line[1:])))
    except (OSError, ValueError) as error:
        raise NoAnswer from error
    if not line:
        raise NoAnswer
    text = line.decode().rstrip("\r\n")
    return text if text.startswith("-") else text[1:]


def ready(path: Path) -> bool:
    """Return whether Redis serves requests now; False while it loads its file."""
    try:
        return ask(path, "PING") == "PONG"
    except NoAnswer:
        return False


def serving_pid(path: Path) -> int | None:
    """Return the pid of the Redis behind the socket, ready or loading; None if nobody answers."""
    try:
        answer = ask(path, "INFO", "server")
    except NoAnswer:
        return None
    for line in answer.splitlines():
        name, _, value = line.partition(":")
        if name == "process_id":
            return int(value)
    return None
