"""Encrypts the rows and results of a credential's requests: Redis holds neither prompts nor answers in clear."""

from __future__ import annotations

import hashlib
import os
from typing import Final

from nacl import bindings
from nacl.exceptions import CryptoError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
_lock: Final = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt
_open: Final = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt


class LockBroken(ValueError):
    """Encrypted bytes were made under another key, for another request or use, or were changed."""


class RowCipher:
    """Encrypts and decrypts under a key that client and worker derive from the same credential (XChaCha20-Poly1305).

    `context` says what the bytes are and whose: bytes that were encrypted in one context open in no other one.
    """

    __slots__ = ("_key", "fingerprint")

    def __init__(self, root: bytes, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        """Whose key it is, which stands beside what it encrypts."""
        self._key = hashlib.blake2b(root, digest_size=KEY_BYTES, person=b"batchling-rows").digest()

    def lock(self, plain: bytes, context: bytes) -> bytes:
        """Return the encrypted bytes, 40 more than the plain ones."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + _lock(plain, context, nonce, self._key)

    def open(self, locked: bytes, context: bytes) -> bytes:
        """Return the plain bytes; raise `LockBroken`."""
        plain = self._opened(locked, context)
        if plain is None:
            raise LockBroken("these bytes were not encrypted under this key, for this use")
        return plain

    def _opened(self, locked: bytes, context: bytes) -> bytes | None:
        try:
            return _open(bytes(locked[_NONCE_BYTES:]), context, bytes(locked[:_NONCE_BYTES]), self._key)
        except (CryptoError, ValueError, TypeError):
            return None
