"""Finds what opens stored answers: with the private seal key, or with the key of the calls in the environment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from redis.asyncio import Redis

from ..errors import WrongSettings
from ..operate import seal_keys
from ..settings import ClientSettings
from ..wire import sealing, version_1
from ..wire.deployment import salt
from ..wire.keys import Keys
from ..wire.roots import Root, Roots, names_account
from ..wire.routes import Routes
from ..wire.row_cipher import RowCipher

LOCKED: Final = "answer_encrypted"
LOCKED_SENTENCE: Final = (
    "This answer is encrypted with the API key of its call: run the command where that key, or "
    "BATCHLING_SEAL_PRIVATE_KEY, is in the environment."
)


class AnswerKeys:
    """The keys that this process can find for answers, by the fingerprint that stands beside each of them."""

    def __init__(
        self, redis: Redis, keys: Keys, used: ClientSettings, environment: Mapping[str, str]
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._used = used
        self._environment = environment
        # Nothing is encrypted with it: in clear, only failures count as answers.
        in_clear = None if keys.version == version_1.VERSION else RowCipher(b"", "")
        self._found: dict[str, RowCipher | None] = {"": in_clear}

    async def of(self, fingerprints: Iterable[str]) -> dict[str, RowCipher | None]:
        """Return what opens the answers of each fingerprint, '' for those in clear; None where nothing at hand does."""
        for fingerprint in set(fingerprints) - self._found.keys():
            root = await self._by_seal_key(fingerprint) or await self._by_environment(fingerprint)
            self._found[fingerprint] = None if root is None else root.cipher()
        return self._found

    async def _by_seal_key(self, fingerprint: str) -> Root | None:
        private_keys = private_keys_at_hand(self._used, self._environment)
        if not private_keys:
            return None
        sealed: Any = await self._redis.execute_command("GET", self._keys.reader(fingerprint))
        try:
            opened = None if sealed is None else sealing.unseal(sealed, private_keys)
        except (sealing.SealBroken, sealing.UnreadableSealKey):
            return None
        if opened is None or opened.namespace != self._keys.namespace:
            return None
        root = Root(opened.root, named=names_account(fingerprint))
        return root if root.matches(fingerprint) else None

    async def _by_environment(self, fingerprint: str) -> Root | None:
        salted = await salt.find(self._redis, self._keys)
        if salted is None:
            return None
        used, secret = self._used, self._used.account_secret
        roots = Roots(used.namespace, salted, secret.get_secret_value() if secret else "")
        if names_account(fingerprint):
            providers = [route.provider for route in used.routes().routes]
            found = (roots.of_account(used.account, one) for one in providers if used.account)
        else:
            found = (roots.of_credential(one) for one in _credentials(used.routes(), self._environment))
        # Slow by intention: others on this loop go on meanwhile.
        return await asyncio.to_thread(
            lambda: next((root for root in found if root.matches(fingerprint)), None)
        )


def private_keys_at_hand(used: ClientSettings, environment: Mapping[str, str]) -> Sequence[str]:
    """Return the private seal keys of the environment, else those of `home/keys`, where there are any."""
    given = seal_keys.of_settings(used, environment)
    if given is not None:
        return given
    try:
        return seal_keys.stored(used.home)
    except WrongSettings:
        return ()


def _credentials(routes: Routes, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the credential headers that the providers' SDKs build from their variables."""
    found: list[dict[str, str]] = []
    for route in routes.routes:
        for header in route.credential_headers:
            value = environment.get(route.variables.get(header, ""), "").strip()
            if value and {"authorization": value} not in found:
                # The same secret has the same fingerprint in every header.
                found.append({"authorization": value})
    return found
