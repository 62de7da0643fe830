"""The port: one kind of call of one SDK, and what the tests of the matrix need to know of it."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel

from batchling_client.wire.routes import Routes

CALLERS: Final = ("openai", "groq", "anthropic", "mistralai", "google_genai", "together")
"""The SDKs: each has a module of its name in `callers`, with its `CALLERS`."""

BAD_REQUEST, TOO_MANY, BROKEN = 400, 429, 500


class Verdict(BaseModel):
    """What structured calls ask for."""

    reason: str
    score: int


Ask = Callable[[Any, str], Any]
"""Sends a prompt with a client; what an asynchronous one gives is awaited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structured:
    """How an SDK is asked for a `Verdict`; the sandbox gives the prompt as its reason."""

    ask: Ask
    async_ask: Ask | None = None
    verdict: Callable[[Any], Any]
    """The Verdict in the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """How an SDK is asked for the HTTP response, which it can still parse."""

    ask: Ask
    request_id: str
    """The header with the provider's id of the request."""
    on_answer: bool = False
    """Whether the answer has it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """How a call is made with both clients of an SDK, and what comes out."""

    sdk: str
    """The distribution."""
    call: str
    """The call as the SDK spells it, and where it is pointed elsewhere, at whom."""
    provider: str
    """The provider whose emulator answers."""
    client: Callable[[str], AbstractContextManager[Any]]
    """The blocking client, with an API key."""
    async_client: Callable[[str], AbstractAsyncContextManager[Any]]
    ask: Ask
    async_ask: Ask | None = None
    """Instead of `ask` with the asynchronous client, where the SDK has other names for it."""
    typed: str
    """The class of the answer: its module and name."""
    content: Callable[[Any], Any]
    """What of the answer depends on the prompt."""
    expected: Callable[[str], Any] | None = None
    """The content that the sandbox makes of a prompt; None: a text that quotes it."""
    errors: Mapping[int, str]
    """Status -> the exception that the SDK raises for it: its module and name."""
    row_statuses: tuple[int, ...] = (BAD_REQUEST, TOO_MANY, BROKEN)
    """Those that the provider's rows tell; some tell a code at most, for which the adapter chooses one."""
    status: Callable[[Any], int]
    """The status that an exception tells."""
    terms: Mapping[str, Any] = field(default_factory=dict)
    """What the provider needs to be told in `batchify`."""
    structured: Structured | None = None
    raw: Raw | None = None
    told_of_failure: Literal["by us", "by us, without a reason", "by the provider", "never"] = "by us"
    """Who says that a batch failed as a whole: the provider where it gives an HTTP error, nobody where none can."""

    @property
    def title(self) -> str:
        return f"{self.sdk} {self.call}"

    def __str__(self) -> str:
        return self.title.replace(" ", "-")

    def holds(self, answer: Any, prompt: str) -> bool:
        """Whether an answer is the sandbox's to this prompt, in the SDK's own class."""
        content = self.content(answer)
        meant = content == self.expected(prompt) if self.expected else f"(Asked: {prompt})" in content
        return type(answer) is named(self.typed) and meant


def named(place: str) -> type[Any]:
    """The class at `module:name`; the module may be one of several, split by `|`, as SDKs move what they have."""
    modules, _, name = place.partition(":")
    for module in modules.split("|"):
        try:
            found: type[Any] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
        return found
    raise ImportError(place)


@functools.cache
def version(sdk: str) -> tuple[int, ...]:
    """The installed version of a distribution, comparable."""
    return tuple(int(part) for part in importlib.metadata.version(sdk).split(".")[:3])


def stainless_errors(module: str) -> dict[int, str]:
    """The exceptions of the SDKs that one generator makes: openai's and its kin."""
    return {
        BAD_REQUEST: f"{module}:BadRequestError",
        TOO_MANY: f"{module}:RateLimitError",
        BROKEN: f"{module}:InternalServerError",
    }


def callers() -> list[Caller]:
    """Every caller whose provider is registered."""
    modules = [importlib.import_module(f"{__package__}.callers.{name}") for name in CALLERS]
    found: list[Caller] = [caller for module in modules for caller in module.CALLERS]
    return [caller for caller in found if Routes().named(caller.provider) is not None]
