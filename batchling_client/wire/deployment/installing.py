"""How batchling is installed, and which version is: the one place that a published name will change."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("batchling")
except PackageNotFoundError:
    VERSION = "0+unknown"


def install(extra: str = "all") -> str:
    """Return the words for installing batchling with an extra, to be put into a sentence.

    They name a checkout: on the Python package index, the name `batchling` belongs to another package.
    """
    return f"`pip install '.[{extra}]'` in a checkout of batchling"
