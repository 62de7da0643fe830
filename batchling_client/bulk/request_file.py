"""Reads a file of requests, one a line, as the calls that an SDK would make; holds one line at a time."""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, Protocol
from urllib.parse import urlsplit

import msgspec

from ..intercept.interceptor import HttpCall, HttpReply
from ..session.calls import Calls
from ..session.lanes import Lane
from ..wire.routes import Route
from . import line_shapes

LONGEST_CUSTOM_ID: Final = 512
SLACK: Final = 64 * 1024
"""What a line may hold beside its body."""
VERSION: Final = "v1beta"
"""The version in a path whose lines and endpoint name none."""
_OTHER_WORDS: Final = re.compile(r"\{(?!model\})")


class _Stream(msgspec.Struct):
    stream: Any = None


class _Message(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _Message


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
    """The lines of a file for one provider: batch lines, with `endpoint` also bare bodies; empty ones are skipped."""

    file: BinaryIO = field(repr=False)
    route: Route
    headers: Mapping[str, str] = field(repr=False)
    endpoint: str | None = None
    """Where lines go that name no place."""
    model: str | None = None
    """The model of lines that name none."""
    host: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    """Values for words in a path of the provider, such as the project."""
    unnamed: list[int] = field(default_factory=list, repr=False)
    """The number of the first line that names no model and got `model` instead."""

    def lines(self) -> Iterator[Ask | BadLine]:
        """Yield every line from the first on."""
        with _as_utf8(self.file) as file:
            yield from self._lines(file)

    def _lines(self, file: _Lines) -> Iterator[Ask | BadLine]:
        longest = min(self.route.max_row_bytes, self.route.max_bytes) + SLACK
        number = 0
        while line := file.readline(longest):
            number += 1
            if not line.endswith(b"\n") and len(line) >= longest:
                while (rest := file.readline(longest)) and not rest.endswith(b"\n"):
                    pass
                yield BadLine(number, f"it is longer than {self.route.provider} takes in a batch")
            elif line.strip():
                yield self._line(number, line)

    def _line(self, number: int, line: bytes) -> Ask | BadLine:
        try:
            # The decoder does not check strings that it skips.
            line.decode()
        except UnicodeDecodeError:
            return BadLine(number, "it is not in UTF-8: save the file in that encoding")
        try:
            fields = line_shapes.decode_fields(line)
            read = line_shapes.read(fields, self.route.lines)
        except _UNREADABLE:
            return BadLine(number, "it is not a JSON object")
        if read is None and self.endpoint:
            return self._ask(number, str(number), self.endpoint, line.strip())
        if read is None or read.body == b"null":
            return BadLine(number, "it has no `url` and `body`; give --endpoint where lines are bare bodies")
        if read.method != "POST":
            return BadLine(number, "its `method` is not POST")
        custom_id = read.custom_id
        if custom_id is None and self.route.lines.may_lack_id:
            custom_id = str(number)
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= LONGEST_CUSTOM_ID:
            return BadLine(number, f"its `custom_id` is not a text of 1 to {LONGEST_CUSTOM_ID} characters")
        url = self.endpoint if read.url is None else read.url
        if url is None and read.field not in ("body", self.route.lines.body):
            return BadLine(
                number,
                f"its `{read.field}` is that of another provider's files: give --endpoint to send it here",
            )
        if url is None:
            url = line_shapes.path_of(self.route.lines, _fields_of(read.body))
        if not isinstance(url, str):
            return BadLine(number, "it has no `url`: give --endpoint")
        for word, value in self.words.items():
            url = url.replace(f"{{{word}}}", value)
        return self._ask(number, custom_id, url, read.body)

    def _ask(self, number: int, custom_id: str, endpoint: str, body: bytes) -> Ask | BadLine:
        path = path_of(self.route, endpoint)
        if path is None:
            known = ", ".join(sorted(set(self.route.endpoints.values())))
            return BadLine(number, f"{self.route.provider} takes no batches of {endpoint[:100]}, but {known}")
        named = line_shapes.model_of(fields := _fields_of(body))
        model = named or self.model
        if model is None and (self.route.lines.lacks_model or "{model}" in path):
            return BadLine(number, "it names no model: give --model")
        if model is not None and "{model}" in path:
            if named is None and not self.unnamed:
                self.unnamed.append(number)
            path = path.replace("{model}", model)
        elif named is None and self.model is not None and fields:
            body = msgspec.json.encode({**fields, "model": self.model})
        host, slash, prefix = self._host().partition("/")
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

    def _host(self) -> str:
        return self.host or next(host for host in self.route.hosts if "*" not in host)


def path_of(route: Route, endpoint: str) -> str | None:
    """Return the path of a call to an endpoint, named as the provider's batches or its SDK name it; None = not taken.

    A path may be left with `{model}` in it; a whole URL and a path without its version are understood, too.
    """
    plain = urlsplit(endpoint).path if "://" in endpoint else endpoint
    plain = plain if plain.startswith("/") else f"/{plain}"
    for name in (plain, f"/v1{plain}"):
        for path, taken in route.endpoints.items():
            if taken == name and "{" not in path:
                return path
        if route.place(name.replace("{model}", "m")) is not None:
            return name
    # Parts of a path that only the line knows, such as a project, cannot be invented.
    return next(
        (
            path.replace("{version}", VERSION)
            for path, taken in route.endpoints.items()
            if plain in (taken, path) and not _OTHER_WORDS.search(path.replace("{version}", ""))
        ),
        None,
    )


def _fields_of(body: bytes) -> line_shapes.Fields:
    try:
        return line_shapes.decode_fields(body)
    except _UNREADABLE:
        return {}


class _Lines(Protocol):
    def readline(self, longest: int, /) -> bytes: ...


@contextlib.contextmanager
def _as_utf8(file: BinaryIO) -> Iterator[_Lines]:
    """Read the file from its start, without a byte order mark, and in UTF-8 where it is in UTF-16."""
    file.seek(0)
    start = file.read(len(codecs.BOM_UTF8))
    file.seek(len(codecs.BOM_UTF8) if start == codecs.BOM_UTF8 else 0)
    if not start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield file
        return
    # Windows PowerShell writes UTF-16 files with a byte order mark.
    text = io.TextIOWrapper(file, encoding="utf-16", errors="replace", newline="\n")
    try:
        yield _Recoded(text)
    finally:
        # The file is read again, so it must not be closed with this reader.
        text.detach()


class _Recoded:
    """A text, a line at a time, in UTF-8."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def readline(self, longest: int, /) -> bytes:
        """Return the next line, or that many characters of a longer line."""
        return self._text.readline(longest).encode("utf-8", "replace")


class Check:
    """Looks a file through before anything of it is queued; remembers a few dozen bytes of each line."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._custom_ids: set[int] = set()
        self.n_requests = 0

    def complaint(self, line: Ask | BadLine) -> BadLine | None:
        """Return what is wrong with a line, None if nothing is."""
        if isinstance(line, BadLine):
            return line
        self.n_requests += 1
        # The hash has 64 bits: with a million lines, two ids collide in one of ten million files.
        named = hash(line.custom_id)
        if named in self._custom_ids:
            return BadLine(line.number, "an earlier line has the same `custom_id`")
        self._custom_ids.add(named)
        why = self._refusal(line.call)
        return BadLine(line.number, why) if why else None

    def _refusal(self, call: HttpCall) -> str:
        try:
            if _decode_stream(call.body).stream is True:
                return "it asks for a streamed answer, which batches do not support"
        except _UNREADABLE:
            return "its body is not a JSON object"
        lane = self._calls.lane_of(call)
        if isinstance(lane, Lane):
            return ""
        return (
            _decode_refusal(lane.body).error.message
            if isinstance(lane, HttpReply)
            else "it cannot be batched"
        )
