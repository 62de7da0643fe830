"""One call to a provider: sent once, answered in full or as a stream, or failing with an error of ours."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import importlib.metadata
import random
import re
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
)
from dataclasses import dataclass, replace
from typing import BinaryIO, Final, NamedTuple, TypeVar

import httpx
import msgspec

from ..call_outcome import Underway
from ..errors import PermanentError, TemporaryError, WorkerError
from ..provider import Account
from . import bounded, error_instead, http_errors, lenient_json, linked_files, other_host, slow_answers
from .http_errors import CallInfo
from .redaction import Redaction

T = TypeVar("T")

NOTHING_TO_CANCEL: Final = frozenset({404, 409, 410})
RESUMED_AT_MOST: Final = 50
RESUME_PAUSE_S: Final = 1.0
RANGE_NOT_SATISFIABLE: Final = 416
REDIRECTS: Final = 5
"""So many redirects in a row are followed."""
LARGE: Final = 1024 * 1024
LARGE_PATIENCE: Final = 2.5
"""How many times longer than usual a call may take unseen that sends more than that in one piece."""
LOOP_BYTES: Final = 128 * 1024
"""A longer answer is parsed in a thread: leases are extended and other steps go on meanwhile."""
REDIRECTING: Final = frozenset({301, 302, 303, 307, 308})
FOUND: Final = 302
KEEPS_THE_METHOD: Final = frozenset({307, 308})
FURTHEST_BEHIND: Final = dt.timedelta(days=1)
"""A clock that is further off is not believed: a search goes back as far as the clock of the list is behind."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@functools.cache
def user_agent() -> str:
    """Return the User-Agent header: `batchling/` and the version."""
    try:
        return f"batchling/{importlib.metadata.version('batchling')}"
    except importlib.metadata.PackageNotFoundError:
        return "batchling/0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which part of an answer comes: its first byte, and how many bytes the whole has, 0 where nothing is said."""

    first: int = 0
    total: int = 0


class Reply(NamedTuple):
    """An answer in full, for calls whose headers matter."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Received:
    """An answer and its body, which is that of an error as far as it was read."""

    response: httpx.Response
    body: bytes


async def known(asked: Awaitable[T], unknown: Collection[int] = frozenset({404})) -> T | None:
    """Return what was asked for; None if the provider does not know it, which it says with a status in `unknown`."""
    try:
        return await asked
    except PermanentError as error:
        if error.status not in unknown:
            raise
        return None


class ProviderCall:
    """A call to a path of an account's provider; each method sends it once.

    Errors are raised outside of the `except` that caught httpx's: its exceptions hold the request with its
    headers, and even a suppressed context keeps them within reach of error reporters.
    """

    def __init__(
        self, account: Account, provider: str, does: str, method: str, path: str, *, paid: bool = False
    ) -> None:
        self._http = account.http
        self._calls = account.calls
        self._turn = account.turn
        self.longest_row = account.longest_answer_bytes
        """Bytes of a row of results; a longer one is not read."""
        self._query = account.query
        self._download_hosts = account.download_hosts
        self._method = method
        self.framed = True
        """Whether the answer that is streamed tells its length, so that a cut is never taken for its end."""
        self.answered_at = dt.datetime.now(dt.UTC)
        """When the provider answered, by its own clock where it tells."""
        self.behind = dt.timedelta()
        """How far the provider's clock is behind this worker's, where its answer shows that."""
        self._part = Part()
        self._too_slow = False
        self._as_sent = False
        """Whether the body is taken as it is sent, whatever encoding its headers name."""
        self._link = ""
        """The link in the last answer, if that was one."""
        self._by_link = False
        """Whether the provider answers with a link to the file: a part is asked for there, and not of the link."""
        self._misnamed = False
        """Whether the last body was not in the encoding that its headers name."""
        self._url = account.base_url.rstrip("/") + path
        self._headers = {
            **account.headers,
            "user-agent": user_agent(),
            "accept-encoding": bounded.ENCODINGS,
        }
        secrets = http_errors.secrets_of(account.headers, account.secrets)
        self.call_info = CallInfo(provider=provider, does=does, paid=paid, secrets=secrets)
        self._redaction = Redaction(secrets)

    async def ask(
        self,
        shape: type[T],
        query: Iterable[tuple[str, str]] = (),
        *,
        longest: int = bounded.LONGEST_ANSWER,
    ) -> T:
        """Return the answer's JSON, of at most `longest` bytes; raises the worker's errors."""
        received = await self._send(query=query, longest=longest)
        return await self._decoded(received, shape)

    async def ask_list(self, shape: type[T], query: Iterable[tuple[str, str]] = ()) -> T:
        """Return the JSON of an answer that shows many objects, like `ask`."""
        return await self.ask(shape, query, longest=bounded.LONGEST_LIST)

    async def rows(self, query: Iterable[tuple[str, str]], longest: int) -> dict[str, bytes]:
        """Return the fields of a page of results, each as it is spelt; raises the worker's errors.

        It holds the words of models, of which msgspec may not take one. Raises `TooLarge` above `longest` bytes.
        """
        received = await self._send(query=query, longest=longest)
        return await self._read(received, lenient_json.fields_of, most=bounded.MOST_IN_ROWS)

    async def tell(self, shape: type[T], content: object) -> T:
        """Send JSON and return the answer's JSON; raises the worker's errors."""
        self._headers["content-type"] = "application/json"
        received = await self._send(content=msgspec.json.encode(content))
        return await self._decoded(received, shape)

    async def give(self, content: bytes) -> None:
        """Send JSON as it is and read only the status; raises the worker's errors."""
        self._headers["content-type"] = "application/json"
        await self._send(content=content, longest=None)

    async def nudge(self, fine: frozenset[int] = frozenset()) -> None:
        """Send no body and read only the status, with more statuses `fine`; raises the worker's errors."""
        await self._send(fine=fine, longest=None)

    async def cancel(self, fine: frozenset[int] = frozenset()) -> None:
        """Ask to cancel a batch; succeed if the batch is done or unknown, and for the statuses in `fine`.

        A 400 may say that the batch is done, or that the key is bad, which is raised. Raises the worker's errors.
        """
        try:
            await self.nudge(NOTHING_TO_CANCEL | fine)
        except PermanentError as error:
            if error.status != 400:
                raise

    async def upload(
        self,
        shape: type[T],
        fields: dict[str, str],
        name: str,
        file: BinaryIO,
        patience: float,
        fine: frozenset[int] = frozenset(),
    ) -> T:
        """Send a form with a file, read from its start in small pieces; return the answer's JSON.

        The provider may chew on the file for `patience` times the usual silence. Raises the worker's errors.
        """
        received = await self._send(
            data=fields,
            files={"file": (name, file, "application/octet-stream")},
            patience=patience,
            fine=fine,
        )
        return await self._decoded(received, shape)

    async def exchange(
        self, content: bytes, headers: Mapping[str, str], *, fine: frozenset[int] = frozenset()
    ) -> Reply:
        """Send bytes with more headers and return the whole reply; statuses in `fine` count as success.

        Raises the worker's errors.
        """
        self._headers |= headers
        received = await self._send(content=content, fine=fine)
        return Reply(received.response.status_code, received.response.headers, received.body)

    async def hand_over(
        self, shape: type[T], pieces: Callable[[], AsyncIterable[bytes]], n_bytes: int, patience: float
    ) -> T:
        """Send JSON of so many bytes, a piece at a time; return the answer's JSON.

        The provider may chew on it for `patience` times the usual silence. Raises the worker's errors.
        """
        self._headers |= {"content-type": "application/json", "content-length": str(n_bytes)}
        received = await self._send(content=pieces, patience=patience)
        return await self._decoded(received, shape)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the answer's body in pieces as they come; raises the worker's errors, also if it ends too soon."""
        failure: WorkerError | None = None
        self.call_info = replace(self.call_info, downloads=True)
        url, params, elsewhere = self._url, self._params(()), None
        for _ in range(REDIRECTS + 1):
            target, place = None, None
            try:
                async with contextlib.AsyncExitStack() as stack:
                    underway = stack.enter_context(
                        self._calls.call(self.call_info.provider, self.call_info.does)
                    )
                    await stack.enter_async_context(self._turn())
                    trace = self._traced(underway)
                    response = await stack.enter_async_context(
                        self._opened(url, params, trace)
                        if elsewhere is None
                        else other_host.opened(self._http, elsewhere, self._headers, trace)
                    )
                    if response.is_success:
                        failure = None
                        file = self._file(response, may_link=elsewhere is None)
                        async with contextlib.aclosing(file):
                            async for piece in file:
                                underway.brought(len(piece))
                                with underway.ours():
                                    yield piece
                        if self._link:
                            failure = self._unfollowed(response)
                            target = linked_files.on_the_same_server(response, self._link)
                            place = other_host.place_of(response, self._download_hosts, self._link)
                    elif elsewhere is not None:
                        failure = other_host.of_status(self.call_info, elsewhere, response.status_code)
                    else:
                        async with asyncio.timeout(slow_answers.longest_s(self._http.timeout)):
                            said = await bounded.beginning(bounded.pieces(response))
                        failure = http_errors.of_status(
                            self.call_info, response.status_code, _headers_of(response), said, response.url
                        )
                        target = redirected(response)
                        if target is None and response.status_code in REDIRECTING:
                            place = other_host.place_of(response, self._download_hosts)
            except http_errors.FOREIGN as error:
                failure = (
                    http_errors.of_exception(self.call_info, error)
                    if elsewhere is None
                    else other_host.of_exception(self.call_info, elsewhere, error)
                )
                self._too_slow = isinstance(error, slow_answers.TooSlowError)
                self._misnamed = isinstance(error, httpx.DecodingError)
            if place is not None:
                elsewhere = place
            elif target is not None:
                url, params = target, None
            else:
                break
        self._calls.saw(failure)
        if failure is not None:
            raise failure

    async def _file(self, response: httpx.Response, *, may_link: bool) -> AsyncGenerator[bytes, None]:
        """Yield a file; if the answer is a link to it instead, keep the link and yield nothing."""
        self._link = ""
        body = bounded.pieces(response, as_sent=self._as_sent)
        pieces = slow_answers.paced(body, slow_answers.longest_s(self._http.timeout))
        async with contextlib.aclosing(pieces):
            begun = linked_files.Begun()
            if may_link and linked_files.may_be_link(response):
                begun = await linked_files.begun(pieces)
            self._link = linked_files.link_in(begun)
            if self._link:
                self._by_link = True
                return
            self.framed, self._part = _framed(response), _part(response)
            async for piece in linked_files.whole(begun, pieces):
                yield piece

    def _unfollowed(self, response: httpx.Response) -> WorkerError:
        """Return the error for a link that is not followed."""
        shown = {**response.headers, "location": self._link}
        return http_errors.of_status(self.call_info, FOUND, shown, b"", response.url)

    def _opened(
        self, url: str, params: httpx.QueryParams | None, trace: slow_answers.Trace
    ) -> contextlib.AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream(
            self._method,
            url,
            params=params,
            headers={
                name: said for name, said in self._headers.items() if not self._by_link or name != "range"
            },
            follow_redirects=False,
            extensions={"trace": trace},
        )

    def _traced(self, underway: Underway) -> slow_answers.Trace:
        async def trace(event: str, more: object) -> None:
            underway.moved()
            await self._calls.trace(event, more)

        return trace

    async def whole(self) -> AsyncGenerator[bytes, None]:
        """Yield the answer's body like `stream`; if it breaks off, ask for the rest as long as each try brings more.

        For answers that are the same each time, whether or not the provider can send a part of one.
        """
        n_got = 0
        for n_resumed in range(RESUMED_AT_MOST + 1):
            n_before, self._part = n_got, Part()
            try:
                async for fresh in self._from(n_got):
                    n_got += len(fresh)
                    yield fresh
                if n_got >= self._part.total:
                    return
            except TemporaryError:
                if self._misnamed and not n_got and not self._as_sent:
                    self._as_sent = True
                    continue
                if n_got == n_before or n_resumed == RESUMED_AT_MOST or self._too_slow:
                    raise
            except PermanentError as error:
                if error.status != RANGE_NOT_SATISFIABLE:
                    raise
                raise TemporaryError(str(error)) from None
            self._headers |= {"range": f"bytes={n_got}-", "accept-encoding": "identity"}
            await asyncio.sleep(RESUME_PAUSE_S * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        raise TemporaryError(f"{self.call_info.provider} sends its answer in too many parts")

    async def _from(self, start: int) -> AsyncGenerator[bytes, None]:
        """Yield the body from an offset on; the provider may send the first bytes all the same."""
        at: int | None = None
        async with contextlib.aclosing(self.stream()) as pieces:
            async for piece in pieces:
                at = self._part.first if at is None else at
                if at > start:
                    raise TemporaryError(
                        f"{self.call_info.provider} sent another part of its answer than it was asked for"
                    )
                fresh = piece[start - at :]
                at += len(piece)
                start = max(start, at)
                if fresh:
                    yield fresh

    def _params(self, query: Iterable[tuple[str, str]]) -> httpx.QueryParams | None:
        whole = (*query, *self._query)
        return httpx.QueryParams(whole) if whole else None

    async def _send(
        self,
        *,
        query: Iterable[tuple[str, str]] = (),
        content: bytes | Callable[[], AsyncIterable[bytes]] | None = None,
        data: dict[str, str] | None = None,
        files: dict[str, tuple[str, BinaryIO, str]] | None = None,
        patience: float = 1.0,
        fine: frozenset[int] = frozenset(),
        longest: int | None = bounded.LONGEST_ANSWER,
    ) -> _Received:
        """Send the call; return its answer, of whose body only the beginning is read where `longest` is None."""
        failure: WorkerError
        self.call_info = replace(self.call_info, submits=content is not None or files is not None)
        url, params = self._url, self._params(query)
        timeout = self._longest(patience)
        if isinstance(content, bytes) and len(content) > LARGE:
            # How far it has been taken is not seen.
            patience *= LARGE_PATIENCE
        for _ in range(REDIRECTS + 1):

            async def ask(
                trace: slow_answers.Trace,
                underway: Underway,
                url: str = url,
                params: httpx.QueryParams | None = params,
            ) -> _Received:
                watched = {
                    name: (called, underway.watched(file), kind)
                    for name, (called, file, kind) in (files or {}).items()
                }
                sent = self._http.stream(
                    self._method,
                    url,
                    params=params,
                    content=_watched(content(), underway) if callable(content) else content,
                    data=data,
                    files=watched or None,
                    headers=self._headers,
                    timeout=timeout,
                    follow_redirects=False,
                    extensions={"trace": trace},
                )
                async with self._turn(), sent as response:
                    body = _brought(bounded.pieces(response), underway)
                    is_fine = response.is_success or response.status_code in fine
                    if longest is None or not is_fine:
                        return _Received(response, await bounded.beginning(body))
                    async with contextlib.aclosing(body):
                        return _Received(response, await bounded.whole(body, longest))

            try:
                with self._calls.call(self.call_info.provider, self.call_info.does, patience) as underway:
                    received = await slow_answers.in_time(
                        functools.partial(ask, underway=underway),
                        self._traced(underway),
                        slow_answers.longest_s(timeout),
                    )
            except http_errors.FOREIGN as error:
                failure = http_errors.of_exception(self.call_info, error)
                break
            response = received.response
            if response.is_success or response.status_code in fine:
                # An id, a status or a list of failures may echo the key, and all of them are stored.
                received.body = self._redaction(received.body)
            self.answered_at = http_errors.date_of(response.headers) or self.answered_at
            behind = dt.datetime.now(dt.UTC) - self.answered_at
            self.behind = min(max(dt.timedelta(), behind), FURTHEST_BEHIND)
            if response.is_success or response.status_code in fine:
                self._calls.saw(None)
                return received
            failure = http_errors.of_status(
                self.call_info, response.status_code, _headers_of(response), received.body, response.url
            )
            target = redirected(response)
            if target is None:
                break
            url, params = target, None
            for _, file, _ in (files or {}).values():
                file.seek(0)
        self._calls.saw(failure)
        raise failure

    def _longest(self, patience: float) -> httpx.Timeout:
        longest = httpx.Timeout(self._http.timeout)
        if longest.read is not None:
            longest.read *= patience
        return longest

    async def _decoded(self, received: _Received, shape: type[T]) -> T:
        return await self._read(
            received, lambda body: lenient_json.decoded(lenient_json.unwrapped(body), shape)
        )

    async def _read(
        self, received: _Received, read: Callable[[bytes], T], *, most: int = bounded.MOST_VALUES
    ) -> T:
        def outcome() -> T | WorkerError:
            return self._outcome(received, read, most)

        in_thread = len(received.body) > LOOP_BYTES
        found = await asyncio.to_thread(outcome) if in_thread else outcome()
        if isinstance(found, WorkerError):
            # The error is kept until its step has ended, and would keep what was received.
            received.body = b""
            self._calls.saw(found)
            raise found
        return found

    def _outcome(self, received: _Received, read: Callable[[bytes], T], most: int) -> T | WorkerError:
        """Return what the answer says, or the error for an answer that says nothing; no error holds any of it."""
        response, body = received.response, received.body
        if bounded.holds_too_much(body, most):
            return http_errors.of_exception(self.call_info, bounded.TooLargeError("too many values"))
        failure = error_instead.of_body(self.call_info, response.status_code, body)
        if failure is not None:
            return failure
        try:
            return read(body)
        except (ValueError, TypeError, RecursionError):
            return http_errors.of_unreadable(self.call_info)


def redirected(response: httpx.Response) -> str | None:
    """Return the URL to send the same call to again, or None where a redirect is none or is not to be followed.

    The call carries a key, so the scheme, the host and the port stay the same. So do its method and body, which only
    307 and 308 promise of a call that has a body.
    """
    kept = KEEPS_THE_METHOD if response.request.method not in SAFE_METHODS else REDIRECTING
    target = _place_there(response)
    return str(target) if response.status_code in kept and target is not None else None


def _place_there(response: httpx.Response) -> httpx.URL | None:
    """Return the URL that a redirect names where it is one of the server that sent it, else None."""
    place = response.headers.get("location", "")
    if not place:
        return None
    try:
        target = response.url.join(place)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        return None
    here = (response.url.scheme, response.url.host, response.url.port)
    return target if (target.scheme, target.host, target.port) == here and not target.userinfo else None


def _headers_of(response: httpx.Response) -> Mapping[str, str]:
    """Return the headers; a redirect that stays at its server names a path in them, and no host."""
    target = _place_there(response)
    if target is None:
        return response.headers
    return {**response.headers, "location": target.raw_path.decode("ascii", "replace")}


async def _brought(pieces: AsyncIterator[bytes], underway: Underway) -> AsyncGenerator[bytes, None]:
    async for piece in pieces:
        underway.brought(len(piece))
        yield piece


async def _watched(pieces: AsyncIterable[bytes], underway: Underway) -> AsyncIterator[bytes]:
    async for piece in pieces:
        underway.moved()
        yield piece


def _framed(response: httpx.Response) -> bool:
    headers = response.headers
    return "content-length" in headers or "transfer-encoding" in headers or response.http_version == "HTTP/2"


def _part(response: httpx.Response) -> Part:
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return Part()
    said = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
    if said is None and "range" not in response.request.headers:
        # It was not asked for a part: this is the beginning, and the whole is longer by an amount that nobody names.
        return Part(total=sys.maxsize)
    if said is None or "content-encoding" in response.headers:
        # Nobody can tell where these bytes belong.
        return Part(first=sys.maxsize)
    return Part(first=int(said[1]), total=0 if said[2] == "*" else int(said[2]))
