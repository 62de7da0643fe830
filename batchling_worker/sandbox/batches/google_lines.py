"""Converts Google's input lines for the sandbox and its results for Google; bodies pass through as bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec

ResultLine: TypeAlias = Callable[["Ran"], bytes | None]
"""Convert a row that ran to a line of the provider's; None leaves it out."""


class BadLine(ValueError):
    """A line that the provider does not accept; the message says which line and why."""


class InputLine(msgspec.Struct, frozen=True):
    """A line of an input file: its key, under any of its names, and the request."""

    key: str
    request: bytes


class _Response(msgspec.Struct, frozen=True):
    status_code: int
    body: msgspec.Raw


class _Error(msgspec.Struct, frozen=True):
    code: str
    message: str


class Ran(msgspec.Struct, frozen=True):
    """A line of the sandbox's own result files."""

    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


class _Told(msgspec.Struct, frozen=True):
    message: str = ""


class _ErrorBody(msgspec.Struct, frozen=True):
    error: _Told = _Told()


_decode_ran = msgspec.json.Decoder(Ran).decode
_encode = msgspec.json.encode


def write_canonical(path: Path, lines: Iterable[InputLine], endpoint: str, model: str) -> None:
    """Write lines as the sandbox runs them, with endpoint and model, which Google puts in the URL."""
    url, name = _encode(endpoint), _encode(model)
    with path.open("wb", buffering=1 << 18) as file:
        for line in lines:
            rest = line.request.lstrip()[1:].lstrip()
            comma = b"" if rest.startswith(b"}") else b","
            file.write(
                b'{"custom_id":%b,"method":"POST","url":%b,"body":{"model":%b%b%b}\n'
                % (_encode(line.key), url, name, comma, rest)
            )


def read_lines(path: Path, read: Callable[[bytes], InputLine]) -> Iterator[InputLine]:
    """Yield the lines of an input file; raise BadLine at the first bad line."""
    n_lines = 0
    with path.open("rb", buffering=1 << 20) as file:
        for n_lines, line in enumerate(file, start=1):
            try:
                found = read(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise BadLine(f"Failed to parse line {n_lines} of the input file: {error}.") from error
            if not found.request.lstrip().startswith(b"{"):
                raise BadLine(f"Failed to parse line {n_lines} of the input file: no request.")
            yield found
    if n_lines == 0:
        raise BadLine("The input file is empty.")


def write_results(path: Path, sources: Iterable[Path], result_line: ResultLine) -> None:
    """Write the results of a batch in Google's shape; a broken line stays broken."""
    with path.open("wb", buffering=1 << 18) as out:
        for source in sources:
            with source.open("rb", buffering=1 << 20) as lines:
                for line in lines:
                    try:
                        ran = _decode_ran(line)
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        out.write(line)
                        continue
                    made = result_line(ran)
                    if made is not None:
                        out.write(made)


def message_of(body: bytes | msgspec.Raw) -> str:
    """Return the error message in the body of a failed row."""
    return msgspec.json.decode(body, type=_ErrorBody).error.message
