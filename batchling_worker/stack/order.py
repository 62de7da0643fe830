"""The order with which a process starts a supervisor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Where the stack lives and what it runs; travels as one word of the supervisor's command line, so never a key."""

    home: str
    socket: str
    redis_binary: str
    flower: bool
    redis_words: Sequence[str] = ()
    """Options that the server needs to read the data of this home."""
    followed: Mapping[str, str] = field(default_factory=dict)
    """Digests of the settings that a worker of it would have: see `State.followed`."""

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Order:
        return cls(**json.loads(text))
