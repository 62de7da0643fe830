"""A finding of the doctor, or of a worker at its start."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Health(enum.StrEnum):
    """The level of a finding."""

    OK = "ok"
    NOTE = "note"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check, and how to fix a failure."""

    check: str
    health: Health
    says: str
    mend: str = ""
    fatal: bool = False
    """Work would be lost: neither a worker nor a block starts on it."""

    @property
    def sound(self) -> bool:
        """Nothing has to be done."""
        return self.health is not Health.FAILURE

    def as_json(self) -> dict[str, object]:
        """Return the finding as `batchling doctor --json` prints it."""
        return {
            "check": self.check,
            "status": self.health.value,
            "says": self.says,
            "mend": self.mend or None,
        }

    def __str__(self) -> str:
        mend = f" -> {self.mend}" if self.mend else ""
        return f"{self.health.value:<8}{self.check:<13} {self.says}{mend}"


def judge(check: str, sound: bool, says: str, mend: str, *, fatal: bool = False) -> Finding:
    """Return a failure with its remedy, or an OK finding if `sound`."""
    if sound:
        return Finding(check=check, health=Health.OK, says=says)
    return Finding(check=check, health=Health.FAILURE, says=says, mend=mend, fatal=fatal)
