"""Reads the tokens that an answer reports, in whichever words its provider uses."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from batchling_client.wire.records.usage_and_failure import Tokens

MOST: Final = 10**12
"""No answer has as many tokens: a larger number is a mistake, and would spoil the sums."""
UNMETERED: Final = Tokens(n_unmetered=1)


class _Details(msgspec.Struct):
    cached_tokens: Any = None
    reasoning_tokens: Any = None


class _Usage(msgspec.Struct):
    # OpenAI's chat completions and embeddings, and all who speak as it does.
    prompt_tokens: Any = None
    completion_tokens: Any = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    # OpenAI's responses, and Anthropic.
    input_tokens: Any = None
    output_tokens: Any = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None
    # Bedrock's Converse.
    converse_input: Any = msgspec.field(name="inputTokens", default=None)
    converse_output: Any = msgspec.field(name="outputTokens", default=None)
    converse_read: Any = msgspec.field(name="cacheReadInputTokens", default=None)
    converse_written: Any = msgspec.field(name="cacheWriteInputTokens", default=None)


class _UsageMetadata(msgspec.Struct):
    # Gemini, and Vertex.
    prompt: Any = msgspec.field(name="promptTokenCount", default=None)
    tool_prompt: Any = msgspec.field(name="toolUsePromptTokenCount", default=None)
    candidates: Any = msgspec.field(name="candidatesTokenCount", default=None)
    thoughts: Any = msgspec.field(name="thoughtsTokenCount", default=None)
    cached: Any = msgspec.field(name="cachedContentTokenCount", default=None)


class _Body(msgspec.Struct):
    usage: _Usage | None = None
    usage_metadata: _UsageMetadata | None = msgspec.field(name="usageMetadata", default=None)


_decoder: Final = msgspec.json.Decoder(_Body)


def tokens_of(body: bytes) -> Tokens:
    """Return the tokens that an answer reports; one unmetered answer where it reports none that can be read."""
    try:
        said = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return UNMETERED
    if said.usage_metadata is not None:
        return _of_google(said.usage_metadata)
    return UNMETERED if said.usage is None else _of_others(said.usage)


def _of_google(usage: _UsageMetadata) -> Tokens:
    if _count(usage.prompt) is None:
        return UNMETERED
    return Tokens(
        n_input=_sum(usage.prompt, usage.tool_prompt),
        n_cached=_sum(usage.cached),
        # Google counts reasoning beside the answer, the others within it.
        n_output=_sum(usage.candidates, usage.thoughts),
        n_reasoning=_sum(usage.thoughts),
    )


def _of_others(usage: _Usage) -> Tokens:
    if _count(usage.prompt_tokens) is not None:
        return _within(
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.prompt_tokens_details,
            usage.completion_tokens_details,
        )
    if _count(usage.converse_input) is not None:
        return _beside(
            usage.converse_input, usage.converse_output, usage.converse_read, usage.converse_written
        )
    if _count(usage.input_tokens) is None:
        return UNMETERED
    if usage.cache_read_input_tokens is not None or usage.cache_creation_input_tokens is not None:
        return _beside(
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_input_tokens,
            usage.cache_creation_input_tokens,
        )
    return _within(
        usage.input_tokens, usage.output_tokens, usage.input_tokens_details, usage.output_tokens_details
    )


def _within(prompt: Any, answer: Any, of_prompt: _Details | None, of_answer: _Details | None) -> Tokens:
    """Return the tokens as OpenAI counts them: those from the cache are part of the prompt's."""
    return Tokens(
        n_input=_sum(prompt),
        n_cached=_sum(of_prompt.cached_tokens if of_prompt else None),
        n_output=_sum(answer),
        n_reasoning=_sum(of_answer.reasoning_tokens if of_answer else None),
    )


def _beside(prompt: Any, answer: Any, read: Any, written: Any) -> Tokens:
    """Return the tokens as Anthropic and Bedrock count them: those of the cache stand beside the prompt's."""
    return Tokens(
        n_input=_sum(prompt, read, written),
        n_cached=_sum(read),
        n_cache_write=_sum(written),
        n_output=_sum(answer),
    )


def _sum(*said: Any) -> int:
    return sum(_count(one) or 0 for one in said)


def _count(said: Any) -> int | None:
    return said if isinstance(said, int) and not isinstance(said, bool) and 0 <= said < MOST else None
