"""OpenAI's Files and Batches API, as published and captured up to 2026-11-23."""

from __future__ import annotations

from collections.abc import Mapping

from ..api.file_batches import FileBatches
from ..batches.dialect import Refusal, Traits
from ..batches.openai_words import OpenAIWords
from ..batches.records import CreateAsk
from ..world import unable
from ..world.world import World

BASE_URL_VARIABLES: Mapping[str, str] = {"OPENAI_BASE_URL": "/v1", "OPENAI_API_BASE": "/v1"}
"""Variables in which SDKs look for a base URL -> the path below the provider's own."""

_BATCHABLE = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/images/edits",
        "/v1/images/generations",
        "/v1/moderations",
        "/v1/responses",
        "/v1/videos",
    }
)
_RETENTION_S = range(3600, 2592000 + 1)


class OpenAIDialect(OpenAIWords):
    """OpenAI's own: nothing differs."""

    batchable = _BATCHABLE

    traits = Traits(
        name="openai",
        root="/v1",
        realtime_endpoints=_BATCHABLE
        | {"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/responses/input_tokens"},
        purposes=frozenset({"assistants", "batch", "evals", "fine-tune", "user_data", "vision"}),
        scoping_headers=("OpenAI-Organization", "OpenAI-Project"),
        limits_creates=True,
        most_stored_bytes=100_000_000_000,
        speech="mp3",
        takes_parts=True,
        unable={**unable.NOT_PENDING, **unable.ONE_SHAPE},
    )

    def window_seconds(self, ask: CreateAsk) -> float:
        """Check everything in a create call but its file; return the completion window in seconds."""
        window_s = super().window_seconds(ask)
        _check_metadata(ask.metadata or {})
        wanted = ask.output_expires_after
        if wanted is not None and (
            wanted.get("anchor") != "created_at" or wanted.get("seconds") not in _RETENTION_S
        ):
            message = "'output_expires_after' needs the anchor 'created_at' and 3600 to 2592000 seconds."
            raise Refusal(400, message, param="output_expires_after")
        return window_s


def emulate(world: World) -> FileBatches:
    """Return OpenAI's emulator."""
    return FileBatches(world, OpenAIDialect())


def _check_metadata(metadata: dict[str, object]) -> None:
    fits = len(metadata) <= 16 and all(
        len(key) <= 64 and isinstance(value, str) and len(value) <= 512 for key, value in metadata.items()
    )
    if not fits:
        message = "'metadata' takes 16 pairs of strings, keys of 64 and values of 512 characters."
        raise Refusal(400, message, param="metadata")
