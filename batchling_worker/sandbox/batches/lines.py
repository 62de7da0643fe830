"""Converts lines between a provider's shape and OpenAI's, which the sandbox keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

_CHUNK = 1 << 18


class _Bare(msgspec.Struct, frozen=True):
    custom_id: str
    body: msgspec.Raw


class _Named(msgspec.Struct, frozen=True):
    model: str | None = None


_bare_decoder = msgspec.json.Decoder(_Bare)
_named_decoder = msgspec.json.Decoder(_Named)


def spell_out(source: Path, target: BinaryIO, endpoint: str, model: str | None = None) -> None:
    """Write lines of custom_id and body as full lines, with `model` in bodies without one; keep broken lines."""
    with source.open("rb", buffering=_CHUNK) as lines:
        for line in lines:
            try:
                bare = _bare_decoder.decode(line)
                target.write(full_line(bare.custom_id, endpoint, bytes(bare.body), model))
            except (msgspec.DecodeError, UnicodeDecodeError):
                target.write(line if line.endswith(b"\n") else line + b"\n")


def full_line(custom_id: str, endpoint: str, body: bytes, model: str | None = None) -> bytes:
    """Return a request as a line of OpenAI's, newline included; raise DecodeError unless the body is an object."""
    if _named_decoder.decode(body).model is None and model is not None:
        rest = body.lstrip()[1:].lstrip()
        comma = b"" if rest.startswith(b"}") else b","
        body = b'{"model":%b%b%b' % (msgspec.json.encode(model), comma, rest)
    name, url = msgspec.json.encode(custom_id), msgspec.json.encode(endpoint)
    return b'{"custom_id":%b,"method":"POST","url":%b,"body":%b}\n' % (name, url, body)


def reshape(path: Path, line_of: Callable[[bytes], bytes]) -> None:
    """Rewrite a file, each line as `line_of` converts it."""
    anew = path.with_name(f"{path.name}-anew")
    with path.open("rb", buffering=_CHUNK) as lines, anew.open("wb", buffering=_CHUNK) as written:
        for line in lines:
            written.write(line_of(line))
    anew.replace(path)
