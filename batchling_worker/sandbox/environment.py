"""The environment of a rehearsal: a program and its SDKs find the sandbox there, and no real API key."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from batchling_client.wire.deployment.rehearsing import HOSTS, NO_ACCOUNT, SANDBOX, SERVED, STARTUP, hosts
from batchling_client.wire.routes import ROUTES

from . import emulator

_BEARER: Final = "AWS_BEARER_TOKEN_BEDROCK"
"""Replaced if it is set. AWS' own SDK sends it over TLS only, which the sandbox does not speak: the SDK then keeps its
own endpoint, and batchling sends the calls of its process to the sandbox."""
_AWS_KEY: Final = {"AWS_ACCESS_KEY_ID": NO_ACCOUNT, "AWS_SECRET_ACCESS_KEY": NO_ACCOUNT}
"""Set if no others are found, because AWS' own SDK signs no call without a credential."""
_AWS_CREDENTIALS: Final = re.compile(
    r"AWS_(?:ACCESS_KEY_ID|PROFILE|DEFAULT_PROFILE|WEB_IDENTITY_TOKEN_FILE|CONTAINER_CREDENTIALS_\w+_URI)"
)
_AWS_FILES: Final = {
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    "AWS_CONFIG_FILE": "~/.aws/config",
}
_AMAZON: Final = Path("/sys/class/dmi/id/sys_vendor")
"""The vendor of this machine: Amazon's machines have credentials that no variable shows."""
_OTHER_KEYS: Final = re.compile(
    r"BATCHLING_PROVIDERS__\w+__API_KEY|(?:OPENAI|ANTHROPIC)_ADMIN(?:_API)?_KEY|ANTHROPIC_\w*(?:KEY|TOKEN)"
    r"|AZURE_\w*API_KEY|GOOGLE_API_KEY|TOGETHERAI_API_KEY|REPLICATE_API_TOKEN|CO_API_KEY"
    r"|(?:AI21|CEREBRAS|COHERE|DASHSCOPE|DEEPINFRA|DEEPSEEK|FIREWORKS|FIREWORKS_AI|HYPERBOLIC|JINA|MOONSHOT|NEBIUS"
    r"|NVIDIA|NVIDIA_NIM|OPENROUTER|PERPLEXITY|PERPLEXITYAI|SAMBANOVA|VOYAGE|ZAI)_API_KEY",
    re.IGNORECASE,
)
"""Replaced if they are set: keys of endpoints in the settings, and of hosts that the sandbox does not emulate."""

PYTHONPATH: Final = "PYTHONPATH"
_BASE_URL: Final = re.compile(r"BATCHLING_PROVIDERS__\w+__BASE_URL", re.IGNORECASE)


def variables(
    url: str, served: Collection[str] = (), environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment variables of a program that uses the sandbox at this URL.

    `served` are the providers that the sandbox replaces, by default all; keys in `environment` are replaced too.
    """
    before = environment or {}
    told = {SANDBOX: url, SERVED: ",".join(served)}
    told[HOSTS] = ",".join(dict.fromkeys((*hosts(ROUTES), *_own_hosts(before))))
    told[PYTHONPATH] = os.pathsep.join(filter(None, (str(STARTUP), before.get(PYTHONPATH, ""))))
    for route in ROUTES:
        for header, name in route.variables.items():
            always = header == route.api_key_header and not name.startswith("BATCHLING_")
            if header in route.credential_headers and (always or name in before):
                told[name] = NO_ACCOUNT
        if not served or route.provider in served:
            module = emulator.module_of(route.provider)
            pointing: Mapping[str, str] = getattr(module, "BASE_URL_VARIABLES", {})
            told.update({name: f"{url}/{route.provider}{path}" for name, path in pointing.items()})
    if before.get(_BEARER):
        for name in [name for name in told if name.startswith("AWS_ENDPOINT_URL")]:
            del told[name]
    elif not _has_aws_credentials(before):
        told |= _AWS_KEY
    told.update({name: NO_ACCOUNT for name in before if _OTHER_KEYS.fullmatch(name)})
    # A proxy for the outside world does not reach the loopback interface.
    for name in ("NO_PROXY", "no_proxy"):
        told[name] = ",".join(filter(None, (before.get(name, ""), "127.0.0.1")))
    return told


def _has_aws_credentials(environment: Mapping[str, str]) -> bool:
    """Return whether AWS' own SDK will find a credential; the program then keeps it."""
    if any(_AWS_CREDENTIALS.fullmatch(name) and value for name, value in environment.items()):
        return True
    files = (environment.get(name) or usual for name, usual in _AWS_FILES.items())
    if any(Path(file).expanduser().is_file() for file in files):
        return True
    with contextlib.suppress(OSError):
        return "Amazon" in _AMAZON.read_text(errors="replace")
    return False


def _own_hosts(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the hosts of endpoints in the settings, except those of this machine."""
    for name, value in environment.items():
        if _BASE_URL.fullmatch(name):
            host = urlsplit(value).hostname
            if host and host not in ("localhost", "127.0.0.1", "::1"):
                yield host


def provider_settings(url: str) -> dict[str, str]:
    """Return the settings that point workers at the sandbox, for every host of each provider."""
    told: dict[str, str] = {}
    for name in emulator.names():
        told |= emulator.settings(name, f"{url}/{name}")
        told[f"BATCHLING_PROVIDERS__{name.upper()}__ALL_HOSTS"] = "true"
    return told
