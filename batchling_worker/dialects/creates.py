"""What the answer to a create means: the batch that was made, or why none was."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator
from typing import Final, TypeAlias

from batchling_client.wire.keys import ProviderBatchId

from ..decisions import quota
from ..errors import FileNotReady, MaybeDone, PermanentError, QuotaFull, TemporaryError
from ..provider import Account, Other
from . import http_errors
from .http_errors import CallInfo

Refused: TypeAlias = PermanentError | TemporaryError

_MISSING: Final = re.compile(r"find|found|no such|n[o']t exist|not (?:ready|active)|processed", re.IGNORECASE)


def is_over_quota(error: Refused) -> bool:
    """Return whether a create was refused in words, or with a code, that speak of enqueued tokens."""
    code = http_errors.code_of(error.body) if isinstance(error, PermanentError) else ""
    return quota.refusal_in(str(error), code) is not None


@contextlib.contextmanager
def refusals(
    account: Account,
    *,
    over_quota: Callable[[Refused], bool] = is_over_quota,
    lacks_file: Callable[[PermanentError], bool] = lambda error: False,
) -> Iterator[None]:
    """Raise `QuotaFull` or `FileNotReady` in place of a refusal that means it; neither counts against the account."""
    try:
        yield
    except MaybeDone:
        raise
    except (PermanentError, TemporaryError) as error:
        if over_quota(error):
            account.calls.saw(None)
            raise QuotaFull(str(error)) from None
        if isinstance(error, PermanentError) and lacks_file(error):
            account.calls.saw(None)
            raise FileNotReady(str(error)) from None
        raise


def speaks_of_missing_file(error: PermanentError, statuses: Collection[int], file_id: str = "") -> bool:
    """Return whether a create was refused because the provider does not see its input file."""
    if error.status not in statuses:
        return False
    said = http_errors.message_of(error.body)
    return _MISSING.search(said) is not None and ("file" in said.lower() or bool(file_id and file_id in said))


def made(call_info: CallInfo, shown: Other, label: str) -> ProviderBatchId:
    """Return the id of what an answer shows as made; raises `MaybeDone` for an answer without one, or of another."""
    if not shown.provider_batch_id:
        raise http_errors.of_unreadable(call_info)
    if shown.denies(label):
        raise http_errors.of_another(call_info, shown.label)
    return ProviderBatchId(shown.provider_batch_id)
