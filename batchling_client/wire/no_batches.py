"""Hosts and paths that official clients can be pointed at and that have no batches, each with the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

ANY_PATH: Final = ".*"
_REGION: Final = r"[a-z]{2,4}(?:-[a-z]+)*-[0-9]{1,2}"


def host_pattern(template: str) -> re.Pattern[str]:
    """Return what a host must match, where `*` stands for a part of a name without dots; at AWS, for a region.

    Anything else than a region could be another service there, such as a bucket: bedrock-runtime.s3.amazonaws.com.
    """
    part = _REGION if template.startswith("bedrock-") else "[a-z0-9-]+"
    return re.compile(re.escape(template).replace(r"\*", part))


@dataclass(frozen=True, slots=True, kw_only=True)
class NoBatches:
    """A place whose calls pass, and why."""

    hosts: tuple[str, ...]
    """Spelt as those of a route."""
    paths: str = ANY_PATH
    """What a path must match."""
    reason: str
    """A sentence that says why, and what to do instead if there is anything."""
    _hosts: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)
    _paths: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hosts", tuple(host_pattern(host) for host in self.hosts))
        object.__setattr__(self, "_paths", re.compile(self.paths))

    def has(self, host: str, path: str) -> bool:
        """Return whether a call to this host and path goes to such a place."""
        return any(each.fullmatch(host) for each in self._hosts) and bool(self._paths.fullmatch(path))


VERTEX_HOSTS: Final = (
    "aiplatform.googleapis.com",
    "*-aiplatform.googleapis.com",
    "aiplatform.*.rep.googleapis.com",
)
_CERTIFICATE: Final = (
    "The hosts of {} with mutual TLS ask for a client certificate, which workers do not have."
)

NO_BATCHES: Final = (
    NoBatches(
        hosts=("mtls.api.openai.com", "mtls-us.api.openai.com", "mtls-eu.api.openai.com"),
        reason=f"{_CERTIFICATE.format('OpenAI')} api.openai.com and its regions have batches.",
    ),
    NoBatches(
        hosts=(
            "generativelanguage.mtls.googleapis.com",
            "aiplatform.mtls.googleapis.com",
            "*-aiplatform.mtls.googleapis.com",
        ),
        reason=f"{_CERTIFICATE.format('Google')} Set GOOGLE_API_USE_CLIENT_CERTIFICATE=false to have calls batched.",
    ),
    NoBatches(
        hosts=("*.openai.azure.us", "*.services.ai.azure.us", "*.cognitiveservices.azure.us"),
        # https://learn.microsoft.com/azure/foundry/foundry-models/concepts/deployment-types-gov, 2026-11-29
        reason="Azure Government has no batch deployments.",
    ),
    NoBatches(
        hosts=("*.openai.azure.cn", "*.cognitiveservices.azure.cn"),
        reason="Batches of Azure in China are not documented.",
    ),
    NoBatches(
        hosts=("*.services.ai.azure.com",),
        paths="/anthropic/.*",
        # The SDK takes `batches` off its Foundry client: anthropic 2.14, lib/foundry.py.
        reason="Claude in Microsoft Foundry has no batches.",
    ),
    NoBatches(
        hosts=("bedrock-mantle.*.api.aws",),
        # https://docs.aws.amazon.com/bedrock/latest/userguide/endpoints.html, 2026-11-29
        reason="The bedrock-mantle endpoint has no batches; calls to bedrock-runtime are batched.",
    ),
    NoBatches(
        hosts=("claude.googleapis.com",),
        reason="Batches of the Claude Platform on Google Cloud are not documented.",
    ),
    NoBatches(
        hosts=("generativelanguage.googleapis.com", "generativelanguage.mtls.googleapis.com"),
        paths=r"/v\d+[a-z0-9]*/openai/.*",
        # Its batches take files that only the Gemini API itself can store (ai.google.dev/gemini-api/docs/openai).
        reason="batchling does not batch Gemini's OpenAI-compatible calls; those of google-genai are batched.",
    ),
    NoBatches(
        hosts=("generativelanguage.googleapis.com",),
        paths=r"/v\d+[a-z0-9]*/interactions",
        reason="Gemini's batches do not take interactions; calls of generate_content are batched.",
    ),
    NoBatches(
        hosts=VERTEX_HOSTS,
        paths=r"/v\d+[a-z0-9]*/publishers/.*",
        reason="Batches of Vertex AI belong to a project: give the client a project and a location, and no API key.",
    ),
    NoBatches(
        hosts=VERTEX_HOSTS,
        paths=r".*/publishers/(?!google/).*",
        reason="batchling batches Google's own models of Vertex AI only.",
    ),
    NoBatches(
        hosts=VERTEX_HOSTS,
        paths=r".*/endpoints/.*",
        reason="batchling batches calls of Vertex AI to published models only, not to endpoints.",
    ),
)
