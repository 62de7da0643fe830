"""The form of requests to a provider: `tests/facts/test_NAME.py` defines the `FORM` of its provider."""

from __future__ import annotations

import enum
import functools
import importlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from batchling_worker import providers


class Ability(enum.StrEnum):
    """Abilities that not every provider has; a test names those it needs."""

    OPENAI_FILES = "its adapter is an OpenAIFiles"
    LABEL = "a batch is found by its label before it has ended"
    UPLOAD = "an input file is stored before the batch is created"
    INPUT_FILE = "an input file is uploaded, named after the label"
    RESULT_FILES = "results lie in files with ids of their own, which may come late, blank or empty"
    ROW_STATUSES = "a failed row tells its HTTP status"
    WHOLE_FAILURE = "a batch may fail as a whole, for a line that is named"
    EXPIRY = "a batch may expire with rows undone"
    UNDONE_ROWS = "results name the rows that never ran"
    CANCEL = "a batch can be cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A provider's requests, for tests that run over the registry."""

    endpoint: str
    """The endpoint, as the batch names it."""
    model: str
    slow_model: str
    body: Callable[[str, str], bytes]
    """Make the body of a request from prompt and model, as the SDK sends it."""
    text: Callable[[Any], str]
    """Return the text in the decoded body of an answer."""
    key: Callable[[str], str] = str
    """Make an API key of the provider's kind from a few letters."""
    lacks: frozenset[Ability] = frozenset()

    def can(self, *abilities: Ability) -> bool:
        """Return whether the provider has all of these abilities."""
        return not self.lacks & set(abilities)


def chat_body(prompt: str, model: str) -> bytes:
    """Return a chat completion request, as providers that follow OpenAI accept it."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}]}).encode()


def chat_text(answer: Any) -> str:
    """Return the text of a chat completion."""
    text: str = answer["choices"][0]["message"]["content"]
    return text


CHAT_FORM = Form(
    endpoint="/v1/chat/completions",
    model="llama-3.1-8b-instant",
    slow_model="openai/gpt-oss-20b",
    body=chat_body,
    text=chat_text,
)
"""The form of a provider that follows OpenAI in everything."""


@functools.cache
def form_of(provider: str) -> Form:
    """Return the form of a registered provider: that of its facts' tests, else that of chat completions."""
    name = f"tests.facts.test_{provider}"
    if importlib.util.find_spec(name) is None:
        return replace(CHAT_FORM, lacks=frozenset({Ability.OPENAI_FILES}))
    form: Form = importlib.import_module(name).FORM
    return form


def names(*abilities: Ability) -> tuple[str, ...]:
    """Return the registered providers that have all of these abilities."""
    return tuple(name for name in providers.names() if form_of(name).can(*abilities))
