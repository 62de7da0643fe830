"""What people have paused: providers, models, keys and lanes of which nothing is submitted until they resume it."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import msgspec

from ..keys import LaneId
from .row_and_result import UNREADABLE, LaneSpec


class Kind(enum.StrEnum):
    """By what the lanes of a pause are chosen."""

    PROVIDER = "provider"
    MODEL = "model"
    """A provider and a model, as `openai/gpt-4o-mini`."""
    KEY = "key"
    """The fingerprint of an API key."""
    LANE = "lane"


class _Stored(msgspec.Struct, frozen=True):
    by: str
    at: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """One pause; all lanes that it takes wait before their next batch is submitted."""

    kind: Kind
    name: str
    by: str
    """Who paused it."""
    at: dt.datetime
    reason: str = ""

    @property
    def field(self) -> str:
        """The field of the hash of pauses that stores it."""
        return f"{self.kind}:{self.name}"

    def encode(self) -> bytes:
        """Return the stored form."""
        return msgspec.json.encode(_Stored(by=self.by, at=self.at.timestamp(), reason=self.reason))

    @classmethod
    def decode(cls, field: bytes, raw: bytes) -> Self | None:
        """Read a pause; None for anything else."""
        kind, _, name = field.decode(errors="replace").partition(":")
        try:
            stored = msgspec.json.decode(raw, type=_Stored)
            at = dt.datetime.fromtimestamp(stored.at, tz=dt.UTC)
            return cls(kind=Kind(kind), name=name, by=stored.by, at=at, reason=stored.reason)
        except (*UNREADABLE, ValueError, OverflowError, OSError):
            return None

    def takes(self, lane_id: LaneId, spec: LaneSpec) -> bool:
        """Return whether a lane is paused by it."""
        return (
            self.name
            == {
                Kind.PROVIDER: spec.provider,
                Kind.MODEL: f"{spec.provider}/{spec.model}",
                Kind.KEY: spec.fingerprint,
                Kind.LANE: lane_id,
            }[self.kind]
        )

    @property
    def why(self) -> str:
        """The reason that a batch shows which waits for it."""
        reason = f" ({self.reason})" if self.reason else ""
        return f"paused by {self.by}{reason}; `batchling resume {self.name}` lets it continue"


def pauses(fields: Mapping[bytes, bytes]) -> list[Pause]:
    """Return the pauses of the hash that can be read, the oldest first."""
    found = (Pause.decode(field, raw) for field, raw in fields.items())
    return sorted((one for one in found if one is not None), key=lambda one: one.at)


def pause_of(lane_id: LaneId, spec: LaneSpec, found: Iterable[Pause]) -> Pause | None:
    """Return the first pause that takes a lane; None if none does."""
    return next((one for one in found if one.takes(lane_id, spec)), None)
