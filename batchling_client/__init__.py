"""batchling's client: unchanged SDK code, answered from half-price provider batches."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

from .errors import (
    AnswerUnfit,
    AnswerUnreadable,
    BatchCancelled,
    BatchExpired,
    BatchFailed,
    BatchlingError,
    BatchTooSmall,
    DeadlinePassed,
    DryRun,
    NotIntercepted,
    QueueFull,
    QueueUnfit,
    QueueUnreachable,
    RequestLost,
    RequestRefused,
    WrongSettings,
)
from .wire.deployment.installing import VERSION

if TYPE_CHECKING:
    from .block.counts import Progress
    from .block.run import Run
    from .composition import batchify
    from .intercept.scope import outside

DryRunEarlyExit = DryRun
"""The name that the original, in-process batchling gives to `DryRun`."""

__version__ = VERSION

__all__ = [
    "AnswerUnfit",
    "AnswerUnreadable",
    "BatchCancelled",
    "BatchExpired",
    "BatchFailed",
    "BatchTooSmall",
    "BatchlingError",
    "DeadlinePassed",
    "DryRun",
    "DryRunEarlyExit",
    "NotIntercepted",
    "Progress",
    "QueueFull",
    "QueueUnfit",
    "QueueUnreachable",
    "RequestLost",
    "RequestRefused",
    "Run",
    "WrongSettings",
    "__version__",
    "batchify",
    "outside",
]

_LATER: Final = {
    "Progress": ".block.counts",
    "Run": ".block.run",
    "batchify": ".composition",
    "outside": ".intercept.scope",
}
"""Names that programs ask for and workers never: their modules take half of the time that a worker's imports take."""


def __getattr__(name: str) -> Any:
    """Import a name of `_LATER` when it is first asked for; raise `AttributeError` for any other."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LATER[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


# An import has an effect only where a variable in the environment asks for it: in a process that was started inside a
# block or under `--sandbox`. Workers are never such a process.
if "batchling_worker" not in sys.modules:
    from .block import sandboxed
    from .intercept import child_processes

    child_processes.heed()
    sandboxed.heed()
