"""Recognizes credentials that are renewed, since the next token looks like another account's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..wire.routes import Route

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
LONGEST_TOKEN: Final = 32_768

_BEGINNINGS: Final = {
    "ya29.": "a Google access token, which is renewed every hour",
    "sk-ant-oat": "an OAuth token of Anthropic, which is renewed",
    "bedrock-api-key-": "a short-term API key of Bedrock, which ends after twelve hours",
    "AWS4-HMAC-SHA256 Credential=ASIA": "temporary AWS credentials, which are renewed",
    "ASIA": "temporary AWS credentials, which are renewed",
}
_JWT: Final = "a JWT that expires, as Entra ID and other identity providers issue them"


def kind_of(route: Route, secrets: Mapping[str, str]) -> str | None:
    """Name the kind of token a call carries if it expires and is renewed; None for a permanent key.

    A guess from the token's shape, fit for a warning. What a token claims is never taken for who sends it.
    """
    for name, value in secrets.items():
        token = value.removeprefix("Bearer ").strip()
        for beginning, words in _BEGINNINGS.items():
            if token.startswith(beginning):
                return words
        if _expires(token):
            return _JWT
        if route.renewed_bearer and name == "authorization" and token:
            return route.renewed_bearer
    return None


def _expires(token: str) -> bool:
    """Return whether this is a JWT that expires; the expiry of an encrypted JWT cannot be seen."""
    parts = token.split(".")
    if len(token) > LONGEST_TOKEN or len(parts) not in (3, 5):
        return False
    head = _object(parts[0])
    if head is None or "alg" not in head:
        return False
    return len(parts) == 5 or "exp" in (_object(parts[1]) or {})


def _object(part: str) -> dict[str, Any] | None:
    try:
        return _decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
