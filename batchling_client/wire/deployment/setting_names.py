"""The names of every setting, and the variables that look like one and are read by nobody."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from ..routes import ROUTES
from . import setting_files

PREFIX: Final = "BATCHLING_"
SETTINGS: Final = (
    "ACCOUNT",
    "ACCOUNT_SECRET",
    "BATCH_ANSWERS_BYTES",
    "ENABLED",
    "FLOWER_HOSTS",
    "FLOWER_WITHOUT_LOGIN",
    "FSYNC_INTENT",
    "FSYNC_REPLICAS",
    "HOME",
    "HTTP_SILENCE_SECONDS",
    "KEEP_FILES",
    "KEY_HINTS",
    "LEASE_SECONDS",
    "LONGEST_ANSWER_BYTES",
    "LOG_FORMAT",
    "MAX_ATTEMPTS",
    "NAMESPACE",
    "POLL_INTERVAL_SECONDS",
    "PROVIDERS",
    "RECONCILE_PATIENCE_SECONDS",
    "REDIS_URL",
    "REMOTE_CONTROL",
    "RESULTS_PATIENCE_SECONDS",
    "RESULT_TTL_SECONDS",
    "SEAL_PRIVATE_KEY",
    "SEAL_PUBLIC_KEY",
    "TICK_SECONDS",
    *(name + setting_files.SUFFIX for name in setting_files.WITH_FILE),
)
"""Those of callers and workers, which often share an environment file: neither is surprised by the other's."""
OF_A_PROVIDER: Final = (
    "ALL_HOSTS",
    "API_KEY",
    "BASE_URL",
    "DOWNLOAD_HOSTS",
    "ENDPOINTS",
    "HEADERS",
    "LANE_HEADERS",
    "LANE_QUERY",
    "MAX_BYTES",
    "MAX_ROWS",
    "MODELS",
    "OWN_CREDENTIAL",
    "POLL_INTERVAL_SECONDS",
    "ROLE_ARN",
    "STAGING",
    "STAGING_URL",
    "WINDOWS",
    *(name + setting_files.SUFFIX for name in setting_files.PROVIDERS_WITH_FILE),
)
SET_BY_BATCHLING: Final = ("AWS_CREDENTIALS", "BLOCK_OF", "SANDBOX", "SANDBOX_HOSTS", "SANDBOX_PROVIDERS")
"""Marks that batchling leaves in the environment of child processes."""

_SLIP: Final = re.compile(r"BATCH(?:LIN|ING|LINGS|LNG|ILNG)_+")
"""The prefix, misspelt."""
_CLOSE: Final = 0.75
_SHORTEST: Final = 4
_MOST: Final = 20


class Unread(NamedTuple):
    """A variable that nobody reads."""

    name: str
    meant: str | None
    """The setting it is probably meant for."""

    def __str__(self) -> str:
        return f"Nothing reads {self.name}: " + (
            f"did you mean {self.meant}?" if self.meant else "no setting has that name."
        )


def unread(environment: Mapping[str, str]) -> list[Unread]:
    """Return the variables that look like a setting and are none, in the order of their names."""
    found = []
    for spelt, value in sorted(environment.items()):
        name = spelt.upper()
        ours = name.startswith(PREFIX)
        if not value or not (ours or _SLIP.match(name)):
            continue
        rest = name.removeprefix(PREFIX) if ours else _SLIP.sub("", name)
        if ours and _is_read(rest):
            continue
        meant = _meant(rest)
        if ours or meant is not None:
            found.append(Unread(spelt, meant and PREFIX + meant))
    return found[:_MOST]


def meant_by(word: str, names: Iterable[str]) -> str | None:
    """Return the name that a misspelt word is closest to; None if none is close."""
    word = word.replace("_", "")
    spelt = {name.replace("_", ""): name for name in names}
    close = difflib.get_close_matches(word, spelt, n=1, cutoff=_CLOSE)
    begun = [one for one in spelt if len(word) >= _SHORTEST and one.startswith(word)]
    likely = close or (begun if len(begun) == 1 else [])
    return spelt[likely[0]] if likely else None


def _is_read(rest: str) -> bool:
    setting, *below = rest.split("__")
    if setting == "PROVIDERS" and len(below) > 1:
        return below[1] in OF_A_PROVIDER
    return rest in SETTINGS or rest in SET_BY_BATCHLING or (setting == "PROVIDERS" and bool(below))


def _meant(rest: str) -> str | None:
    if rest in SETTINGS:
        return rest
    return _of_a_provider(rest) or meant_by(rest, SETTINGS)


def _of_a_provider(rest: str) -> str | None:
    """Return the provider setting that was meant by a name with too few underscores or a misspelt end."""
    word = re.sub("^PROVIDERS?_+", "", rest)
    given = word != rest
    for provider in (route.provider.upper() for route in ROUTES):
        if word.startswith(f"{provider}_"):
            field = meant_by(word.removeprefix(provider).strip("_"), OF_A_PROVIDER)
            return f"PROVIDERS__{provider}__{field}" if field else None
    name, _, last = word.partition("__")
    field = meant_by(last, OF_A_PROVIDER) if given and last else None
    return f"PROVIDERS__{name}__{field}" if field else None
