"""Reads and checks the parameters of `batchify`."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from .. import settings
from ..errors import WrongSettings
from ..intercept.interceptor import warn_once
from ..settings import ClientSettings
from ..wire.deployment import seal_key_files
from ..wire.roots import Roots
from ..wire.routes import Routes, window_words
from ..wire.sealing import UnreadableSealKey

_NO_ACCOUNT_SECRET: Final = (
    "A named account without BATCHLING_ACCOUNT_SECRET: everybody who reaches this Redis and knows the name can read "
    "the account's answers and have requests run under its key. Give all callers the same secret (`batchling keys "
    "new` prints one)."
)

Fallback: TypeAlias = Literal["error", "realtime"]
"""What becomes of a call that no batch answers: an error, or it is sent at full price."""
DEFAULT_POLL_S: Final = 10.0
_SPAN: Final = re.compile(
    r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?"
)
_SPAN_SECONDS: Final = (86_400, 3_600, 60, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockOptions:
    """What a block does, apart from what it asks for its requests; `batchify` describes each."""

    name: str | None = None
    dry_run: bool = False
    live_display: bool = True
    deadline_s: float | None = None
    on_deadline: Fallback = "error"
    on_too_few: Fallback = "error"
    detach: bool = False
    enabled: bool = True


def check_number(name: str, value: float | None, *, least: float, whole: bool = False) -> None:
    """Raise `WrongSettings` unless a parameter is a finite number from `least` on; a whole number may be None."""
    kind = int if whole else (int, float)
    if whole and value is None:
        return
    if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value) or value < least:
        words = "a whole number" if whole else "a number"
        raise WrongSettings(f"{name} must be {words} from {least:g} on, not {value!r}.")


def check_choice(name: str, value: str, choices: tuple[str, str]) -> None:
    """Raise `WrongSettings` if a parameter has another value than these two."""
    if value not in choices:
        raise WrongSettings(f"{name} is {choices[0]!r} or {choices[1]!r}, not {value!r}.")


def check_window(value: str, routes: Routes) -> None:
    """Raise `WrongSettings` if no provider takes this completion window."""
    windows = sorted({window for route in routes.routes for window in route.windows})
    if value not in windows:
        raise WrongSettings(
            f"No provider takes a completion_window of {value!r}: use one of {window_words(windows)}."
        )


def seconds(deadline: float | str | None) -> float | None:
    """Parse a span of time into seconds: a number, or words like "90s", "2h", "1h30m"."""
    if deadline is None:
        return None
    if isinstance(deadline, str):
        match = _SPAN.fullmatch(deadline.strip())
        parts = match.groups() if match else ()
        length = sum(float(n) * unit for n, unit in zip(parts, _SPAN_SECONDS, strict=False) if n is not None)
    else:
        length = float(deadline)
    if not math.isfinite(length) or length <= 0:
        raise WrongSettings(
            f'deadline must be a number of seconds above 0 or like "2h" or "90m", not {deadline!r}.'
        )
    return length


def account_of(given: str | None, used: ClientSettings) -> str | None:
    """Return the name of the account, from the settings if none is given; raise `WrongSettings`."""
    try:
        return used.account if given is None else settings.usable_account(given)
    except ValueError as error:
        raise WrongSettings(f"account {error}.") from None


def roots_of(account: str | None, used: ClientSettings) -> Roots:
    """Return what derives fingerprints and keys in the settings' deployment; raise `WrongSettings`.

    Warn once if the name alone would open the account's requests and answers.
    """
    if account_of(account, used) is None:
        return Roots(used.namespace)
    if used.account_secret is not None:
        return Roots(used.namespace, account_secret=used.account_secret.get_secret_value())
    if used.redis_url:
        warn_once(_NO_ACCOUNT_SECRET, os.getpid())
        return Roots(used.namespace)
    try:
        return Roots(used.namespace, account_secret=seal_key_files.account_secret(used.home))
    except (OSError, UnreadableSealKey) as error:
        raise WrongSettings(
            f"The secret of accounts in {used.home / 'keys'} cannot be read ({error}): mend it, or set "
            "BATCHLING_ACCOUNT_SECRET."
        ) from None
