"""What can go wrong with the embedded stack."""

from __future__ import annotations


class StackError(Exception):
    """The embedded stack cannot do what was asked; the text is one sentence that says what to do."""


class WrongSetting(StackError):
    """No worker would run with a setting of the caller's environment; the text names it, and never its value."""
