"""The environment in which a program and its SDKs find the sandbox, and no real API key."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Mapping
from typing import Final

from batchling_client.wire.rehearsing import NO_ACCOUNT, SANDBOX, SERVED
from batchling_client.wire.routes import ROUTES

from . import emulator

_BEARER: Final = "AWS_BEARER_TOKEN_BEDROCK"
"""Always set: AWS' own SDK asks for some credential, and prefers this one for Bedrock."""
_OTHER_KEYS: Final = re.compile(
    r"BATCHLING_PROVIDERS__\w+__API_KEY|(?:OPENAI|ANTHROPIC)_ADMIN(?:_API)?_KEY|ANTHROPIC_\w*(?:KEY|TOKEN)"
    r"|AZURE_\w*API_KEY|GOOGLE_API_KEY|TOGETHERAI_API_KEY|REPLICATE_API_TOKEN|CO_API_KEY"
    r"|(?:AI21|CEREBRAS|COHERE|DASHSCOPE|DEEPINFRA|DEEPSEEK|FIREWORKS|FIREWORKS_AI|HYPERBOLIC|JINA|MOONSHOT|NEBIUS"
    r"|NVIDIA|NVIDIA_NIM|OPENROUTER|PERPLEXITY|PERPLEXITYAI|SAMBANOVA|VOYAGE|ZAI)_API_KEY",
    re.IGNORECASE,
)
"""Replaced where they are set: keys of endpoints in the settings, and of hosts that the sandbox does not play."""


def variables(
    url: str, served: Collection[str] = (), environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return what a program's environment is to hold for a sandbox at this URL.

    `served` are the providers that it stands in for, by default all; keys in `environment` are replaced too.
    """
    before = environment or {}
    told = {SANDBOX: url, SERVED: ",".join(served)}
    for route in ROUTES:
        for header, name in route.variables.items():
            always = header == route.api_key_header and not name.startswith("BATCHLING_")
            if header in route.credential_headers and (always or name in before):
                told[name] = NO_ACCOUNT
        if not served or route.provider in served:
            module = importlib.import_module(f"{__package__}.{route.provider}")
            pointing: Mapping[str, str] = getattr(module, "BASE_URL_VARIABLES", {})
            told.update({name: f"{url}/{route.provider}{path}" for name, path in pointing.items()})
    told[_BEARER] = NO_ACCOUNT
    told.update({name: NO_ACCOUNT for name in before if _OTHER_KEYS.fullmatch(name)})
    # A proxy for the outside world does not reach the loopback interface.
    for name in ("NO_PROXY", "no_proxy"):
        told[name] = ",".join(filter(None, (before.get(name, ""), "127.0.0.1")))
    return told


def provider_settings(url: str) -> dict[str, str]:
    """Return the settings that point workers at the sandbox, whichever host of a provider a call names."""
    told: dict[str, str] = {}
    for name in emulator.names():
        told |= emulator.settings(name, f"{url}/{name}")
        told[f"BATCHLING_PROVIDERS__{name.upper()}__ALL_HOSTS"] = "true"
    return told
