"""Deterministic, plausible answers: equal requests get equal answers, and each answer quotes its request."""

from __future__ import annotations

import base64
import hashlib
from array import array
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from . import asked_json, schema_examples, tool_calls

_SENTENCES = (
    "A queue walked into a bar and said: I will wait.",
    "I told my computer a joke about latency; it will laugh tomorrow.",
    "My favourite hash is potatoes, unsalted.",
    "Two threads met, and neither of them knew who had said hello first.",
    "The cache forgot my birthday, but it was only an eventual present.",
    "There are two hard things: naming, and counting to three.",
    "A batch of cookies takes as long as one cookie, and costs half the patience.",
    "The pessimist sees a half-full buffer, the optimist sees back-pressure.",
)
_EMBEDDING_SIZE = 64

UNKNOWN_MODEL_PREFIX = "unknown-"


class Part(msgspec.Struct, frozen=True):
    """A piece of a message; only its text counts here."""

    text: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One message of a chat, or one item of a response's input, which may also be a tool call or its output."""

    role: str = "user"
    content: str | list[Part] | None = None
    output: str | list[Part] | None = None
    tool_calls: list[tool_calls.Call] | None = None
    name: str | None = None
    type: str | None = None


class Ask(msgspec.Struct, frozen=True):
    """The fields of a request body, of any endpoint, that its answer depends on."""

    model: str = ""
    messages: list[Message] | None = None
    input: Any = None
    prompt: Any = None
    n: int | None = None
    stream: bool | None = None
    dimensions: int | None = None
    encoding_format: str | None = None
    response_format: Any = None
    text: Any = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    url: str | None = None


RESPONSES = "/v1/responses"
DEFAULT_MODELS = {
    "/v1/moderations": "omni-moderation-latest",
    "/v1/images/generations": "gpt-image-1",
    "/v1/images/edits": "gpt-image-1",
    "/v1/videos": "sora-2",
}
"""Endpoints whose requests may leave out the model -> the model that answers such requests."""
_PROMPTED_MODEL = "gpt-5"
"""The model that answers a response request whose stored prompt names the model."""


class Answer(msgspec.Struct):
    """A successful answer: its body and the billed tokens."""

    body: dict[str, Any]
    input_tokens: int
    output_tokens: int


class Problem(msgspec.Struct, frozen=True):
    """Why a request cannot be answered, as an HTTP status, the provider's code and a sentence."""

    status: int
    code: str | None
    message: str


def tokens(text: str) -> int:
    """Return a rough number of tokens, at least 1."""
    return len(text) // 4 + 1


def question(ask: Ask) -> str:
    """Return the text that the request asks about."""
    if ask.messages:
        content = ask.messages[-1].content or ask.messages[-1].output
        if isinstance(content, list):
            return " ".join(part.text for part in content if part.text)
        return content or ""
    for value in (ask.input, ask.prompt, ask.url):
        if isinstance(value, str):
            return value
        if value is not None:
            return msgspec.json.encode(value).decode()
    return ""


def _instructions(ask: Ask) -> str:
    """Return the instructions for the model: the system prompt and the text that the request asks about."""
    system = [Ask(messages=[one]) for one in (ask.messages or ())[:-1] if one.role in ("system", "developer")]
    return "\n".join([*map(question, system), question(ask)])


def reply(ask: Ask) -> str:
    """Return the text of the answer; if the request wants JSON, return JSON that matches its schema or example."""
    asked = question(ask)
    shown = asked if len(asked) <= 100 else f"{asked[:60]} … {asked[-37:]}"
    schema = schema_examples.wanted_schema(ask.response_format, ask.text)
    if schema is None or schema is schema_examples.ANY_OBJECT:
        like = asked_json.wanted(_instructions(ask), shown)
        if like is not None:
            return msgspec.json.encode(like).decode()
    if schema is not None:
        return msgspec.json.encode(schema_examples.example(schema, shown)).decode()
    pick = _digest(asked)[0]
    return f"{_SENTENCES[pick % len(_SENTENCES)]} (Asked: {shown})"


def forced_tool(ask: Ask) -> tool_calls.Tool | None:
    """Return the tool that the request makes the model call, if any."""
    if not ask.tools:
        return None
    called: set[str] = set()
    for message in ask.messages or ():
        called.update(call.function.name for call in message.tool_calls or ())
        if message.type == "function_call" and message.name is not None:
            called.add(message.name)
    return tool_calls.forced(ask.tools, ask.tool_choice, called)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _prompt_tokens(ask: Ask) -> int:
    if not ask.messages:
        return tokens(question(ask))
    return sum(tokens(question(Ask(messages=[message]))) + 4 for message in ask.messages)


def _chat(ask: Ask, created: int) -> Answer:
    tool = forced_tool(ask)
    text = reply(ask) if tool is None else tool.arguments(question(ask))
    n_choices = max(1, ask.n or 1)
    n_in, n_out = _prompt_tokens(ask), tokens(text) * n_choices
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if tool is not None:
        function = {"name": tool.name, "arguments": text}
        call = {"id": f"call_{_digest(text).hex()}", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    why = "stop" if tool is None else "tool_calls"
    body = {
        "id": f"chatcmpl-{_digest(text).hex()}",
        "object": "chat.completion",
        "created": created,
        "model": ask.model,
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": why}
            for index in range(n_choices)
        ],
        "usage": {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out},
        "system_fingerprint": "fp_sandbox",
    }
    return Answer(body, n_in, n_out)


def _completion(ask: Ask, created: int) -> Answer:
    prompts = ask.prompt if isinstance(ask.prompt, list) and ask.prompt else [ask.prompt]
    texts = [reply(Ask(prompt=prompt)) for prompt in prompts for _ in range(max(1, ask.n or 1))]
    n_in, n_out = _prompt_tokens(ask), sum(tokens(text) for text in texts)
    choices = [
        {"index": i, "text": text, "logprobs": None, "finish_reason": "stop"} for i, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out}
    body = {
        "id": f"cmpl-{_digest(texts[0]).hex()}",
        "object": "text_completion",
        "created": created,
        "model": ask.model,
        "choices": choices,
        "usage": usage,
    }
    return Answer(body, n_in, n_out)


def _response(ask: Ask, created: int) -> Answer:
    read = _read_input(ask)
    tool = forced_tool(read)
    text = reply(read) if tool is None else tool.arguments(question(read))
    n_in, n_out = _prompt_tokens(ask), tokens(text)
    mark = _digest(text).hex()
    output: dict[str, Any] = {
        "type": "message",
        "id": f"msg_{mark}",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
    }
    if tool is not None:
        call = {"type": "function_call", "id": f"fc_{mark}", "call_id": f"call_{mark}"}
        output = {**call, "status": "completed", "name": tool.name, "arguments": text}
    body = {
        "id": f"resp_{mark}",
        "object": "response",
        "created_at": created,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": ask.model,
        "output": [output],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": ask.tool_choice or "auto",
        "tools": ask.tools or [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": n_in,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": n_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": n_in + n_out,
        },
    }
    return Answer(body, n_in, n_out)


def _input_tokens(ask: Ask, created: int) -> Answer:
    return Answer({"object": "response.input_tokens", "input_tokens": _prompt_tokens(_read_input(ask))}, 0, 0)


def _read_input(ask: Ask) -> Ask:
    """Return the request with its input items as messages."""
    if not isinstance(ask.input, list) or not ask.input:
        return ask
    try:
        return msgspec.structs.replace(ask, messages=msgspec.convert(ask.input, list[Message]))
    except msgspec.ValidationError:
        return ask


def _embedding(ask: Ask, created: int) -> Answer:
    many = isinstance(ask.input, list) and not all(isinstance(item, int) for item in ask.input)
    items = ask.input if many else [ask.input]
    vectors = [
        {"object": "embedding", "index": index, "embedding": _vector(item, ask)}
        for index, item in enumerate(items)
    ]
    n_in = _prompt_tokens(ask)
    usage = {"prompt_tokens": n_in, "total_tokens": n_in}
    return Answer({"object": "list", "data": vectors, "model": ask.model, "usage": usage}, n_in, 0)


def _vector(item: object, ask: Ask) -> list[float] | str:
    size = ask.dimensions or _EMBEDDING_SIZE
    noise = array("b", hashlib.shake_128(msgspec.json.encode(item)).digest(size))
    scale = sum(value * value for value in noise) ** 0.5 or 1.0
    vector = array("f", [value / scale for value in noise])
    if ask.encoding_format == "base64":
        return base64.b64encode(vector.tobytes()).decode()
    return vector.tolist()


_MODERATED = {
    "harassment": ("threatening",),
    "hate": ("threatening",),
    "illicit": ("violent",),
    "self-harm": ("instructions", "intent"),
    "sexual": ("minors",),
    "violence": ("graphic",),
}


def _moderation(ask: Ask, created: int) -> Answer:
    items = ask.input if isinstance(ask.input, list) else [ask.input]
    names = [name for kind, more in _MODERATED.items() for name in (kind, *(f"{kind}/{one}" for one in more))]
    verdict = {
        "flagged": False,
        "categories": dict.fromkeys(names, False),
        "category_scores": dict.fromkeys(names, 0.0001),
        "category_applied_input_types": {name: ["text"] for name in names},
    }
    mark = _digest(question(ask)).hex()
    return Answer(
        {"id": f"modr-{mark}", "model": ask.model, "results": [verdict] * len(items)}, _prompt_tokens(ask), 0
    )


def _image(ask: Ask, created: int) -> Answer:
    mark = _digest(question(ask)).hex()
    images = [{"url": f"https://sandbox.invalid/images/{mark}-{i}.png"} for i in range(max(1, ask.n or 1))]
    return Answer({"created": created, "data": images}, _prompt_tokens(ask), 1000 * len(images))


def _video(ask: Ask, created: int) -> Answer:
    mark = _digest(question(ask)).hex()
    body = {
        "id": f"video_{mark}",
        "object": "video",
        "model": ask.model,
        "status": "completed",
        "progress": 100,
        "created_at": created,
        "completed_at": created,
        "seconds": "4",
        "size": "720x1280",
    }
    return Answer(body, _prompt_tokens(ask), 10_000)


def _transcription(ask: Ask, created: int) -> Answer:
    text = reply(ask)
    return Answer({"text": text}, 0, tokens(text))


ENDPOINTS: dict[str, Callable[[Ask, int], Answer]] = {
    "/v1/chat/completions": _chat,
    "/v1/responses": _response,
    "/v1/responses/input_tokens": _input_tokens,
    "/v1/embeddings": _embedding,
    "/v1/completions": _completion,
    "/v1/moderations": _moderation,
    "/v1/images/generations": _image,
    "/v1/images/edits": _image,
    "/v1/videos": _video,
    "/v1/audio/transcriptions": _transcription,
    "/v1/audio/translations": _transcription,
}

Perform: TypeAlias = Callable[[str, bytes | msgspec.Raw, int], Answer | Problem]
"""Answer the JSON body sent to an endpoint at a unix second."""

_ask_decoder = msgspec.json.Decoder(Ask)


def perform(endpoint: str, body: bytes | msgspec.Raw, created: int) -> Answer | Problem:
    """Answer the JSON `body` sent to `endpoint` (a key of `ENDPOINTS`) at unix second `created`."""
    try:
        ask = _ask_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Problem(400, None, f"The request body is invalid: {error}.")
    return answer(endpoint, ask, created)


def answer(endpoint: str, ask: Ask, created: int) -> Answer | Problem:
    """Answer a decoded request."""
    if not ask.model:
        default = DEFAULT_MODELS.get(endpoint) or (
            _PROMPTED_MODEL if endpoint == RESPONSES and ask.prompt else ""
        )
        ask = msgspec.structs.replace(ask, model=default)
    if not ask.model:
        return Problem(400, "missing_required_parameter", "Missing required parameter: 'model'.")
    if ask.model.startswith(UNKNOWN_MODEL_PREFIX):
        message = f"The model `{ask.model}` does not exist or you do not have access to it."
        return Problem(404, "model_not_found", message)
    if endpoint == "/v1/chat/completions" and not ask.messages:
        return Problem(400, "missing_required_parameter", "Missing required parameter: 'messages'.")
    return ENDPOINTS[endpoint](ask, created)
