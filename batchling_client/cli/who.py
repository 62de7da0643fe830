"""Who gives a command, for timelines that a team reads."""

from __future__ import annotations

import getpass
import socket


def who(command: str) -> str:
    """Return the user, the machine and the command."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "somebody"
    return f"{user}@{socket.gethostname()} with `{command}`"
