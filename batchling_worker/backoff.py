"""Draw the pauses between two tries of a call: each worker draws its own, so that workers do not march in step."""

from __future__ import annotations

import random
from typing import Final

SHORTEST_S: Final = 0.1
FIRST_S: Final = 1.0
LONGEST_S: Final = 300.0
PARKED_S: Final = 30.0
"""The longest pause between two looks at a paid batch whose key is refused."""


def pause_s(n_failures: int, wish_s: float | None = None) -> float:
    """Return how many seconds to leave a provider alone after so many failures in a row.

    The pause is drawn from the whole range up to a ceiling that doubles ("full jitter"), and is at least the
    `wish_s` seconds that the provider asked for.
    """
    ceiling = min(LONGEST_S, FIRST_S * 2.0 ** min(n_failures, 16))
    drawn = random.uniform(SHORTEST_S, ceiling)  # noqa: S311 - jitter, not a secret
    return max(drawn, wish_s or 0.0)


def parked_pause_s() -> float:
    """Return how many seconds a paid batch waits whose key is refused, before the provider is asked again."""
    return random.uniform(PARKED_S / 2, PARKED_S)  # noqa: S311 - jitter, not a secret
