"""The errors of the embedded stack."""

from __future__ import annotations


class StackError(Exception):
    """The embedded stack cannot do what was asked; the text is one sentence that says what to do."""


class WrongSetting(StackError):
    """No worker would run with a setting of the caller's environment; the text names it, and never its value."""


def install(extra: str = "all") -> str:
    """Return the words for installing batchling with an extra, as part of a sentence."""
    # Needed only when the stack cannot start: the client takes longer to import than an attach may last.
    from batchling_client.wire.deployment import installing  # noqa: PLC0415

    return installing.install(extra)
