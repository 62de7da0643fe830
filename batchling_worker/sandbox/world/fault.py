"""The base class of faults, and the forms that several faults share."""

from __future__ import annotations

import re

import msgspec


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


class Fault(msgspec.Struct, kw_only=True, tag=_kebab, tag_field="fault", forbid_unknown_fields=True):
    """Fields of every fault: how often it strikes, and which provider and model."""

    times: int | None = 1
    after: int = 0
    provider: str | None = None
    model: str | None = None


class RefusingFault(Fault):
    """A call answered with an HTTP error: the provider's own error shape, or `body` word for word."""

    status: int = 500
    code: str | None = None
    message: str = "The sandbox was told to refuse this call."
    retry_after: str | None = None
    body: str | None = None


class RowsFault(Fault):
    """A fault that hits `n` rows of a batch."""

    n: int = 1


class FailingFault(Fault):
    """A fault with which `n` rows of a batch (None = all) fail."""

    n: int | None = 1
    status: int = 500
    code: str | None = None
    message: str = "The sandbox was told to fail this row."
