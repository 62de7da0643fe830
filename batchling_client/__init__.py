"""batchling's client: unchanged SDK code, answered from half-price provider batches."""

from .batchify import batchify
from .block import sandboxed
from .block.run import Progress, Run
from .errors import (
    AnswerUnfit,
    AnswerUnreadable,
    BatchCancelled,
    BatchExpired,
    BatchFailed,
    BatchlingError,
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
from .intercept import child_processes
from .intercept.scope import outside
from .wire.deployment.installing import VERSION

DryRunEarlyExit = DryRun
"""The name that the original, in-process batchling gives to `DryRun`."""

__version__ = VERSION

__all__ = [
    "AnswerUnfit",
    "AnswerUnreadable",
    "BatchCancelled",
    "BatchExpired",
    "BatchFailed",
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

# An import has an effect only where a variable in the environment asks for it: in a process that was started inside a
# block or under `--sandbox`.
child_processes.heed()
sandboxed.heed()
