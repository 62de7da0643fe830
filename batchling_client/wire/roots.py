"""Derives fingerprints, request ids and the key of rows from a credential or the name of an account."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Mapping
from typing import Final

import msgspec

from . import carried
from .keys import Fingerprint, LaneId
from .row_cipher import RowCipher

ROOT_BYTES: Final = 32
SALT_BYTES: Final = 16
SCRYPT_N: Final = 2**14
"""Cost of scrypt: about 70 ms and 16 MB for each guess at a key."""
_SCRYPT_R: Final = 8
_MOST_KEPT: Final = 16_384
_NAMED: Final = "n"
"""Begins the fingerprint of an account's name, and of no credential's: those are hexadecimal."""

_process_key: Final = os.urandom(32)
_derived: Final[dict[bytes, bytes]] = {}


class _Deriving:
    def __init__(self) -> None:
        self.renew()
        # A thread of the parent may hold it when a child is forked.
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = threading.Lock()


_deriving: Final = _Deriving()


class Root:
    """32 secret bytes that a credential or an account's name gives in one deployment, and what follows from them."""

    __slots__ = ("_named", "raw")

    def __init__(self, raw: bytes, *, named: bool) -> None:
        self.raw = raw
        self._named = named

    @property
    def fingerprint(self) -> Fingerprint:
        """Return 20 characters that identify it, and tell nothing else of it."""
        digest = _digest(self.raw, b"batchling-cred", 10).hex()
        return Fingerprint(_NAMED + digest[:19] if self._named else digest)

    def identity(self, lane_id: LaneId) -> str:
        """Return what request ids of a lane are made with: without it nobody can guess a prompt and compare ids."""
        return hashlib.blake2b(
            lane_id.encode(), digest_size=16, key=self.raw, person=b"batchling-ident"
        ).hexdigest()

    def cipher(self) -> RowCipher:
        """Return what encrypts its rows and results."""
        return RowCipher(self.raw, self.fingerprint)

    def matches(self, fingerprint: str) -> bool:
        """Return whether a fingerprint is this root's."""
        return self.fingerprint == fingerprint


def names_account(fingerprint: str) -> bool:
    """Return whether a fingerprint stands for an account's name rather than for a credential."""
    return fingerprint.startswith(_NAMED)


class Roots:
    """Derives roots within one deployment, slowly, and each once in a process.

    A fresh one has no salt: it derives roots that no deployment knows, which serves a dry run that reaches no Redis.
    """

    def __init__(self, namespace: str, salt: bytes = b"", account_secret: str = "") -> None:
        self.namespace = namespace
        self.salt = salt
        self._account_secret = account_secret

    def of_credential(self, headers: Mapping[str, str]) -> Root:
        """Return the root of credential headers, whichever header holds the secret.

        What is carried beside it, for a gateway, counts with its names.
        """
        credentials, beside = carried.parted(headers)
        secrets = [value.removeprefix("Bearer ").strip() for _, value in sorted(credentials.items())]
        return Root(
            self._slowly("credential", *secrets, carried.digest(beside) if beside else ""), named=False
        )

    def of_account(self, name: str, provider: str, beside: str = "") -> Root:
        """Return the root of a named account at a provider; `beside` is the digest of what is carried for a gateway.

        Tenants behind a gateway differ by that within one account. Without a secret for the deployment's accounts, the
        name alone reaches the requests.
        """
        return Root(self._slowly("account", self._account_secret, provider, name, beside), named=True)

    def _slowly(self, *words: str) -> bytes:
        secret = msgspec.json.encode((self.namespace, *words))
        remembered = hashlib.blake2b(secret, key=_process_key, salt=self.salt).digest()
        root = _derived.get(remembered)
        if root is not None:
            return root
        # Threads that call under one key at once would all derive the same.
        with _deriving.lock:
            root = _derived.get(remembered)
            if root is None:
                root = hashlib.scrypt(secret, salt=self.salt, n=SCRYPT_N, r=_SCRYPT_R, p=1, dklen=ROOT_BYTES)
                if len(_derived) >= _MOST_KEPT:
                    _derived.clear()
                _derived[remembered] = root
        return root


def new_salt() -> bytes:
    """Return a deployment's salt; it is made once."""
    return os.urandom(SALT_BYTES)


def new_secret() -> str:
    """Return a fresh secret of a deployment's accounts."""
    return base64.urlsafe_b64encode(os.urandom(ROOT_BYTES)).decode("ascii").rstrip("=")


def _digest(raw: bytes, person: bytes, size: int) -> bytes:
    return hashlib.blake2b(raw, digest_size=size, person=person).digest()
