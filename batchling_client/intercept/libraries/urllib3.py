"""urllib3 by itself, as boto3 has it: ``HTTPConnectionPool.urlopen``. Nothing is caught here: a batchable call is
sent with a warning, or answered by the sandbox in a rehearsal. Calls of requests also pass here; `requests.py` has
handled them before."""

import io
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from .. import gate, own_transports, uncovered_clients
from ..interceptor import Handler, HttpCall, HttpReply, host_of
from ..library import Library
from ..passed import costs
from ..patching import Patch, Patcher, Target, own_class


def _opening(library: Any, patch: Patch) -> Callable[..., Any]:
    def urlopen(pool: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
        block = patch.block()
        if block is not None:
            parts = urlsplit(url)
            # Through a proxy the request names the whole URL.
            called = parts if parts.hostname else pool
            name = (parts.hostname or pool.host).strip("[]").lower()
            host = host_of(name, called.port, called.scheme)
            path = unquote(parts.path)
            shut = gate.of_process()
            doubled = own_transports.is_foreign_class(pool.ConnectionCls) and own_transports.may_leave(
                block, name
            )
            if shut is not None and not doubled and shut.wants(method, host, path):
                whole = url if parts.hostname else f"{pool.scheme}://{host}{url}"
                call = _call(method, whole, host, path, *args, **options)
                with gate.judged(shut, call):
                    _note(block, method, host, path)
                return _response(library, method, shut.answer_blocking(call), **options)
            _note(block, method, host, path)
        return patch.plain(pool)(method, url, *args, **options)

    return urlopen


def _note(block: Handler, method: str, host: str, path: str) -> None:
    if block.wants(method, host, path):
        uncovered_clients.note_http(block.passed, host, "urllib3")
    elif costs(method, path):
        # Other calls were seen above: requests sends over this library.
        block.passes(method, host, path)


def _call(
    method: str,
    url: str,
    host: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str | bytes] | None = None,
    *args: Any,
    **options: Any,
) -> HttpCall:
    plain = body.encode() if isinstance(body, str) else body or b""
    whole = isinstance(plain, bytes | bytearray)
    return HttpCall(
        method=method,
        url=url,
        host=host,
        path=path,
        headers={name.lower(): _text(value) for name, value in (headers or {}).items()},
        body=bytes(plain) if isinstance(plain, bytes | bytearray) else b"",
        body_unread=not whole,
    )


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _response(
    library: Any, method: str, reply: HttpReply, *, preload_content: bool = True, **options: Any
) -> Any:
    return library.response.HTTPResponse(
        body=io.BytesIO(reply.body),
        headers=[(name.decode("latin-1"), value.decode("utf-8")) for name, value in reply.raw_headers()],
        status=reply.status,
        preload_content=preload_content,
        decode_content=False,
        request_method=method,
    )


def _targets(module: ModuleType) -> Iterator[Target]:
    pool = own_class(module, "HTTPConnectionPool", "connectionpool")
    yield pool, "urlopen", lambda patch: _opening(module, patch)


INTERCEPTOR: Final = Patcher(
    _targets,
    Library(
        name="urllib3",
        modules=("urllib3",),
        marks=("HTTPConnectionPool",),
        warned_of=True,
        sdks={"boto3": uncovered_clients.BEDROCK_WAY},
    ),
)
