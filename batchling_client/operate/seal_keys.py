"""Changes a deployment's seal keys without stranding a request, and finds which of them are still needed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import WatchError

from ..errors import BatchlingError, WrongSettings
from ..settings import ClientSettings
from ..views.inspection import Inspection
from ..wire import sealing
from ..wire.deployment import keyring, seal_key_files, setting_files
from ..wire.keys import Keys
from ..wording import counted

TAKEN_UP_S: Final = 30.0
"""How long the live workers may take to hold a new key; they look for one every five seconds."""
LOOK_EVERY_S: Final = 0.2
SCANNED_AT_ONCE: Final = 1_000


class KeysInUse(BatchlingError):
    """A seal key cannot be changed or dropped, because something would be stranded."""

    code = "keys_in_use"
    sentence = "A seal key cannot be changed or dropped, because something would be stranded."


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Rotated:
    """What `batchling keys rotate` did, or leaves to do by hand."""

    seal_for: str
    """Digest of the public key that callers are to seal for."""
    opens: tuple[str, ...]
    """Digests of all keys that workers open afterwards."""
    public_key: str | None
    private_keys: str | None
    """The new values of the settings, to be changed by hand; None if the keys are in the home."""
    steps: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what `batchling keys rotate --json` prints."""
        return {
            "seal_for": self.seal_for,
            "opens": list(self.opens),
            "public_key": self.public_key,
            "private_keys": self.private_keys,
            "steps": list(self.steps),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """What `batchling keys retire` did, or leaves to do by hand."""

    dropped: tuple[str, ...]
    """Digests of the keys that are needed no more."""
    n_sealed_anew: int
    n_unreadable: int
    """Stored credentials that none of the keys opens, so that no worker can use them."""
    steps: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what `batchling keys retire --json` prints."""
        return {
            "dropped": list(self.dropped),
            "n_sealed_anew": self.n_sealed_anew,
            "n_unreadable": self.n_unreadable,
            "steps": list(self.steps),
        }


def of_settings(used: ClientSettings, environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the private keys that the environment names, () if it names none but keys are set; None = in the home."""
    given = {name.upper(): value for name, value in environment.items() if value}
    path = given.get(keyring.NAME + setting_files.SUFFIX)
    try:
        if keyring.NAME in given:
            return keyring.parsed(given[keyring.NAME])
        if path:
            return keyring.parsed(setting_files.read(Path(path), keyring.NAME + setting_files.SUFFIX))
    except (sealing.UnreadableSealKey, setting_files.UnusableFile) as error:
        said = str(error)
    else:
        return () if used.seal_public_key else None
    raise WrongSettings(said)


def rotated_by_hand(present: Sequence[str]) -> Rotated:
    """Return a new pair as settings, and the order in which people change them."""
    public, private = sealing.new_pair()
    older = ",".join(present) or "PRESENT_VALUE"
    return Rotated(
        seal_for=sealing.digest(public),
        opens=tuple(_digests((private, *present))),
        public_key=public,
        private_keys=f"{private},{older}",
        steps=(
            f"Give every worker the new {keyring.NAME}, and restart workers that do not read it from a file.",
            "Then give callers the new BATCHLING_SEAL_PUBLIC_KEY; programs that run with the old key go on.",
            f"Later run `batchling keys retire` with the workers' {keyring.NAME}, and remove the old key from it.",
        ),
    )


async def rotate(home: Path, inspection: Inspection | None, *, within_s: float = TAKEN_UP_S) -> Rotated:
    """Make a new pair of keys in a home that callers seal for from now on; the older keys still open.

    The new key is stored behind the present one first, until every live worker opens it: a caller that sealed for it
    before would find no worker that can serve it. Raise `KeysInUse`, with the keys as they were, if a worker does not.
    """
    with contextlib.suppress(sealing.UnreadableSealKey):
        seal_key_files.stored_pair(home)
    stored(home)
    try:
        with seal_key_files.changing(home):
            present = _stored(home)
            public, private = sealing.new_pair()
            digest = sealing.digest(public)
            if len(present) >= keyring.MOST:
                raise KeysInUse(f"There are {len(present)} keys already: run `batchling keys retire` first.")
            seal_key_files.replace(home, (*present, private))
            try:
                closed = await _closed_to(digest, inspection, within_s)
            except BaseException:
                seal_key_files.replace(home, present)
                raise
            if closed:
                seal_key_files.replace(home, present)
                raise KeysInUse(
                    f"Nothing was changed: the worker {', '.join(closed)} did not take up a new key. It reads its keys "
                    "from settings or another home, or is of an older release."
                )
            seal_key_files.replace(home, (private, *present))
    except BlockingIOError:
        raise KeysInUse("Another process changes the keys of this home at the moment.") from None
    return Rotated(
        seal_for=digest,
        opens=tuple(_digests((private, *present))),
        public_key=None,
        private_keys=None,
        steps=("Later run `batchling keys retire`, which drops the old key once nothing needs it.",),
    )


async def _closed_to(digest: str, inspection: Inspection | None, within_s: float) -> list[str]:
    """Return the live workers that cannot open what is sealed for a key, once they had time to read it."""
    closed: list[str] = []
    loop = asyncio.get_running_loop()
    by = loop.time() + within_s
    while inspection is not None:
        closed = [worker.name for worker in await inspection.workers() if not worker.can_open(digest)]
        if not closed or loop.time() > by:
            break
        await asyncio.sleep(LOOK_EVERY_S)
    return closed


async def retire(
    redis: Redis, keyspaces: Sequence[Keys], private_keys: Sequence[str], home: Path | None, *, reseal: bool
) -> Retired:
    """Drop every private key but the current one; raise `KeysInUse` while a stored credential needs an older one.

    With `reseal`, seal such credentials for the current key instead. Without a home, people change the settings.
    """
    current, older = private_keys[0], private_keys[1:]
    public = sealing.public_half(current)
    n_anew = n_needed = n_unreadable = 0
    for keys in keyspaces:
        for pattern in (keys.credential("*"), keys.reader("*")):
            async for place in redis.scan_iter(match=pattern, count=SCANNED_AT_ONCE):
                found = await _moved_to(redis, place, private_keys, public if reseal else None)
                n_anew += found == "anew"
                n_needed += found == "needed"
                n_unreadable += found == "unreadable"
    if n_needed and older:
        raise KeysInUse(
            f"Nothing was dropped: {counted(n_needed, 'stored credential')} can only be opened with an older key. "
            "Give --reseal, which seals them for the current key, or wait until they expire: what opens answers stays "
            "for 35 days."
        )
    if home is not None and older:
        try:
            with seal_key_files.changing(home):
                if _stored(home) != tuple(private_keys):
                    raise KeysInUse("The keys of this home have changed meanwhile: run the command again.")
                seal_key_files.replace(home, (current,))
        except BlockingIOError:
            raise KeysInUse("Another process changes the keys of this home at the moment.") from None
    by_hand = f"Remove every key but the first from the {keyring.NAME} of each worker, and restart workers that do not "
    return Retired(
        dropped=tuple(_digests(older)),
        n_sealed_anew=n_anew,
        n_unreadable=n_unreadable,
        steps=(f"{by_hand}read it from a file.",) if home is None and older else (),
    )


async def _moved_to(redis: Redis, place: bytes, private_keys: Sequence[str], public: str | None) -> str:
    """Return how a stored credential is opened; seal it anew for `public` if only an older key opens it."""
    for _ in range(8):
        async with redis.pipeline(transaction=True) as pipe:
            await pipe.watch(place)
            if await pipe.type(place) != b"string":
                return "gone"
            left_ms, sealed = await pipe.pttl(place), await pipe.get(place)
            if not isinstance(sealed, bytes):
                return "gone"
            opener = sealing.opener(sealed, private_keys)
            if not opener or public is None:
                return {None: "unreadable", 0: "current"}.get(opener, "needed")
            pipe.multi()
            anew = sealing.sealed_anew(sealed, private_keys[opener], public)
            pipe.set(place, anew, px=left_ms if left_ms > 0 else None)
            try:
                await pipe.execute()
            except WatchError:
                # A caller stored a newer credential meanwhile, which must not be overwritten.
                continue
            return "anew"
    return "needed"


def _stored(home: Path) -> tuple[str, ...]:
    return keyring.parsed(seal_key_files.private_text(home))


def stored(home: Path) -> tuple[str, ...]:
    """Return the private keys of a home, the current one first; raise `WrongSettings`."""
    try:
        return _stored(home)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else type(error).__name__
    except sealing.UnreadableSealKey as error:
        why = str(error)
    raise WrongSettings(f"The seal keys in {home / seal_key_files.FOLDER} cannot be read: {why}.")


def _digests(private_keys: Sequence[str]) -> list[str]:
    return [sealing.digest(sealing.public_half(one)) for one in private_keys]
