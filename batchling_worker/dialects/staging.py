"""Objects are read and written below the staging place alone, whatever a stored record or an answer names.

The workers' own credential may open more than that place. Names come out of Redis and from servers.
"""

from __future__ import annotations

from typing import Final

from ..errors import PermanentError
from ..provider import Account

LONGEST_SHOWN: Final = 200
FORBIDDEN: Final = 403
_STEPS: Final = frozenset({".", ".."})
"""Parts of a name that libraries resolve on the way, so that it leads elsewhere."""


def is_below(bucket: str, name: str, own_bucket: str, folder: str) -> bool:
    """Return whether an object lies in that bucket and below that folder; "" is the whole bucket."""
    if bucket != own_bucket or not _STEPS.isdisjoint(name.split("/")):
        return False
    return not folder or name == folder or name.startswith(f"{folder}/")


def refusal(account: Account, provider: str, named: str) -> PermanentError:
    """Return the error for a place that is not below the staging place of an account."""
    return PermanentError(
        f"{named[:LONGEST_SHOWN]!r} is not below {account.staging}, and nothing else is read or written: "
        f"if BATCHLING_PROVIDERS__{provider.upper()}__STAGING was changed, restore it until its batches are done.",
        status=FORBIDDEN,
    )
