"""Whether a POST costs money, read from its path alone: at a known provider, and at any other host."""

from __future__ import annotations

import enum
import re
from typing import Final

VERSION: Final = re.compile(r"v\d+[a-z0-9]*")
"""The part of a path that names an API's version."""


class Charge(enum.Enum):
    """What a provider charges for a call that is sent outside of batches."""

    FULL_PRICE = "full price"
    FREE = "free"
    """Nothing, or for something that no batch makes cheaper, such as a fine-tuning job."""
    UNKNOWN = "unknown"


_FREE_TAILS: Final = re.compile(
    r"(?:^|/)(?:"
    r"cancel|count_tokens|count-tokens|count-tokens:rawPredict|input_tokens|tokenize|detokenize|tokenize-text"
    r"|estimate|estimate-cost|estimate-price"
    r"|chat/completions/[^/]+"
    r"|messages/batches|uploads/[^/]+/complete|upload/complete"
    r"|threads/[^/]+/messages(?:/[^/]+)?|threads/[^/]+/runs/[^/]+"
    r")$"
)
_CHARGED_TAILS: Final = re.compile(
    r"(?:^|/)(?:"
    r"completions|complete|chat|generate|responses|responses/compact|messages|interactions"
    r"|embeddings|embed|rerank|ocr|classifications|decisions|summarize|classify"
    r"|images/(?:edits|generations|variations)|audio/(?:speech|transcriptions|translations)"
    r"|videos|videos/(?:edits|extensions|generations)|videos/[^/]+/remix"
    r"|converse|converse-stream|async-invoke"
    r"|model/.+/(?:invoke|invoke-with-response-stream|invoke-with-bidirectional-stream)"
    r"|queue/submit"
    # Runs of agents: models work behind these for as long as the run takes.
    r"|threads/runs|threads/[^/]+/runs|threads/[^/]+/runs/[^/]+/submit_tool_outputs"
    r"|sessions/[^/]+/events|automations/[^/]+/invocations|deployments/[^/]+/run|dreams"
    r"|workflows/[^/]+/execute|workflows/registrations/[^/]+/execute"
    r")$"
)
_FREE_WORDS: Final = frozenset(
    {
        *("agents", "assistants", "auth", "auth_tokens", "batch", "batches", "batchPredictionJobs"),
        *("cachedContents", "chatkit", "client", "compliance", "compute", "connectors", "containers"),
        *("content_provenance_checks", "context", "conversations", "corpora", "deployments", "dreams"),
        *("environments", "evals", "evaluation", "fileSearchStores", "files", "fine-tunes", "fine-tuning"),
        *("fine_tuning", "guardrail", "guardrail-checks", "libraries", "live", "memory_stores", "models"),
        *("moderations", "observability", "organization", "organizations", "projects", "prompts", "queue"),
        *("realtime", "rl", "service-accounts", "sessions", "shaping", "skills", "streams", "threads"),
        *("traces", "triggers", "tunedModels", "tunnels", "tuningJobs", "uploads", "user_profiles"),
        *("vaults", "vector_stores", "voice_consents", "voices", "webhook_endpoints", "webhooks"),
        *("workflows", "audio/agents", "audio/sessions", "videos/characters"),
    }
)
"""First or second words, or both, behind a path's version."""

_FREE_VERBS: Final = frozenset(
    {
        *("asyncBatchEmbedContent", "batchGenerateContent", "cancel", "computeTokens", "countTokens"),
        *("download", "fetchPredictOperation", "importFile", "register", "uploadToFileSearchStore"),
    }
)
_CHARGED_VERBS: Final = frozenset(
    {
        *("batchEmbedContents", "batchEmbedText", "embedContent", "embedText", "generateAnswer"),
        *("generateContent", "generateMessage", "generateText", "predict", "predictLongRunning"),
        *("rawPredict", "serverStreamingPredict", "streamGenerateContent", "streamRawPredict"),
    }
)
"""Verbs that Google's calls name behind a colon."""

_COSTLY_ANYWHERE: Final = re.compile(
    r"(?:"
    r"(?:^|/)(?:(?:chat/)?completions|chat/classifications|responses/compact|audio/(?:transcriptions|translations|speech)"
    r"|images/(?:generations|edits|variations)|(?:multimodal|contextualized)?embeddings|reranks?|reranking"
    r"|converse(?:-stream)?|invoke(?:-with-(?:response|bidirectional)-stream)?"
    # SageMaker, Databricks, AgentCore.
    r"|(?:async-)?invocations(?:-(?:response|bidirectional)-stream)?|agentAliases/[^/]+/sessions/[^/]+/text)"
    rf"|(?:^|/{VERSION.pattern}|/openai|/api|/ai|/inference)/responses|(?:/v1[a-z0-9]*|/anthropic|/claude)/messages"
    # Words of other APIs too: below a version only.
    rf"|/{VERSION.pattern}/(?:chat|complete|completion|embed|generate|interactions|ocr|decisions|summarize|classify"
    r"|classifications|ranking|videos(?:/(?:generations|edits|extensions|[^/]+/remix))?"
    r"|speech|speak|listen|stt|tts|text-to-speech/[^/]+|speech-to-text"
    r"|(?:text|image|video)_to_(?:video|image|speech)|inference/[^/]+/[^/]+"
    r"|(?:(?:models|deployments)/[^/]+/[^/]+/)?predictions"
    r"|threads/(?:[^/]+/)?runs|threads/[^/]+/runs/[^/]+/submit_tool_outputs)"
    # watsonx, Cloudflare, Snowflake, Oracle, DashScope, MiniMax, Predibase, fal.
    r"|/ml/v\d+/(?:deployments/[^/]+/)?text/(?:chat|generation)(?:_stream)?|/ai/run/.+|/cortex/inference:(?:complete|embed)"
    r"|/\d{8}/actions/(?:chat|(?:generate|embed|rerank|summarize)Text)|/services/aigc/[^/]+/[^/]+"
    r"|/text/chatcompletion(?:_v2|_pro)?|/llms/[^/]+/generate(?:_stream)?|/fal-ai/.+"
    rf"|:(?:{'|'.join(sorted(_CHARGED_VERBS))})"
    r")/?$"
)
"""Paths of LLM calls, whatever the host: of the providers in the registry, and of those that litellm can be pointed at.

Paths that agents run behind, and moderations that one provider charges for, cost at that provider only: elsewhere they
are anybody's.
"""


def charge(path: str, also: str = "") -> Charge:
    """Return what a POST to a path costs; `also` is a pattern of paths that a provider charges for beside the usual."""
    if _FREE_TAILS.search(path):
        return Charge.FREE
    verb = path.rpartition("/")[2].partition(":")[2]
    if verb:
        if verb in _FREE_VERBS:
            return Charge.FREE
        return Charge.FULL_PRICE if verb in _CHARGED_VERBS else Charge.UNKNOWN
    if _CHARGED_TAILS.search(path) or (also and re.fullmatch(also, path)):
        return Charge.FULL_PRICE
    first = _words(path)
    if not first or not _FREE_WORDS.isdisjoint({*first, "/".join(first)}):
        return Charge.FREE
    return Charge.UNKNOWN


def costs_anywhere(path: str) -> bool:
    """Return whether a POST to a path is an LLM call that costs money, whichever host it goes to."""
    return _COSTLY_ANYWHERE.search(path) is not None and _FREE_TAILS.search(path.rstrip("/")) is None


def _words(path: str) -> list[str]:
    """Return the first two words behind the path's last version, or the first two that are no prefix."""
    words = [word for word in path.split("/") if word]
    n_before = max((n for n, word in enumerate(words, 1) if VERSION.fullmatch(word)), default=0)
    return [word for word in words[n_before:] if word not in ("openai", "api")][:2]
