"""Shows and stops the stack of one home, whatever the state of its parts."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from . import keeper, lock, state
from .errors import StackError
from .layout import Layout
from .order import Order
from .state import NAMES, StackStatus
from .supervisor import Supervisor

DOWN_PATIENCE_S: Final = 60.0
_STEP_SECONDS: Final = 0.02


def status(home: Path) -> StackStatus:
    """Return what runs now; start nothing. Raises `StackError` if the directory cannot be read."""
    layout = Layout(home)
    layout.look()
    seen = state.read(layout.state)
    if seen is None:
        return StackStatus(home=layout.home)
    alive = {name: child for name in NAMES if (child := seen.child(name)) and keeper.alive(child)}
    return StackStatus(
        home=layout.home, redis=alive.get("redis"), worker=alive.get("worker"), flower=alive.get("flower")
    )


def down(home: Path) -> None:
    """Stop every part of the stack, also if its supervisor is dead. Raises `StackError`."""
    layout = Layout(home)
    layout.look()
    if not layout.run.is_dir():
        return
    _end_supervisor(layout)
    try:
        # A full disk cannot store the new state, but must not keep the stack from stopping.
        with lock.held(layout.supervisor_lock, patience_s=DOWN_PATIENCE_S, noted=False) as descriptor:
            order = Order(home=str(layout.home), socket=str(layout.socket()), redis_binary="", flower=True)
            Supervisor(order, {}, descriptor).stop()
    except TimeoutError:
        raise StackError(
            f"Somebody starts the stack in {layout.home} again and again: end that program first."
        ) from None
    except OSError as error:
        raise StackError(
            f"The stack in {layout.home} cannot be stopped as a whole ({error.strerror or error}): mend that, and run "
            "`batchling down` again."
        ) from None


def _end_supervisor(layout: Layout) -> None:
    """Let the supervisor stop everything in its own order; kill it if it takes too long."""
    deadline = time.monotonic() + DOWN_PATIENCE_S
    supervisor = None
    while (pid := lock.holder(layout.supervisor_lock)) is not None:
        if pid:
            supervisor = keeper.observe(pid, "supervisor")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
        time.sleep(_STEP_SECONDS)
    # It releases the lock a moment before it has ended.
    while supervisor is not None and keeper.alive(supervisor) and time.monotonic() < deadline:
        time.sleep(_STEP_SECONDS)
