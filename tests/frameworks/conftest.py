"""The deployment and the books of tests/sdks, and the environment for frameworks."""

from __future__ import annotations

import os

# LiteLLM reads this at import; without it, it first fetches its list of models from a server.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import pytest

from tests.sdks.conftest import books, deployment, environment, key, sandbox

__all__ = ["api_keys", "books", "deployment", "environment", "key", "sandbox"]


@pytest.fixture(autouse=True)
def api_keys(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set API keys, so that each test has its own account."""
    for provider in ("OPENAI", "GROQ", "ANTHROPIC"):
        monkeypatch.setenv(f"{provider}_API_KEY", key)
