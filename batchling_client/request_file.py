"""Reads a file of requests, one a line, as the calls that an SDK would make; holds one line at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import msgspec

from .calls import Calls, Lane
from .interceptor import HttpCall, HttpReply
from .wire.routes import Route

LONGEST_CUSTOM_ID: Final = 512
SLACK: Final = 64 * 1024
"""What a line may hold beside its body."""


class _Line(msgspec.Struct):
    """A line of a provider's batch file."""

    custom_id: Any = None
    method: Any = "POST"
    url: Any = None
    body: msgspec.Raw = msgspec.Raw()


class _Stream(msgspec.Struct):
    stream: Any = None


class _Message(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _Message


_decode_line: Final = msgspec.json.Decoder(_Line).decode
_decode_stream: Final = msgspec.json.Decoder(_Stream).decode
_decode_refusal: Final = msgspec.json.Decoder(_Refusal).decode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A line that is a request: the user's own custom_id, or the line's number, and the call."""

    number: int
    custom_id: str
    call: HttpCall


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot go into a batch, and why."""

    number: int
    why: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFile:
    """The lines of a file for one provider: batch lines, or with `endpoint` bare bodies; empty ones are skipped."""

    file: BinaryIO = field(repr=False)
    route: Route
    headers: Mapping[str, str] = field(repr=False)
    endpoint: str | None = None

    def lines(self) -> Iterator[Ask | BadLine]:
        """Every line from the first on."""
        self.file.seek(0)
        longest = min(self.route.max_row_bytes, self.route.max_bytes) + SLACK
        number = 0
        while line := self.file.readline(longest):
            number += 1
            if not line.endswith(b"\n") and len(line) == longest:
                while (rest := self.file.readline(longest)) and not rest.endswith(b"\n"):
                    pass
                yield BadLine(number, f"it is longer than {self.route.provider} takes in a batch")
            elif line.strip():
                yield self._bare(number, line) if self.endpoint else self._batch_line(number, line)

    def _bare(self, number: int, line: bytes) -> Ask | BadLine:
        return self._ask(number, str(number), self.endpoint or "", line.strip())

    def _batch_line(self, number: int, line: bytes) -> Ask | BadLine:
        try:
            read = _decode_line(line)
        except _UNREADABLE:
            return BadLine(number, "it is not a JSON object")
        if not isinstance(read.url, str) or not bytes(read.body):
            return BadLine(number, "it has no `url` and `body`; give --endpoint where lines are bare bodies")
        custom_id = read.custom_id
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= LONGEST_CUSTOM_ID:
            return BadLine(number, f"its `custom_id` is not a text of 1 to {LONGEST_CUSTOM_ID} characters")
        if read.method != "POST":
            return BadLine(number, "its `method` is not POST")
        return self._ask(number, custom_id, read.url, bytes(read.body))

    def _ask(self, number: int, custom_id: str, endpoint: str, body: bytes) -> Ask | BadLine:
        path = path_of(self.route, endpoint)
        if path is None:
            known = ", ".join(sorted(set(self.route.endpoints.values())))
            return BadLine(number, f"{self.route.provider} takes no batches of {endpoint[:100]}, but {known}")
        host, slash, prefix = next(host for host in self.route.hosts if "*" not in host).partition("/")
        path = slash + prefix + path
        call = HttpCall(
            method="POST",
            url=f"https://{host}{path}",
            host=host,
            path=path,
            headers={"content-type": "application/json", **self.headers},
            body=body,
        )
        return Ask(number=number, custom_id=custom_id, call=call)


def path_of(route: Route, endpoint: str) -> str | None:
    """The path of a call to an endpoint, named as the provider's batches or as its SDK name it; None = not taken."""
    for path, taken in route.endpoints.items():
        if taken == endpoint and "{" not in path:
            return path
    return endpoint if route.place(endpoint) is not None else None


class Check:
    """Looks a file through before anything of it is queued; remembers a few dozen bytes of each line."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._custom_ids: set[int] = set()
        self.n_requests = 0

    def complaint(self, line: Ask | BadLine) -> BadLine | None:
        """What is wrong with a line, if anything is."""
        if isinstance(line, BadLine):
            return line
        self.n_requests += 1
        # The hash of a text has 64 bits: in a million lines two are taken for one once in ten million files.
        named = hash(line.custom_id)
        if named in self._custom_ids:
            return BadLine(line.number, "its `custom_id` stands in the file already")
        self._custom_ids.add(named)
        why = self._refusal(line.call)
        return BadLine(line.number, why) if why else None

    def _refusal(self, call: HttpCall) -> str:
        try:
            if _decode_stream(call.body).stream is True:
                return "it asks for a streamed answer, which no batch gives"
        except _UNREADABLE:
            return "its body is not a JSON object"
        lane = self._calls.lane_of(call)
        if isinstance(lane, Lane):
            return ""
        return (
            _decode_refusal(lane.body).error.message if isinstance(lane, HttpReply) else "no batch takes it"
        )
