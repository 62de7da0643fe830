"""The short import: `from batchling import batchify`."""

from batchling_client import batchify, errors

__all__ = ["batchify", "errors"]
