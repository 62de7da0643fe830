"""What is said of calls that are not batched, or not as they are: the sentences of warnings and refusals."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..intercept.interceptor import HttpCall, HttpReply
from ..intercept.passed import Why
from ..wire import carried
from ..wire.routes import Route, Unbatched, window_words
from . import replies


class Passage(NamedTuple):
    """A call that goes to its provider at full price, and the warning about it."""

    why: Why
    sentence: str


STREAMED_BODY: Final = Passage(
    Why.STREAMED_BODY,
    "A call that could be batched sends its body as a stream, which can be read only once: it goes straight "
    "to the provider at full price. Pass the body as bytes, text or json= to have it batched.",
)
_UPLOAD: Final = (
    "A call to {} {} uploads a file, which batches do not support: it is sent at full price. "
    "If the endpoint accepts a URL instead of a file, pass a URL to have it batched."
)
_URLENCODED: Final = (
    "A call to {} {} sends a form, which batches do not support: it is sent at full price. "
    "If the client can send JSON instead, send JSON to have the call batched."
)
_FORMS: Final = {"multipart/": _UPLOAD, "application/x-www-form-urlencoded": _URLENCODED}
"""How the content type of a form begins -> the warning about it."""


def unknown_host(host: str) -> Passage:
    return Passage(
        Why.UNKNOWN_HOST,
        f"A call to {host} went there at full price: batchling knows no provider at this host. If it has Files and "
        "Batches like OpenAI's, register it with BATCHLING_PROVIDERS__<NAME>__BASE_URL; if it is a gateway to a known "
        "provider, set that provider's BASE_URL.",
    )


def form(route: Route, call: HttpCall) -> Passage | None:
    """Return None for a body of another kind."""
    content_type = call.headers.get("content-type", "")
    sentence = next((words for start, words in _FORMS.items() if content_type.startswith(start)), None)
    return None if sentence is None else Passage(Why.UPLOAD, sentence.format(route.provider, call.path))


def streamed(provider: str, instead: str = "") -> Passage:
    return Passage(
        Why.STREAM,
        f"Batches do not support streamed answers: a call to {provider} that asks for a stream is sent at full price. "
        f"Leave out stream=True{instead} to have it batched.",
    )


def unbatched(route: Route, field: Unbatched) -> Passage:
    sentence = f"Batches of {route.provider} do not support {field.shown}; such calls are sent at full price."
    return Passage(Why.UNBATCHED, sentence)


def no_model_named(route: Route, call: HttpCall) -> Passage:
    return Passage(
        Why.NO_MODEL,
        f"A call to {route.provider} {call.path} names no model, but a batch is made for a model: it is sent at full "
        "price. Name a model to have it batched.",
    )


def other_model(route: Route, call: HttpCall, part: str, model: str) -> Passage:
    return Passage(
        Why.NO_BATCHES,
        f"Calls to {call.path} at {route.provider} are batched for models whose name holds {part!r} only: those to "
        f"{model} go there at full price.",
    )


def signed(call: HttpCall) -> Passage:
    return Passage(
        Why.SIGNED,
        f"A call to {call.host} is signed with AWS credentials, and a signature is valid for one call only: it is sent "
        "at full price. Give the client an API key to have it batched.",
    )


def left_out(route: Route, host: str, name: str) -> str:
    """Warn of a header or query field that a gateway does not get; `name` is marked as in `carried`."""
    what, setting = (
        ("query field", "LANE_QUERY") if name.startswith(carried.QUERY) else ("header", "LANE_HEADERS")
    )
    return (
        f"Calls to {host.rpartition('://')[2]} carry the {what} {name[1:65]!r}, which is not sent with their batches; "
        "calls that differ in it share no answers. If the server needs it, name it in "
        f"BATCHLING_PROVIDERS__{route.provider.upper()}__{setting}, for callers and workers."
    )


def renewed(route: Route, kind: str | None) -> str:
    """Warn of a token that is renewed; `kind` is what it is known by, if not by its change."""
    seen = f"carry {kind}" if kind else "have changed their API key"
    return (
        f"Calls to {route.provider} {seen}. With the next token a rerun counts as another account, and pays for its "
        "requests again. Give the account a name to prevent that: batchify(account='NAME'), or BATCHLING_ACCOUNT=NAME."
    )


def not_json() -> HttpReply:
    return replies.refusal("The body of the request is not a JSON object.", code="body_not_json")


def no_model() -> HttpReply:
    sentence = "The request names no model, which a batch is made for: give `model`."
    return replies.refusal(sentence, code="model_missing", param="model")


def model_too_long(most: int) -> HttpReply:
    sentence = f"The name of the model has more than {most:,} characters: give a shorter `model`."
    return replies.refusal(sentence, code="model_too_long", param="model")


def too_large(route: Route, n_bytes: int, most: int) -> HttpReply:
    return replies.refusal(
        f"The request is {n_bytes:,} bytes long, more than {route.provider} takes in a batch: {most:,} bytes. "
        "Send a shorter one.",
        code="request_too_large",
    )


def no_such_window(route: Route, window: str) -> HttpReply:
    return replies.refusal(
        f"{route.provider} takes no completion_window of {window!r}; it takes {window_words(route.windows)}.",
        code="completion_window_unknown",
        param="completion_window",
    )


def no_key(route: Route) -> HttpReply:
    return replies.refusal(
        f"The request carries no API key for {route.provider}: give the SDK's client one.",
        code="credential_missing",
        status=401,
    )


def not_staged(route: Route) -> HttpReply:
    return replies.refusal(
        f"Batches of {route.provider} are made of files in your Cloud Storage: say where in "
        "batchify(vertex_gcs_prefix='gs://BUCKET/PREFIX').",
        code="staging_missing",
        param="vertex_gcs_prefix",
    )
