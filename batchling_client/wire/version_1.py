"""What wire version 1 did differently: credentials sealed for any use, fingerprints that anybody can compute.

Workers finish what clients of that version queued. Nothing new is written in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from . import carried
from .keys import Fingerprint, credential_name
from .sealing import SealBroken, raw_key

VERSION: Final = 1
ACCOUNT: Final = ":account"
"""Beside the headers in a sealed credential that belongs to a named account: the account's fingerprint."""
_NAMED: Final = "n"

_decoder: Final = msgspec.json.Decoder(dict[str, str])


def fingerprint(headers: Mapping[str, str]) -> Fingerprint:
    """Return 20 hex digits that identify a credential, whichever header holds the secret."""
    credentials, beside = carried.parted(headers)
    secrets = "\n".join(value.removeprefix("Bearer ").strip() for _, value in sorted(credentials.items()))
    if beside:
        secrets = f"{secrets}\n{carried.digest(beside)}"
    return Fingerprint(
        hashlib.blake2b(secrets.encode(), digest_size=10, person=b"batchling-cred").hexdigest()
    )


def account_fingerprint(name: str, provider: str, namespace: str, beside: str = "") -> Fingerprint:
    """Return 20 characters that stand for all credentials of a named account at a provider."""
    named = msgspec.json.encode(
        (namespace, provider, name, beside) if beside else (namespace, provider, name)
    )
    return Fingerprint(
        _NAMED + hashlib.blake2b(named, digest_size=10, person=b"batchling-name").hexdigest()[:19]
    )


def credential_names(whose: str, provider: str) -> tuple[str, str]:
    """Return the names under which a credential was stored: a provider's, or every provider's, as bearers were."""
    return f"{whose}.{provider}", whose


def stored_names(version: int, fingerprint: str, provider: str, host: str) -> tuple[str, ...]:
    """Return the names under which a lane's credential may be stored in a wire version, the best first."""
    if version == VERSION:
        return credential_names(fingerprint, provider)
    return (credential_name(fingerprint, provider, host),)


def seal(headers: Mapping[str, str], public_key: str, account: str = "") -> bytes:
    """Seal credential headers for the holder of the private key; raise `UnreadableSealKey`."""
    bound = {**headers, ACCOUNT: account} if account else dict(headers)
    return SealedBox(PublicKey(raw_key(public_key))).encrypt(msgspec.json.encode(bound))


def unseal(sealed: bytes, private_keys: Sequence[str]) -> dict[str, str]:
    """Return the credential headers, and `ACCOUNT` of a named account; raise `SealBroken` or `UnreadableSealKey`."""
    headers = _opened(sealed, private_keys)
    if headers is None:
        raise SealBroken("the credential was sealed for another private key")
    return headers


def unsealed_for(sealed: bytes, private_keys: Sequence[str], whose: str) -> dict[str, str] | None:
    """Return the credential headers if they are those of a fingerprint, else None; raise `SealBroken`."""
    headers = unseal(sealed, private_keys)
    account = headers.pop(ACCOUNT, "")
    named = whose.startswith(_NAMED)
    is_its = (account if named else fingerprint(headers)) == whose and bool(account) == named
    return headers if is_its else None


def _opened(sealed: bytes, private_keys: Sequence[str]) -> dict[str, str] | None:
    for private_key in private_keys:
        try:
            return _decoder.decode(SealedBox(PrivateKey(raw_key(private_key))).decrypt(sealed))
        except (CryptoError, msgspec.DecodeError, UnicodeDecodeError):
            continue
    return None
