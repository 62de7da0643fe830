"""Seals callers' credentials so that only workers can open them (libsodium sealed boxes), and fingerprints them."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from . import carried
from .keys import Fingerprint

ACCOUNT: Final = ":account"
"""Beside the headers in a sealed credential that belongs to a named account: the account's fingerprint."""
_NAMED: Final = "n"
"""Begins the fingerprint of a name, and of no secret: those are hexadecimal."""

_decoder = msgspec.json.Decoder(dict[str, str])


class UnreadableSealKey(ValueError):
    """A seal key is not 32 bytes of base64; `batchling keys new` prints a pair."""


class SealBroken(ValueError):
    """A sealed credential was not made for this private key."""


def fingerprint(headers: Mapping[str, str]) -> Fingerprint:
    """Return 20 hex digits that identify a credential without revealing it, whichever header holds the secret.

    What is carried beside it, for a gateway, counts with its names.
    """
    credentials, beside = carried.parted(headers)
    secrets = "\n".join(value.removeprefix("Bearer ").strip() for _, value in sorted(credentials.items()))
    if beside:
        secrets = f"{secrets}\n{carried.digest(beside)}"
    return Fingerprint(
        hashlib.blake2b(secrets.encode(), digest_size=10, person=b"batchling-cred").hexdigest()
    )


def account_fingerprint(name: str, provider: str, namespace: str, beside: str = "") -> Fingerprint:
    """Return 20 characters that stand for all credentials of a named account at a provider.

    `beside` is the digest of what is carried for a gateway: by that, tenants of one account may differ.
    """
    named = msgspec.json.encode(
        (namespace, provider, name, beside) if beside else (namespace, provider, name)
    )
    return Fingerprint(
        _NAMED + hashlib.blake2b(named, digest_size=10, person=b"batchling-name").hexdigest()[:19]
    )


def names_account(whose: str) -> bool:
    """Return whether a fingerprint stands for an account's name rather than for a secret."""
    return whose.startswith(_NAMED)


def new_pair() -> tuple[str, str]:
    """Return a fresh (public, private) pair of seal keys, base64."""
    private = PrivateKey.generate()
    return _text(bytes(private.public_key)), _text(bytes(private))


def public_half(private_key: str) -> str:
    """Return the public key that belongs to a private one; raise `UnreadableSealKey`."""
    return _text(bytes(PrivateKey(_raw(private_key)).public_key))


def digest(public_key: str) -> str:
    """Return 16 hex digits that identify a public key."""
    return hashlib.blake2b(_raw(public_key), digest_size=8).hexdigest()


def seal(headers: Mapping[str, str], public_key: str, account: str = "") -> bytes:
    """Seal credential headers for the holder of the private key; raise `UnreadableSealKey`.

    With the fingerprint of a named account the credential is good for that account's lanes, and no others.
    """
    bound = {**headers, ACCOUNT: account} if account else dict(headers)
    return SealedBox(PublicKey(_raw(public_key))).encrypt(msgspec.json.encode(bound))


def unseal(sealed: bytes, private_keys: Sequence[str]) -> dict[str, str]:
    """Return the credential headers, and `ACCOUNT` of a named account; raise `SealBroken` or `UnreadableSealKey`."""
    for private_key in private_keys:
        try:
            return _decoder.decode(SealedBox(PrivateKey(_raw(private_key))).decrypt(sealed))
        except (CryptoError, msgspec.DecodeError, msgspec.ValidationError):
            continue
    raise SealBroken("the credential was sealed for another private key")


def opener(sealed: bytes, private_keys: Sequence[str]) -> int | None:
    """Return the place of the first private key that opens a box, whatever is in it; None if none does."""
    for place, private_key in enumerate(private_keys):
        try:
            SealedBox(PrivateKey(_raw(private_key))).decrypt(sealed)
        except (CryptoError, ValueError):
            continue
        return place
    return None


def sealed_anew(sealed: bytes, private_key: str, public_key: str) -> bytes:
    """Return a box with the same content for the holder of another private key."""
    content = SealedBox(PrivateKey(_raw(private_key))).decrypt(sealed)
    return SealedBox(PublicKey(_raw(public_key))).encrypt(content)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _raw(text: str) -> bytes:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != PublicKey.SIZE:
        raise UnreadableSealKey("A seal key is 32 bytes of base64: make a pair with `batchling keys new`.")
    return raw
