"""The switch: `batchify` opens a block in which SDK calls are answered from provider batches.

The client's only composition root.
"""

from __future__ import annotations

import os
from typing import Literal

from . import settings
from .block import sandboxed
from .block.block import Block
from .block.parameters import (
    DEFAULT_POLL_S,
    BlockOptions,
    account_of,
    check_choice,
    check_number,
    check_window,
    roots_of,
    seconds,
)
from .intercept.interceptor import warn_once
from .session.lanes import Terms
from .wire.ids import new_run_id


def batchify(
    batch_size: int | None = None,
    batch_window_seconds: float = 2.0,
    batch_poll_interval_seconds: float = DEFAULT_POLL_S,
    completion_window: str = "24h",
    dry_run: bool = False,
    cache: bool = True,
    live_display: bool = True,
    vertex_gcs_prefix: str | None = None,
    *,
    name: str | None = None,
    deadline: float | str | None = None,
    on_deadline: Literal["error", "realtime"] = "error",
    on_too_few: Literal["error", "realtime"] = "error",
    redis_url: str | None = None,
    stream: Literal["pass", "batch"] = "pass",
    account: str | None = None,
    detach: bool = False,
    enabled: bool | None = None,
) -> Block:
    """Return a block for `async with` or `with`; LLM calls of unchanged SDK code inside it are answered from batches.

    A batch is sealed when it holds `batch_size` requests (None: the provider's maximum), or when no request was added
    for `batch_window_seconds`. `completion_window` is passed to the provider. A running batch is polled every
    `batch_poll_interval_seconds` at the latest (at the default of 10, the worker's own setting applies).
    With `cache`, a rerun gets the answers and running requests of earlier runs.
    `deadline` is in seconds or like "2h", counted from each call; `on_deadline` says what happens to a late call, and
    `on_too_few` to requests that are too few for a batch of their provider.
    A `dry_run` counts the calls until no new call comes for a moment, ends them, reports what would have been sent, and
    raises `errors.DryRun` at the end of the block, so that the code after it does not run without answers.
    A call with stream=True is sent at full price; with `stream="batch"` it is batched without `stream`, and the
    finished answer is returned as a stream (chat completions, responses and Anthropic's messages). It shares its
    answer with the same call without a stream.
    `account` names the owner of the requests if the API key is a token that is renewed: runs with the same name share
    batches and answers, whatever their tokens.
    When a block ends normally, it waits for its calls in flight, also for those in tasks and threads that nobody
    awaits. With `detach` it ends once they are queued, and the next run of the program gets their answers.
    A block with `enabled=False` does nothing, for example in unit tests (None: BATCHLING_ENABLED).

    Raise `WrongSettings` (a ValueError) for values that cannot work. Entering the block raises `QueueUnreachable` if
    Redis does not answer, and `QueueUnfit` if this Redis would lose requests.
    """
    used = settings.load(redis_url=redis_url)
    if unused := settings.of_the_original(os.environ):
        warn_once(unused, os.getpid())
    routes = sandboxed.routes(used.routes())
    check_number("batch_size", batch_size, least=1, whole=True)
    check_number("batch_window_seconds", batch_window_seconds, least=0.0)
    check_number("batch_poll_interval_seconds", batch_poll_interval_seconds, least=0.0)
    check_window(completion_window, routes)
    check_choice("on_deadline", on_deadline, ("error", "realtime"))
    check_choice("on_too_few", on_too_few, ("error", "realtime"))
    check_choice("stream", stream, ("pass", "batch"))
    terms = Terms(
        run_id=new_run_id(),
        run_name=name or "",
        completion_window=completion_window,
        batch_size=batch_size,
        linger_s=float(batch_window_seconds),
        poll_s=0.0 if batch_poll_interval_seconds == DEFAULT_POLL_S else float(batch_poll_interval_seconds),
        cache=cache,
        vertex_gcs_prefix=vertex_gcs_prefix,
        stream=stream,
        account=account_of(account, used),
        roots=roots_of(account, used),
    )
    options = BlockOptions(
        name=name,
        dry_run=dry_run,
        live_display=live_display,
        deadline_s=seconds(deadline),
        on_deadline=on_deadline,
        on_too_few=on_too_few,
        detach=detach,
        enabled=used.enabled if enabled is None else enabled,
    )
    return Block(used, terms, options, routes)
