"""Attaches to the stack of one home; starts or mends it first if needed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from . import lock, redis_binary, resp, state
from .errors import StackError, install
from .layout import Layout
from .order import Order
from .state import StackStatus, State

START_PATIENCE_S: Final = 30.0
LOADING_PATIENCE_S: Final = 600.0
"""How long Redis may load a large append-only file, which it reports meanwhile."""
SUPERVISOR_PATIENCE_S: Final = 5.0
HANDOVER_PATIENCE_S: Final = 30.0
_STEP_SECONDS: Final = 0.01
_LOGGED: Final = re.compile(r"^\d+:[A-Z] .*? [.\-*#] ")
"""The beginning of a log line of Redis: pid, role, time and level."""
_LAST_BYTES: Final = 4096


def up(home: Path, *, flower: bool = False, environment: Mapping[str, str]) -> StackStatus:
    """Return the running stack; start or mend it first if needed, with the caller's environment.

    Raises `StackError`, and `WrongSetting` before anything is started with settings that no worker would run with.
    """
    layout = Layout(home)
    wanted = state.digest_of(environment)
    running = _running(layout)
    if running is not None and _suits(running, wanted, flower):
        return status_of(layout, running, environment)
    followed = _followed(environment)
    layout.prepare()
    try:
        # One process at a time: the second finds the stack that the first has started.
        with lock.held(layout.attach_lock, patience_s=LOADING_PATIENCE_S):
            started = status_of(layout, _start(layout, wanted, flower, environment, followed), environment)
            return replace(started, notice=f"{started.notice} {_unread(environment)}".strip())
    except TimeoutError:
        raise StackError(
            f"Another program has been starting the stack in {layout.home} for too long: end it."
        ) from None
    except OSError as error:
        raise StackError(
            f"The stack in {layout.home} cannot be started ({error.strerror or error}): mend that, such as by making "
            "room on the disk, and try again."
        ) from None


def status_of(layout: Layout, running: State, environment: Mapping[str, str]) -> StackStatus:
    """Return the published state as it is shown to a caller of that environment."""
    names = state.differing(running, environment)
    notice = (
        f"The stack in {layout.home} runs with other settings than are set here ({', '.join(names)}): "
        "`batchling down` and `batchling up` start it with these."
    )
    return StackStatus(
        home=layout.home,
        redis=running.redis,
        worker=running.worker,
        flower=running.flower,
        notice=notice if names else "",
    )


def _running(layout: Layout) -> State | None:
    """Return the state of a stack that is supervised and serves; None if it must be started, mended or waited for."""
    seen = state.read(layout.state)
    if seen is None or lock.holder(layout.supervisor_lock) != seen.supervisor_pid:
        return None
    return seen if seen.worker is not None and resp.ready(Path(seen.socket)) else None


def _suits(running: State, wanted: str, flower: bool) -> bool:
    return running.digest == wanted and (running.flower is not None or not flower)


def _start(
    layout: Layout, wanted: str, flower: bool, environment: Mapping[str, str], followed: Mapping[str, str]
) -> State:
    seen = state.read(layout.state)
    if lock.holder(layout.supervisor_lock) is not None:
        seen = _await_running(layout)
        if _suits(seen, wanted, flower):
            return seen
    if seen is not None and seen.digest != wanted:
        _refuse_while_busy(layout, seen)
    _hand_over(layout)
    # A stack that had Flower keeps it.
    _launch(layout, flower or (seen is not None and seen.flower is not None), environment, followed)
    return _await_running(layout)


def _followed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return digests of the settings that a worker would have, as in `State.followed`.

    Raises `WrongSetting`: a worker that ends at once would be started again and again, and nobody told why.
    """
    # pydantic takes longer to import than an attach may last.
    from . import worker_settings  # noqa: PLC0415

    return worker_settings.followed(worker_settings.read(environment))


def _unread(environment: Mapping[str, str]) -> str:
    # As above.
    from . import worker_settings  # noqa: PLC0415

    return worker_settings.unread(environment)


def _refuse_while_busy(layout: Layout, running: State) -> None:
    """Raise `StackError` while batches are unfinished: they belong to the settings that they were sent with."""
    # Rarely needed, and the client takes longer to import than an attach may last.
    from batchling_client.wire.keys import DRAINED_VERSIONS, Keys  # noqa: PLC0415

    try:
        schedules = [Keys(running.namespace, version).schedule for version in DRAINED_VERSIONS]
        n_unfinished = sum(int(resp.ask(Path(running.socket), "ZCARD", schedule)) for schedule in schedules)
    except (resp.NoAnswer, ValueError):
        return
    if n_unfinished:
        raise StackError(
            f"The stack in {layout.home} runs with other settings ({', '.join(state.TOLD_APART)}) and has "
            f"{n_unfinished} unfinished batches: wait for them, run `batchling down`, or set BATCHLING_HOME to "
            "another directory."
        )


def _hand_over(layout: Layout) -> None:
    """End the old supervisor, so that a new one takes over its running children. Raises `StackError`."""
    deadline = time.monotonic() + HANDOVER_PATIENCE_S
    while (pid := lock.holder(layout.supervisor_lock)) is not None:
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        if time.monotonic() > deadline:
            raise StackError(
                f"The supervisor of {layout.home} (pid {pid}) does not answer: run `batchling down`."
            )
        time.sleep(_STEP_SECONDS)


def _launch(
    layout: Layout, flower: bool, environment: Mapping[str, str], followed: Mapping[str, str]
) -> None:
    for name in ("psutil", "celery", "flower")[: 3 if flower else 2]:
        if find_spec(name) is None:
            raise StackError(
                f"The embedded stack needs {name}: run {install()}, or set BATCHLING_REDIS_URL to a Redis of yours."
            )
    server = redis_binary.choose(environment.get("PATH", os.defpath), layout.redis)
    order = Order(
        home=str(layout.home),
        socket=str(layout.socket()),
        redis_binary=str(server.path),
        redis_words=server.words,
        flower=flower,
        followed=followed,
    )
    with open(layout.log("supervisor"), "ab", opener=_private) as log:
        launched = subprocess.run(
            [sys.executable, "-P", "-m", "batchling_worker.stack.supervisor", order.encode()],
            env=environment,
            cwd=layout.run,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=False,
        )
    if launched.returncode:
        raise StackError(
            f"The supervisor of the embedded stack cannot run here: {layout.log('supervisor')} says why."
        )


def _await_running(layout: Layout) -> State:
    """Wait until Redis answers and a worker is started. Raises `StackError`."""
    started_s = supervised_s = time.monotonic()
    while True:
        running = _running(layout)
        if running is not None:
            return running
        now_s = time.monotonic()
        if lock.holder(layout.supervisor_lock) is not None:
            supervised_s = now_s
        if now_s - supervised_s > SUPERVISOR_PATIENCE_S:
            break
        if now_s - started_s > START_PATIENCE_S and resp.serving_pid(layout.socket()) is None:
            break
        if now_s - started_s > LOADING_PATIENCE_S:
            break
        time.sleep(_STEP_SECONDS)
    raise StackError(
        f"The stack in {layout.home} does not start{_last_words(layout)}: the files in {layout.logs} say more."
    )


def _last_words(layout: Layout) -> str:
    """Return what Redis logged last, if it does not run."""
    if resp.serving_pid(layout.socket()) is not None:
        return ""
    try:
        lines = layout.log("redis").read_text(encoding="utf-8", errors="replace")[-_LAST_BYTES:].splitlines()
    except OSError:
        return ""
    said = [words for line in lines if (words := _LOGGED.sub("", line).strip(" .:"))]
    return f", as its Redis ends with {said[-1]!r}" if said else ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
