"""Seals callers' credentials so that only workers can open them (libsodium sealed boxes), each for one use."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final, SupportsIndex

import msgspec
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

FORM: Final = 2
"""The form of a sealed credential, which has been that of wire version 2 on."""


class UnreadableSealKey(ValueError):
    """A seal key is not 32 bytes of base64; `batchling keys new` prints a pair."""


class SealBroken(ValueError):
    """A sealed credential was not made for these private keys."""


class Hidden(str):
    """A secret in a frame that may raise: a traceback that prints the values of names shows asterisks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, at: SupportsIndex | slice) -> Hidden:
        return Hidden(super().__getitem__(at))


class Credential(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A caller's credential, and the only use it may be put to."""

    form: int = FORM
    namespace: str
    provider: str
    host: str
    """The host or base URL of its lanes."""
    root: bytes
    """What its fingerprint, its request ids and the key of its rows are derived from."""
    headers: dict[str, str]
    """Credential headers and, marked, what travels beside them (see `carried`); empty where only answers are read."""

    def __repr__(self) -> str:
        return f"Credential(provider={self.provider!r}, host={self.host!r})"

    __str__ = __repr__


_decoder: Final = msgspec.json.Decoder(Credential)


def new_pair() -> tuple[str, str]:
    """Return a fresh (public, private) pair of seal keys, base64."""
    private = PrivateKey.generate()
    return _text(bytes(private.public_key)), _text(bytes(private))


def public_half(private_key: str) -> str:
    """Return the public key that belongs to a private one; raise `UnreadableSealKey`."""
    return _text(bytes(PrivateKey(raw_key(private_key)).public_key))


def digest(public_key: str) -> str:
    """Return 16 hex digits that identify a public key."""
    return hashlib.blake2b(raw_key(public_key), digest_size=8).hexdigest()


def seal(credential: Credential, public_key: str) -> bytes:
    """Seal a credential for the holder of the private key; raise `UnreadableSealKey`."""
    return SealedBox(PublicKey(raw_key(public_key))).encrypt(msgspec.json.encode(credential))


def unseal(sealed: bytes, private_keys: Sequence[str]) -> Credential:
    """Return the credential, opened with the first of the keys that fits; raise `SealBroken` or `UnreadableSealKey`."""
    credential = _opened(sealed, private_keys)
    if credential is None:
        raise SealBroken("the credential was sealed for another private key")
    return credential


def opener(sealed: bytes, private_keys: Sequence[str]) -> int | None:
    """Return the place of the first private key that opens a box, whatever is in it; None if none does."""
    for place, private_key in enumerate(private_keys):
        try:
            SealedBox(PrivateKey(raw_key(private_key))).decrypt(sealed)
        except (CryptoError, ValueError):
            continue
        return place
    return None


def sealed_anew(sealed: bytes, private_key: str, public_key: str) -> bytes:
    """Return a box with the same content for the holder of another private key."""
    content = SealedBox(PrivateKey(raw_key(private_key))).decrypt(sealed)
    return SealedBox(PublicKey(raw_key(public_key))).encrypt(content)


def _opened(sealed: bytes, private_keys: Sequence[str]) -> Credential | None:
    for private_key in private_keys:
        try:
            credential = _decoder.decode(SealedBox(PrivateKey(raw_key(private_key))).decrypt(sealed))
        except (CryptoError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        return credential if credential.form == FORM else None
    return None


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def raw_key(text: str) -> bytes:
    """Return the 32 bytes of a seal key; raise `UnreadableSealKey`."""
    raw = _raw(text)
    if len(raw) != PublicKey.SIZE:
        # It may be most of a key.
        del raw
        raise UnreadableSealKey("A seal key is 32 bytes of base64: make a pair with `batchling keys new`.")
    return raw


def _raw(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
