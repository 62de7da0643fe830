"""What providers' errors say, whatever their shape, and what their codes and types are in HTTP.

The shapes: OpenAI's, Anthropic's and Google's (with `details`), a sentence alone, lists of validation errors as
FastAPI, Pydantic, Litestar and JSON:API make them, problem details (RFC 9457), AWS's, Apigee's `fault`, a page of HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Final

LEAST_ERROR: Final = 400
MOST_STATUS: Final = 599
LONGEST_WORD: Final = 100
LONGEST_SAID: Final = 1000
MOST_ENTRIES: Final = 20
"""How many errors of a list become part of the sentence."""
DEEPEST: Final = 5
STATUS_FIELDS: Final = ("status_code", "status", "code", "raw_status_code", "http_status", "statusCode")
VOICES: Final = (
    *(
        "message",
        "Message",
        "msg",
        "error_message",
        "errorMessage",
        "error_description",
        "error_msg",
        "faultstring",
    ),
    *("error", "errors", "fault", "detail", "details", "extra"),
    *("title", "description", "reason"),
)
"""Fields of an error that say what is wrong, the plainest first."""
UNPROCESSABLE: Final = 422

_STATUSES: Final = tuple(
    (re.compile(words), status)
    for words, status in (
        (r"^(?:insufficient_(?:user_)?quota|rate_?limit.*|resource_?exhausted|too_?many_requests)$", 429),
        (r"^throttl(?:ing|ed)(?:_?error)?$", 429),
        (r"^(?:invalid_api_key|authentication_?error|unauthenticated|unauthorized)$", 401),
        (r"^billing_error$", 402),
        (r"^(?:permission_?(?:error|denied)(?:_?error)?|access_?denied(?:_?error)?|forbidden)$", 403),
        (r"^(?:.*_)?not_?found(?:_?error)?$", 404),
        (r"^method_?not_?allowed$", 405),
        (r"^(?:request|payload|entity)_too_large(?:_?error)?$", 413),
        (r"^(?:unprocessable_?entity(?:_?error)?)$", 422),
        (r"^(?:.*_)?time_?d?_?out(?:_?error)?$|^deadline_?exceeded$", 504),
        (
            r"^(?:service_?)?(?:temporarily_)?unavailable(?:_?error)?$|^(?:server_)?overloaded(?:_?error)?$",
            503,
        ),
        (r"^bad_?gateway(?:_?error)?$", 502),
        (r"^(?:internal(?:_?server)?|server|api|system|unknown|unexpected|engine)(?:_?error)?$", 500),
        (r"^internal.*error$|^batch_processing_error$|^data_loss$", 500),
        (r"^(?:bad_?request|invalid_?argument|failed_?precondition|out_?of_?range)(?:_?error)?$", 400),
        (r"^(?:invalid|unsupported|missing|malformed)_.*$|^(?:validation|value|type)_?error$", 400),
        (
            r"^(?:context_length_exceeded|content_filter|content_policy_violation|string_above_max_length)$",
            400,
        ),
    )
)
_FAULT: Final = re.compile(
    r"internal (?:server )?error|(?:temporar|service|currently)\w* (?:is )?unavailable|overloaded|bad gateway"
    r"|(?:server|system) (?:had an )?error|something went wrong|(?:please )?(?:try|retry)[^.]{0,30} (?:again|later)"
    r"|gateway time-?out|\b(?:http|error|status)[ :]*(?:code)?[ :]*5\d\d\b",
    re.IGNORECASE,
)
_TITLE: Final = re.compile(r"<(title|h1)[^>]*>(.*?)</\1", re.IGNORECASE | re.DOTALL)
_MARKUP: Final = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_PAGE: Final = re.compile(
    r"\s*(?:<!--.*?-->\s*)?<(?:!doctype|html|head|body|\?xml)\b", re.IGNORECASE | re.DOTALL
)
_EXCEPTION: Final = re.compile("_exception$")
_CODE: Final = re.compile(r"[A-Za-z0-9_.:#\[\]-]{1,64}")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def status_of(*words: str) -> int:
    """Return the HTTP status that the first known word stands for, or that a word spells; 0 where none does."""
    for word in words:
        number = number_of(word)
        if number:
            return number
        plain = _HUMP.sub("_", word[:LONGEST_WORD].strip()).lower().replace("-", "_").replace(" ", "_")
        # AWS spells `namespace#InternalServerException`.
        plain = _EXCEPTION.sub("_error", plain.rpartition("#")[2])
        for known, status in _STATUSES:
            if known.match(plain):
                return status
    return 0


def number_of(said: object) -> int:
    """Return an error's HTTP status that is a number or spelt as one; 0 for anything else."""
    if isinstance(said, str):
        said = int(said) if len(said) == len("400") and said.isascii() and said.isdigit() else 0
    if isinstance(said, float) and said.is_integer():
        said = int(said) if LEAST_ERROR <= said <= MOST_STATUS else 0
    return said if isinstance(said, int) and LEAST_ERROR <= said <= MOST_STATUS else 0


def named_in(error: Mapping[str, object]) -> int:
    """Return the HTTP status that a number in an error object names; 0 where none does."""
    return next((number for name in STATUS_FIELDS if (number := number_of(error.get(name)))), 0)


def status_in(error: Mapping[str, object]) -> int:
    """Return the HTTP status that an error object names, or that its words stand for; 0 where it tells none.

    A list of validation errors stands for 422, also where it is a field of the object.
    """
    told = named_in(error) or status_of(
        *(word for name in ("code", "type", "status", "__type") if isinstance(word := error.get(name), str))
    )
    if told:
        return told
    for name in ("error", "errors", "fault", "detail", "extra"):
        inner = error.get(name)
        entry = inner[0] if isinstance(inner, list) and inner else inner
        if isinstance(entry, dict):
            told = named_in(entry) or (UNPROCESSABLE if _is_flaw(entry) else 0)
        elif isinstance(inner, str):
            told = status_of(inner)
        if told:
            return told
    title = error.get("title")
    return status_of(title) if isinstance(title, str) else 0


def words_in(said: object, most: int = LONGEST_SAID) -> str:
    """Return what an error says, once and in at most so many characters; '' where it says nothing.

    `said` is what its JSON holds, or a text: of a page of HTML its title, else its words.
    """
    return _words_in(said, DEEPEST)[:most]


def codes_in(said: object) -> str:
    """Return the code, type, status and parameter that an error names, in single words; '' where it names none."""
    entry = said[0] if isinstance(said, list) and said else said
    inner = entry.get("error") if isinstance(entry, dict) else None
    holders = [one for one in (inner, entry) if isinstance(one, dict)]
    named = [one.get(name) for one in holders for name in ("code", "type", "__type", "status", "param")]
    words = [str(one) for one in named if isinstance(one, str | int) and not isinstance(one, bool)]
    return " ".join(dict.fromkeys(word for word in words if _CODE.fullmatch(word)))


def as_error(said: Mapping[str, object]) -> Mapping[str, object]:
    """Return an error object with a `message`, where SDKs look for the words; an existing `message` is kept."""
    message = said.get("message")
    words = "" if isinstance(message, str) and message else words_in(said)
    if not words:
        return said
    kind, code = said.get("type"), said.get("code")
    return {
        "message": words,
        "type": kind if isinstance(kind, str) else None,
        "param": None,
        "code": code if isinstance(code, str | int) else None,
    }


def is_list_of_flaws(said: object) -> bool:
    """Return whether it is a list of validation errors."""
    return isinstance(said, list) and bool(said) and isinstance(said[0], dict) and _is_flaw(said[0])


def _words_in(said: object, deepest: int) -> str:
    if isinstance(said, str):
        return _text_of(said)
    if not deepest:
        return ""
    if isinstance(said, list):
        entries = (_words_in(entry, deepest - 1) for entry in said[:MOST_ENTRIES])
        return "; ".join(dict.fromkeys(filter(None, entries)))
    if not isinstance(said, dict):
        return ""
    place = _place_of(said)
    found = {name: words for name in VOICES if (words := _words_in(said.get(name), deepest - 1))}
    if len(found) > 1:
        # Beside the error's own sentence it only names the kind.
        found.pop("title", None)
    # If there is a code and a sentence, the sentence says more.
    spoken = found.values()
    words = next((one for one in spoken if " " in one), next(iter(spoken), "")) or _by_field(said, deepest)
    flaws = _flaws_in(said, deepest)
    if flaws and flaws not in words:
        words = f"{words} ({flaws})" if words else flaws
    return f"{place}: {words}" if place and words else words


def _text_of(said: str) -> str:
    said = said[: 64 * LONGEST_SAID]
    if _PAGE.match(said):
        title = _TITLE.search(said)
        said = _MARKUP.sub(" ", title[2] if title else said)
        return html.unescape(" ".join(said.split()))
    return said.strip()


def _is_flaw(entry: Mapping[str, object]) -> bool:
    """Return whether it is an entry of a list of validation errors: what is wrong, and where."""
    return isinstance(entry.get("msg") or entry.get("message"), str) and ("loc" in entry or "key" in entry)


def _place_of(entry: Mapping[str, object]) -> str:
    """Return where a validation error is, as FastAPI, Litestar and Google name it."""
    loc = entry.get("loc")
    if isinstance(loc, list):
        return ".".join(str(step) for step in loc[:MOST_ENTRIES])
    place = (entry.get("key") if _is_flaw(entry) else None) or entry.get("field")
    return place if isinstance(place, str) else ""


def _flaws_in(error: Mapping[str, object], deepest: int) -> str:
    """Return the sentences of the validation errors listed beside the error, as in Google's `BadRequest` detail."""
    said: list[object] = []
    for name in ("errors", "detail", "extra", "details"):
        entries = error.get(name)
        if is_list_of_flaws(entries):
            return _words_in(entries, deepest - 1)
        for detail in entries[:MOST_ENTRIES] if isinstance(entries, list) else []:
            found = detail.get("fieldViolations") if isinstance(detail, dict) else None
            said += found if isinstance(found, list) else []
    return _words_in(said, deepest - 1)


def _by_field(errors: Mapping[str, object], deepest: int) -> str:
    """Return the sentences in a mapping of fields to lists of errors, as ASP.NET and Rails send it."""
    said = [
        f"{field}: {words}"
        for field, entries in list(errors.items())[:MOST_ENTRIES]
        if isinstance(entries, list) and (words := _words_in(entries, min(deepest - 1, 1)))
    ]
    return "; ".join(said)


def is_fault(code: str, message: str) -> bool:
    """Return whether an error is the server's own, so that the same request may well succeed later."""
    status = status_of(code)
    return status >= 500 or (not status and _FAULT.search(message) is not None)
