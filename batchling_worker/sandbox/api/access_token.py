"""The owner of an access token: the next token of the same account has the same owner, as at a provider."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_WHOSE: Final = ("iss", "tid", "oid", "sub", "appid")
"""Claims of a JWT that stay when it is renewed. The sandbox issues no tokens and checks no signatures."""


def owner_of(key: str) -> str:
    """Return the account behind a JWT, or the key itself if it is not a JWT."""
    parts = key.split(".")
    if len(parts) != 3:
        return key
    try:
        claims = _decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return key
    whose = [str(claims[name]) for name in _WHOSE if name in claims]
    return "\n".join(whose) or key
