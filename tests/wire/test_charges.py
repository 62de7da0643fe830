"""Which POSTs are LLM calls that cost money, at a host that nobody knows."""

from __future__ import annotations

from typing import Final

import pytest

from batchling_client.intercept.passed import costs
from tests.client.test_unbatched import FREE

COSTLY: Final = [
    *(
        "/v1/chat/completions",
        "/chat/completions",
        "/openai/deployments/d/chat/completions",
        "/v1/completions",
    ),
    *(
        "/v1/responses",
        "/responses",
        "/v1/responses/compact",
        "/v1/embeddings",
        "/v1/messages",
        "/anthropic/v1/messages",
    ),
    *(
        "/v1/complete",
        "/v1/ocr",
        "/v1/videos",
        "/v1/videos/video_1/remix",
        "/openai/v1/videos",
        "/v1/audio/speech",
    ),
    *("/v1beta/interactions", "/v1/models/m:generateContent", "/v1/models/veo:predictLongRunning"),
    # Cohere.
    *("/v2/chat", "/v1/chat", "/v2/embed", "/v1/embed", "/v1/rerank", "/v2/rerank", "/v1/generate"),
    *(
        "/ml/v1/text/chat",
        "/ml/v1/text/chat_stream",
        "/ml/v1/text/generation",
        "/ml/v1/deployments/d/text/chat",
    ),
    *("/ml/v1/text/embeddings", "/ml/v1/text/rerank"),
    *(
        "/endpoints/e/invocations",
        "/endpoints/e/invocations-response-stream",
        "/endpoints/e/async-invocations",
    ),
    *("/serving-endpoints/e/invocations", "/invocations", "/runtimes/arn/invocations"),
    *("/model/m/invoke", "/model/m/converse-stream", "/model/m/invoke-with-bidirectional-stream"),
    *("/agents/a/agentAliases/b/sessions/c/text", "/v1/models/o/n/predictions", "/v1/predictions"),
    *("/client/v4/accounts/a/ai/run/@cf/meta/llama", "/api/v2/cortex/inference:complete"),
    *(
        "/20231130/actions/chat",
        "/20231130/actions/embedText",
        "/api/v1/services/aigc/text-generation/generation",
    ),
    *(
        "/v1/text/chatcompletion_v2",
        "/t/deployments/v2/llms/m/generate",
        "/v1/ranking",
        "/v1/retrieval/nvidia/reranking",
    ),
    *("/v1/multimodalembeddings", "/compatible-api/v1/reranks", "/v2/completion", "/v1/speech-to-text"),
    *(
        "/v1/text-to-speech/voice",
        "/v1/image_to_video",
        "/fal-ai/flux/dev",
        "/v1/inference/org/model",
        "/v1/rerank/",
    ),
]
NOT_COSTLY: Final = [
    *("/", "/generate", "/api/chat", "/v1/files", "/v1/batches", "/v1/uploads/u/complete", "/v1/tokenize"),
    *(
        "/v1/chat/completions/chatcmpl-1",
        "/v1/responses/r/cancel",
        "/v1/messages/count_tokens",
        "/v1/messages/batches",
    ),
    *("/v1/threads/t/messages", "/v1/conversations", "/v1/moderations", "/v1/models/m:countTokens"),
    *(
        "/v1/videos/characters",
        "/2010-04-01/Accounts/a/Messages",
        "/api/v4/posts",
        "/v1/users/u/messages",
        "/embed",
    ),
    *("/v1/deployments/d/run", "/v1/workflows/w/execute", "/v2/chats", "/v10/interactions/i/t/callback"),
    *("/ml/v1/text/tokenization", "/v2/tokenize", "/v1/embed-jobs", "/v1/vector_stores/v/search"),
]


@pytest.mark.parametrize("path", COSTLY)
def test_a_post_to_a_path_of_an_llm_costs_at_every_host(path: str) -> None:
    assert costs("POST", path)
    assert not costs("GET", path)


@pytest.mark.parametrize("path", [*NOT_COSTLY, *(path for _, path in FREE)])
def test_a_post_to_any_other_path_does_not(path: str) -> None:
    assert not costs("POST", path)
