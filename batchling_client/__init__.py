"""batchling's client: unchanged SDK code, answered from half-price provider batches."""

from importlib.metadata import PackageNotFoundError, version

from . import children, sandboxed
from .batchify import batchify
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
from .run import Progress, Run
from .scope import outside

DryRunEarlyExit = DryRun
"""The name that the original, in-process batchling gives to `DryRun`."""

try:
    __version__ = version("batchling")
except PackageNotFoundError:
    __version__ = "0+unknown"

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
children.heed()
sandboxed.heed()
