"""The one table that turns what HTTP says, or fails to say, into the worker's errors, without any credential."""

from __future__ import annotations

import datetime as dt
import email.utils
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import httpx
import msgspec

from batchling_client.wire import error_words
from batchling_client.wire.deployment import download_hosts

from ..decisions import money
from ..errors import Limited, MaybeDone, PermanentError, TemporaryError, TooLarge
from . import bounds, redaction
from .bounded import TooLargeError
from .slow_answers import TooSlowError

FOREIGN: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError, OSError)
"""Everything that httpx raises for a call; the last four stand outside of its HTTPError.

An `OSError` comes where TLS breaks in the middle of an answer (`ssl.SSLError`): only the handshake's are translated.
"""

NOTHING_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)
PROXY_ADVICE: Final = (
    "check HTTPS_PROXY and HTTP_PROXY of the worker, with user and password where it asks for them"
)
TRY_LATER: Final = frozenset({425, 429})
ABOUT_THE_ACCOUNT: Final = frozenset({401, 402, 403, 404, 407, 408, 425, 429})
"""Statuses whose words are about a key, a place, money, time or a rate, and not about what was sent."""
NOT_HANDLED: Final = frozenset({408, 409, 499})
"""Gateways say 408 and 499 of a call that the provider may yet finish, and 409 may mean that it is there already."""

AFTER_THE_DEED: Final = frozenset({302, 303})
"""With these a server may show what it made of a call: the place is to be asked with GET."""

KEY_REFUSED: Final = re.compile(rb"API_KEY_INVALID|incorrect api key", re.IGNORECASE)
"""How the providers say it that answer 400 to a key they do not know (Google, xAI; 2026-11-23)."""

DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")
"""A duration as Google's JSON spells it."""
LONGEST_WISH_S: Final = 3600.0
"""The longest pause before another try of a call that submits something."""
LONGEST_LOOK_WISH_S: Final = 300.0
"""The longest pause before another look, which costs the provider little and its callers their answers."""
DAY_S: Final = 86_400.0
MOST_DAYS: Final = 1e9
LONGEST_BODY: Final = 64 * 1024
LONGEST_NAME: Final = 100
LONGEST_REASON: Final = 300
CREDENTIAL_WORDS: Final = ("authorization", "cookie", "key", "secret", "token")
SHORTEST_SECRET: Final = redaction.SHORTEST_IN_ERRORS
LONG_VALUE: Final = 12
"""A value that came sealed is left out of texts from this length on: a shorter one may be a word of the text."""
MOST_FLAWS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CallInfo:
    """A call as errors speak of it: whose, what it does, whether it is paid for, and what no text may hold.

    `submits` = it brings something to the provider: until it succeeds, nothing of what it brings is paid for.
    `downloads` = it fetches a result file, which the provider may keep on another host.
    """

    provider: str
    does: str
    paid: bool = False
    submits: bool = False
    downloads: bool = False
    secrets: tuple[str, ...] = field(default=(), repr=False)


def of_exception(call_info: CallInfo, error: Exception) -> TemporaryError | PermanentError:
    """Return the worker's error for an exception of httpx; only text of the exception is kept."""
    if isinstance(error, UnicodeError) or _unfit_header(error):
        return _unfit_credential(call_info)
    name = type(error).__name__
    if isinstance(error, TooSlowError):
        return TemporaryError(
            f"{call_info.provider} answers too slowly when asked to {call_info.does}: {error}"
        )
    if isinstance(error, TooLargeError):
        words = f"{call_info.provider} answers with {error} when asked to {call_info.does}"
        return MaybeDone(words) if call_info.paid else TooLarge(words)
    if isinstance(error, NOTHING_SENT):
        words = _clean(call_info, str(error))
        advice = f" ({PROXY_ADVICE})" if isinstance(error, httpx.ProxyError) else ""
        return TemporaryError(
            f"{call_info.provider} could not be reached to {call_info.does}: {name} {words}".rstrip() + advice
        )
    if call_info.paid:
        return MaybeDone(
            f"{call_info.provider} was asked to {call_info.does} and the answer was lost ({name})"
        )
    return TemporaryError(
        f"{call_info.provider} was asked to {call_info.does} and did not answer in full ({name})"
    )


def of_status(
    call_info: CallInfo, status: int, headers: Mapping[str, str], body: bytes, asked: httpx.URL | None = None
) -> TemporaryError | PermanentError:
    """Return the worker's error for an answer whose status is not a success; `asked` is the URL that was called."""
    clean = redacted(call_info, body[:LONGEST_BODY])
    error = _of_status(call_info, status, headers, clean, asked)
    if may_quote(call_info, status, clean):
        error.recorded = without_words(call_info, status, error_words.codes_in(said_in(clean)))
    return error


def may_quote(call_info: CallInfo, status: int, said: bytes | str) -> bool:
    """Return whether a provider's words may quote a request, so that only its callers get them.

    A look, a list and a download send no request. In other calls, words about a key, a place, money or a rate are about
    the account; words of a validation are about what was sent, and so may be those of a server that failed on it.
    """
    if not (call_info.submits or call_info.paid) or status in ABOUT_THE_ACCOUNT or status < 400:
        return False
    text = said if isinstance(said, str) else said.decode(errors="replace")
    return not (money.is_lacking(status, text) or KEY_REFUSED.search(text.encode(errors="replace")))


def without_words(call_info: CallInfo, status: int, codes: str) -> str:
    """Return what logs and records hold of a refusal whose words may quote a request."""
    return f"{call_info.provider} answered {status} when asked to {call_info.does}" + (
        f": {codes}" if codes else ""
    )


def _of_status(
    call_info: CallInfo, status: int, headers: Mapping[str, str], clean: bytes, asked: httpx.URL | None
) -> TemporaryError | PermanentError:
    proxied = status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED
    who = f"a proxy on the way to {call_info.provider}" if proxied else call_info.provider
    reason = f"{who} answered {status} when asked to {call_info.does}: {message_of(clean)}".rstrip(": ")
    reason += f" ({PROXY_ADVICE})" if proxied else ""
    wish_s = wish_of(call_info, headers, clean)
    reason += _of_long_wish(call_info, headers, clean)
    if money.is_lacking(status, clean.decode(errors="replace")):
        return PermanentError(reason, status=status, body=clean)
    if status in TRY_LATER:
        return (Limited if call_info.paid else TemporaryError)(reason, delay_s=wish_s)
    lacking = status == httpx.codes.NOT_IMPLEMENTED and call_info.submits
    if (400 <= status < 500 and status not in NOT_HANDLED) or lacking:
        if status == httpx.codes.BAD_REQUEST and KEY_REFUSED.search(clean):
            status = int(httpx.codes.UNAUTHORIZED)
        return PermanentError(reason, status=status, body=clean)
    if 300 <= status < 400:
        return _redirected(call_info, status, headers, asked)
    return MaybeDone(reason, delay_s=wish_s) if call_info.paid else TemporaryError(reason, delay_s=wish_s)


def _redirected(
    call_info: CallInfo, status: int, headers: Mapping[str, str], asked: httpx.URL | None
) -> TemporaryError | PermanentError:
    """Return the error for a redirect that is not followed: for a call that submits something, callers get it."""
    setting = f"BATCHLING_PROVIDERS__{call_info.provider.upper()}__BASE_URL (the base URL)"
    reason = (
        f"{call_info.provider} answered {status} when asked to {call_info.does}: "
        f"{_of_the_same_host(headers, asked, setting) or _of_another_host(call_info, headers, setting)}"
    )
    if not call_info.submits:
        return TemporaryError(reason)
    error = {"message": reason, "type": "batch_error", "param": None, "code": "redirected"}
    refusal = PermanentError(reason, status=502, body=msgspec.json.encode({"error": error}))
    if call_info.paid and status in AFTER_THE_DEED and _stays(headers):
        # It may lead to the batch that was made.
        return MaybeDone(reason, refusal=refusal)
    return refusal


def _stays(headers: Mapping[str, str]) -> bool:
    """Return whether a redirect names a path and no host; nothing is done by a server that sends a call elsewhere."""
    place = headers.get("location", "")
    try:
        return bool(place) and not httpx.URL(place).host
    except (httpx.InvalidURL, UnicodeError):
        return False


def _of_the_same_host(headers: Mapping[str, str], asked: httpx.URL | None, setting: str) -> str:
    """Return what is wrong with a redirect to the host that gave it; '' if it leads to another host or nowhere."""
    place = headers.get("location", "")
    try:
        target = asked.join(place) if asked is not None and place else None
    except (httpx.InvalidURL, UnicodeError, ValueError):
        target = None
    if asked is None or target is None or target.userinfo:
        return ""
    if (target.scheme, target.host, target.port) != (asked.scheme, asked.host, asked.port):
        return ""
    if target == asked:
        return f"it redirects to the same URL again, and no call ever arrives. Check {setting} and what answers there"
    return (
        "it redirects to another path of the same host, again and again or in a way that may change the call "
        f"(only 307 and 308 keep a POST as it is). Put the final address into {setting}"
    )


def _of_another_host(call_info: CallInfo, headers: Mapping[str, str], setting: str) -> str:
    there = origin_of(headers.get("location", ""))
    if call_info.downloads and there.startswith(("http://", "https://")):
        return _of_a_download(call_info, there)
    return (
        f"it redirects to {there}. A key is sent to no other address than that of the settings: put the "
        f"final one into {setting}"
    )


def _of_a_download(call_info: CallInfo, there: str) -> str:
    """Return what is wrong with a redirect of a result file to a host that the settings do not name."""
    setting = f"BATCHLING_PROVIDERS__{call_info.provider.upper()}__DOWNLOAD_HOSTS"
    scheme, _, site = there.partition("://")
    plain = scheme == "http" and not download_hosts.is_loopback(httpx.URL(there).host)
    asked = there if plain else site
    try:
        download_hosts.usable((asked,))
    except ValueError:
        return f"it redirects to {there}, which is not a host that {setting} could name"
    return (
        f"it redirects to {there}. To have result files fetched there, without the key, name {asked} in {setting} "
        "of the workers" + (" (without TLS everybody on the way can read the answers)" if plain else "")
    )


def origin_of(place: str) -> str:
    """Return scheme and host of the place that a redirect names; what follows them may be a secret."""
    try:
        url = httpx.URL(place)
    except (httpx.InvalidURL, UnicodeError):
        return "an invalid URL"
    if not url.host:
        return "another path" if url.path else "nowhere"
    return f"{url.scheme or 'http'}://{url.netloc.decode(errors='replace').rpartition('@')[2]}"[
        :LONGEST_REASON
    ]


def of_unreadable(call_info: CallInfo) -> TemporaryError:
    """Return the worker's error for a success whose body makes no sense."""
    reason = f"{call_info.provider} was asked to {call_info.does} and its answer cannot be read"
    return MaybeDone(reason) if call_info.paid else TemporaryError(reason)


def of_another(call_info: CallInfo, shown: str) -> TemporaryError:
    """Return the worker's error for a success that shows another object than the call asked for, as a cache may do."""
    reason = (
        f"{call_info.provider} was asked to {call_info.does} and the answer shows another ({shown[:LONGEST_NAME]}), "
        "which a cache on the way may have sent: nothing is concluded from it"
    )
    return MaybeDone(reason) if call_info.paid else TemporaryError(reason)


def secrets_of(headers: Mapping[str, str], more: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the credentials in headers, with and without scheme, and the long values of `more`; longest first."""
    found = {one for one in more if len(one) >= LONG_VALUE}
    for name, value in headers.items():
        if any(word in name.lower() for word in CREDENTIAL_WORDS):
            found.update((value, value.rpartition(" ")[2]))
    return tuple(sorted((one for one in found if len(one) >= SHORTEST_SECRET), key=len, reverse=True))


def redacted(call_info: CallInfo, text: bytes) -> bytes:
    """Return an error's text without the credentials of the call, however it spells them."""
    return redaction.Redaction(call_info.secrets, shortest=SHORTEST_SECRET)(text)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the provider wishes to be left alone, in seconds; None if it does not say.

    `retry-after-ms` wins over `retry-after`, which is in seconds or an HTTP date; a date is held against the
    answer's own `date`, so that clocks need not agree.
    """
    wish_s = _number(headers.get("retry-after-ms"))
    if wish_s is not None:
        wish_s /= 1000
    else:
        said = headers.get("retry-after")
        wish_s = _number(said)
        at = _date(said)
        if wish_s is None and at is not None:
            now = date_of(headers) or dt.datetime.now(dt.UTC)
            wish_s = max(0.0, (at - now).total_seconds())
    return wish_s


def wish_of(call_info: CallInfo, headers: Mapping[str, str], body: bytes = b"") -> float | None:
    """Return the pause that the provider wants before such a call, in seconds, bounded; None if it does not say.

    A look is put off by minutes at most. Where more than an hour is asked for, the answer is not believed: gateways
    say a day while the next call is answered.
    """
    wish_s = _said_wish_s(headers, body)
    if wish_s is None or call_info.submits or call_info.paid:
        return None if wish_s is None else min(wish_s, LONGEST_WISH_S)
    return min(wish_s, LONGEST_LOOK_WISH_S) if wish_s <= LONGEST_WISH_S else None


def _said_wish_s(headers: Mapping[str, str], body: bytes) -> float | None:
    wish_s = retry_after_s(headers)
    return _wish_in(body) if wish_s is None else wish_s


def _of_long_wish(call_info: CallInfo, headers: Mapping[str, str], body: bytes) -> str:
    """Return a sentence on a wished pause that is longer than batchling waits; '' if there is none."""
    wish_s = _said_wish_s(headers, body)
    longest_s = LONGEST_WISH_S if call_info.submits or call_info.paid else LONGEST_LOOK_WISH_S
    if wish_s is None or wish_s <= longest_s:
        return ""
    asked = (
        f"{wish_s / 3600:,.1f} hours" if wish_s < 2 * DAY_S else f"{min(wish_s / DAY_S, MOST_DAYS):,.0f} days"
    )
    return f" (it asks for a pause of {asked}; batchling tries again within {longest_s / 60:.0f} minutes)"


def date_of(headers: Mapping[str, str]) -> dt.datetime | None:
    """Return when an answer was made, by the clock of the server that made it; None if it does not say."""
    return _date(headers.get("date"))


def code_of(body: bytes) -> str:
    """Return the code in a provider's error body, or ''."""
    try:
        error = msgspec.json.decode(body, type=_Said).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    code = error.get("code") if isinstance(error, dict) else None
    return bounds.text(code)


class _Said(msgspec.Struct):
    error: object = None


class _Wish(msgspec.Struct):
    retry_after_seconds: object = None
    error: object = None


def _wish_in(body: bytes) -> float | None:
    """Return how long an error body asks to wait: Doubleword in a field (2026-11-23), Google in a `RetryInfo`."""
    try:
        # Google's endpoints that stream put their error into a list.
        told = msgspec.json.decode(body, type=_Wish | list[_Wish])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for said in (told if isinstance(told, list) else [told])[:1]:
        if isinstance(said.retry_after_seconds, (int, float)):
            return _number(str(said.retry_after_seconds))
        details = said.error.get("details") if isinstance(said.error, dict) else None
        for detail in details[:MOST_FLAWS] if isinstance(details, list) else []:
            delay = detail.get("retryDelay") if isinstance(detail, dict) else None
            if isinstance(delay, str) and (found := DURATION.fullmatch(delay)):
                return float(found[1])
    return None


def said_in(body: bytes) -> object:
    """Return what the JSON of an error body holds, or its text."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode(errors="replace")


def message_of(body: bytes) -> str:
    """Return the sentence in a provider's error body, or the beginning of the body if its shape is unknown."""
    words = error_words.words_in(said_in(body), LONGEST_REASON)
    return words or body[:LONGEST_REASON].decode(errors="replace").strip()


def with_words(body: bytes, words: str) -> bytes:
    """Return an error body whose sentence is followed by more words.

    A text becomes a longer text. A page, a list, and an object that has no sentence of its own become an error object.
    """
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="replace").strip()
        if error_words.words_in(text) == text[: error_words.LONGEST_SAID]:
            return f"{text} {words}".strip().encode()
        said = None
    inner = said.get("error", said) if isinstance(said, dict) else None
    for holder, name in ((inner, "message"), (said, "error"), (said, "message"), (said, "detail")):
        if isinstance(holder, dict) and isinstance(holder.get(name), str):
            holder[name] = f"{holder[name]} {words}"
            return msgspec.json.encode(said)
    code = said.get("code") if isinstance(said, dict) else None
    error = {
        "message": f"{message_of(body)} {words}".strip(),
        "type": "batch_error",
        "param": None,
        "code": code if isinstance(code, str | int) else None,
    }
    return msgspec.json.encode({"error": error})


class Flaw(NamedTuple):
    """One entry of a list of validation errors: its code, and where and what is wrong."""

    code: str
    words: str


def flaws_of(detail: object) -> list[Flaw]:
    """Return the entries of FastAPI's `detail` or of Litestar's `extra`; an empty list for anything else."""
    entries = detail if isinstance(detail, list) else []
    told = [entry for entry in entries[:MOST_FLAWS] if isinstance(entry, dict)]
    return [_flaw(entry) for entry in told if entry.get("msg") or entry.get("message")]


def _flaw(entry: Mapping[str, object]) -> Flaw:
    code, loc, said = entry.get("type"), entry.get("loc"), entry.get("msg") or entry.get("message")
    place = ".".join(str(step) for step in loc) if isinstance(loc, list) else str(entry.get("key") or "")
    words = f"{place}: {said}" if place else str(said)
    return Flaw(code=bounds.text(code), words=words[:LONGEST_REASON])


def _unfit_header(error: Exception) -> bool:
    # h11 quotes the header's value, the credential that is, in this exception.
    return isinstance(error, httpx.LocalProtocolError) and "header" in str(error).lower()


def _unfit_credential(call_info: CallInfo) -> PermanentError:
    reason = f"The credential for {call_info.provider} holds characters that an HTTP header cannot carry."
    error = {"message": reason, "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
    return PermanentError(reason, status=401, body=msgspec.json.encode({"error": error}))


def _clean(call_info: CallInfo, words: str) -> str:
    return redacted(call_info, words.encode(errors="replace")).decode(errors="replace")[:LONGEST_REASON]


def _number(said: str | None) -> float | None:
    try:
        number = float(said or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _date(said: str | None) -> dt.datetime | None:
    try:
        at = email.utils.parsedate_to_datetime(said or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)
