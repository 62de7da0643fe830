"""The neutral middle of interception: one caught HTTP call, its answer, and who gives it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from ..wire.route import OWN_PORTS
from ..wire.shown import lines
from .passed import Passed

_logger = logging.getLogger(__name__)

# The body of a reply is whole and decoded: headers about its transfer would be wrong.
_TRAVEL_HEADERS: Final = frozenset(
    {"connection", "content-encoding", "content-length", "keep-alive", "transfer-encoding"}
)


def host_of(name: str, port: int | None, scheme: str = "") -> str:
    """Return the host as routes spell it: without its port where that is the scheme's own."""
    if port is None or port == OWN_PORTS.get(scheme):
        return name
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def place_of(url: str) -> tuple[str, str]:
    """Return host and percent-decoded path of a URL as routes spell them; empty where no call can go to it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", ""
    return host_of(parts.hostname or "", port, parts.scheme), unquote(parts.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """One HTTP request as its library was about to send it; the repr holds neither key nor content.

    ``host`` is lower-case, with the port where that is not the scheme's own; ``path`` is percent-decoded, without
    query; header names are lower-case.
    """

    method: str
    url: str = field(repr=False)
    host: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    body_unread: bool = False
    """Whether the body is a stream that can be read only once; ``body`` is empty then."""

    @property
    def is_retry(self) -> bool:
        """Whether an SDK retries a call that it has made before; both count as one call."""
        return self.headers.get("x-stainless-retry-count", "0") != "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """The answer to one caught call: a status, headers and the whole decoded body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers as bytes, with a content length that is true of the body."""
        raw = [
            (name.encode("latin-1"), value.encode("utf-8"))
            for name, value in self.headers.items()
            if name.lower() not in _TRAVEL_HEADERS
        ]
        raw.append((b"content-length", b"%d" % len(self.body)))
        return raw


class PassThrough:
    """The answer "not ours": the library sends the call as if batchling had not seen it.

    It is a context manager that the interceptor holds open while the library sends the call.
    """

    __slots__ = ("_sent",)

    def __init__(self, sent: Callable[[], None] | None = None) -> None:
        """Call `sent` once when the call has been sent, or is not sent after all."""
        self._sent = sent

    def __enter__(self) -> None:
        """Hold nothing more than the object does."""

    def __exit__(self, *_: object) -> None:
        sent, self._sent = self._sent, None
        if sent is not None:
            sent()


PASS_THROUGH: Final = PassThrough()


class Handler(Protocol):
    """A run, as an interceptor sees it."""

    @property
    def passed(self) -> Passed | None:
        """The counts of calls at full price, which outlive the block; None where nobody wants any."""
        ...

    def wants(self, method: str, host: str, path: str) -> bool:
        """Say cheaply whether such a call may be batched; False lets it pass."""
        ...

    def passes(self, method: str, host: str, path: str) -> bool:
        """Count a call that `wants` has refused and warn about it, if it costs money; return whether it does."""
        ...

    async def answer(self, call: HttpCall) -> HttpReply | PassThrough:
        """Answer the call on the caller's own event loop, however long the batch takes."""
        ...

    def answer_blocking(self, call: HttpCall) -> HttpReply | PassThrough:
        """Answer the call in the caller's own thread and block it meanwhile."""
        ...


class LetsPass:
    """Replaces a block, and lets every call pass."""

    def wants(self, method: str, host: str, path: str) -> bool:
        return False

    async def answer(self, call: HttpCall) -> PassThrough:
        return PASS_THROUGH

    def answer_blocking(self, call: HttpCall) -> PassThrough:
        return PASS_THROUGH


class _Passing(LetsPass):
    """Replaces the block for a call that was counted, so that no other library counts it again."""

    passed: None = None

    def passes(self, method: str, host: str, path: str) -> bool:
        return True


PASSING: Final = _Passing()
"""What an interceptor is given for a call that passes and has been counted."""


warned: Final[dict[tuple[str, int], object]] = {}
"""The warnings that this process and its parents have printed, with their process ids."""


def warn_once(sentence: str, pid: int) -> None:
    """Log a warning the first time it is given for the process ``pid``, whichever thread gives it.

    A log line and not a Python warning: where warnings are errors, an SDK would take the exception for a
    broken connection and try again.
    """
    mine = object()
    # One atomic step of the dict and no lock, which a fork could leave held in the child for ever.
    if warned.setdefault((sentence, pid), mine) is mine:
        _logger.warning("%s (process %d)", lines(sentence), pid)
