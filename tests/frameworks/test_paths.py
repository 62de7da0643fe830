"""For every URL that litellm makes of a base URL, it is known whether the call costs money."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from batchling_client.wire.charges import costs_anywhere

FREE: Final = re.compile(
    r".*(?:^|/)(?:files|batches|containers|vector_stores(?:/.*)?|datasets|evals/.*|skills/.*|client_secrets"
    # Web and document search, the user's own servers, agents.
    r"|search|default_(?:serving_)?config|collections/.*|dataStores/.*|api/(?:chat|generate)|runs/(?:wait|stream)"
    r"|reasoningEngines/.*|api/v1/run/.*|scaledown|enhance)"
    # Google's speech and ranking APIs, at hosts of their own.
    r"|.*:(?:rank|recognize|synthesize|streamQuery)|.*BidiGenerateContent"
)
"""URLs of calls that do not run an LLM."""
PART: Final = re.compile(
    r"/*|[^:]*://.*|.*/(?:v\d+\w*|anthropic|beta|models|deployments|projects|publishers)?/?|v\d+\w*|.*\{x\}"
    r"|.*(?:deployments?|models|projects|gemini|vertex_ai|model|fal-ai|retrieval)/(?:\{x\}|\[\^/\]\+)?/?"
)
"""Base URLs and parts of URLs to which litellm adds a path."""


def text_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(one.value) if isinstance(one, ast.Constant) else "{x}" for one in node.values)
    return None


def urls_of(source: str) -> Iterator[str]:
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef) or function.name != "get_complete_url":
            continue
        inside = {
            id(one)
            for joined in ast.walk(function)
            if isinstance(joined, ast.JoinedStr)
            for one in joined.values
        }
        texts = (text_of(node) for node in ast.walk(function) if id(node) not in inside)
        yield from (text for text in texts if text and "/" in text and not re.search(r"\s", text))


def is_costly(url: str) -> bool:
    """Return whether calls of a URL cost money under some base URL; most base URLs end in a version."""
    path = url.removeprefix("{x}").lstrip("/")
    return any(costs_anywhere(f"{base}/{path}") for base in ("", "/v1", "/20231130"))


def test_every_url_that_litellm_makes_is_known() -> None:
    spec = find_spec("litellm")
    assert spec is not None
    assert spec.submodule_search_locations
    files = Path(spec.submodule_search_locations[0], "llms").rglob("*.py")
    urls = {url for path in files for url in urls_of(path.read_text(encoding="utf-8"))}
    assert len(urls) > 50
    unknown = {
        url for url in urls if not FREE.fullmatch(url) and not PART.fullmatch(url) and not is_costly(url)
    }
    assert unknown == set()
