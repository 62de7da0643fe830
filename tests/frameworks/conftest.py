"""The deployment and the books of tests/sdks, and what frameworks are to find in the environment."""

from __future__ import annotations

import os

# Read at its import: else LiteLLM asks a server for its list of models first.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import pytest

from tests.sdks.conftest import books, deployment, environment, key, sandbox

__all__ = ["api_keys", "books", "deployment", "environment", "key", "sandbox"]


@pytest.fixture(autouse=True)
def api_keys(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account of its own for each test."""
    for provider in ("OPENAI", "GROQ", "ANTHROPIC"):
        monkeypatch.setenv(f"{provider}_API_KEY", key)
