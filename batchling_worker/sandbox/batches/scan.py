"""Reads an input file line by line and finds its rows and their errors; no body stays in memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from ..answers.answers import DEFAULT_MODELS, RESPONSES, UNKNOWN_MODEL_PREFIX
from ..world.world import Limits


class LineError(msgspec.Struct, frozen=True):
    """One entry of a batch's `errors`; `line` counts from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRules:
    """A provider's rules for a line; `endpoint` None = each line may name its own of `endpoints`.

    Lines that were checked on arrival are not checked again: a bad body runs, and its answer holds the error.
    """

    endpoints: frozenset[str]
    endpoint: str | None
    one_model: bool = False
    models_checked: bool = False
    skips_bad_lines: bool = False
    lines_checked: bool = True
    unique: bool = True
    """Whether custom_ids must be unique."""


@dataclass(slots=True, kw_only=True)
class Scan:
    """The rows of a file: row i is at bytes[starts[i]:ends[i]]; `fatal` = nothing will run."""

    starts: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("Q"))
    errors: list[LineError] = field(default_factory=list)
    fatal: bool = False
    n_lines: int = 0
    input_tokens: int = 0
    model: str | None = None

    @property
    def n_skipped(self) -> int:
        """Return the number of lines that will not run."""
        return self.n_lines - len(self.starts)


class _Body(msgspec.Struct, frozen=True):
    model: str | None = None
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    stream: bool | None = None
    input: msgspec.Raw = msgspec.Raw(b"null")


class _Line(msgspec.Struct, frozen=True):
    custom_id: str
    method: str
    url: str
    body: _Body


class _FirstBody(msgspec.Struct, frozen=True):
    model: str | None = None


class _First(msgspec.Struct, frozen=True):
    body: _FirstBody


_line_decoder = msgspec.json.Decoder(_Line)
_first_decoder = msgspec.json.Decoder(_First)
_UNSEEN: Final = _Line(custom_id="", method="POST", url="", body=_Body())
"""The value for a line that is not checked."""


def scan(path: Path, rules: LineRules, limits: Limits, max_rows: int) -> Scan:
    """Check every line of the file at `path`; stop at the first bad line unless bad lines are skipped."""
    found = Scan()
    seen: set[str] = set()
    n_inputs = position = 0
    with path.open("rb", buffering=1 << 20) as lines:
        for number, line in enumerate(lines, start=1):
            start, position = position, position + len(line)
            found.n_lines = number
            if number > max_rows:
                # OpenAI's published tables name no code for this; this is the code of Azure, the closest API.
                message = f"The file has too many lines. The limit is {max_rows}."
                return _failed(found, LineError("too_many_tasks", message))
            checked = _check(line, number, seen, found.model, rules) if rules.lines_checked else _UNSEEN
            if isinstance(checked, LineError):
                if not rules.skips_bad_lines:
                    return _failed(found, checked)
                found.errors.append(checked)
                continue
            if checked.url == "/v1/embeddings":
                n_inputs += _n_inputs(checked.body.input)
                if n_inputs > limits.max_embedding_inputs:
                    message = (
                        f"The file has too many embedding inputs. The limit is {limits.max_embedding_inputs}."
                    )
                    return _failed(found, LineError("too_many_tasks", message))
            found.model = found.model or checked.body.model
            found.starts.append(start)
            found.ends.append(position)
            found.input_tokens += len(line) // 4
    if found.n_lines == 0:
        return _failed(found, LineError("empty_file", "The input file is empty."))
    found.fatal = not found.starts
    return found


def peek_model(path: Path) -> str | None:
    """Return the model of the first line, or None."""
    with path.open("rb") as lines:
        try:
            return _first_decoder.decode(lines.readline()).body.model
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


def listed_errors(errors: Sequence[LineError], *, bare: bool) -> object:
    """Return a batch's errors in OpenAI's shape, or None."""
    if not errors:
        return None
    listed = msgspec.to_builtins(errors)
    return listed if bare else {"object": "list", "data": listed}


def _failed(found: Scan, error: LineError) -> Scan:
    found.errors, found.fatal = [error], True
    return found


def _n_inputs(raw: msgspec.Raw) -> int:
    value = msgspec.json.decode(raw)
    return len(value) if isinstance(value, list) and not all(isinstance(item, int) for item in value) else 1


def _check(
    line: bytes, number: int, seen: set[str], model: str | None, rules: LineRules
) -> _Line | LineError:
    try:
        parsed = _line_decoder.decode(line)
    except msgspec.ValidationError:
        return _diagnose(line, number)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return LineError("invalid_json_line", "This line is not parseable as valid JSON.", None, number)
    if rules.unique and parsed.custom_id in seen:
        message = f"The custom_id '{parsed.custom_id}' for this request is a duplicate of another request."
        return LineError("duplicate_custom_id", message, "custom_id", number)
    seen.add(parsed.custom_id)
    return _check_fields(parsed, number, model, rules) or parsed


def _check_fields(parsed: _Line, number: int, model: str | None, rules: LineRules) -> LineError | None:
    if parsed.method != "POST":
        return LineError(
            "invalid_method", f"The method '{parsed.method}' is not supported.", "method", number
        )
    if parsed.url not in rules.endpoints or (rules.endpoint is not None and parsed.url != rules.endpoint):
        message = "The URL provided for this request does not match the batch endpoint."
        return LineError("invalid_url", message, "url", number)
    named = parsed.body.model
    if named is None:
        if parsed.url in DEFAULT_MODELS or (parsed.url == RESPONSES and bytes(parsed.body.prompt) != b"null"):
            return None
        return LineError("invalid_request", "The model of this request is missing.", "body.model", number)
    if rules.models_checked and named.startswith(UNKNOWN_MODEL_PREFIX):
        message = f"The provided model '{named}' is not supported by the Batch API."
        return LineError("model_not_found", message, "body.model", number)
    if rules.one_model and model is not None and named != model:
        message = f"The model '{named}' differs from '{model}'. One file is for one model."
        return LineError("mismatched_model", message, "body.model", number)
    if parsed.body.stream:
        return LineError(
            "streaming_unsupported", "Streaming is not supported in a batch.", "body.stream", number
        )
    return None


def _diagnose(line: bytes, number: int) -> LineError:
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        fields = None
    if not isinstance(fields, dict):
        return LineError("invalid_json_line", "This line is not parseable as valid JSON.", None, number)
    for name in ("custom_id", "method", "url"):
        if not isinstance(fields.get(name), str):
            return LineError(
                "missing_required_parameter", f"Missing required parameter: '{name}'.", name, number
            )
    body = fields.get("body")
    if not isinstance(body, dict):
        return LineError("missing_required_parameter", "Missing required parameter: 'body'.", "body", number)
    if "model" in body and not isinstance(body["model"], str):
        return LineError("invalid_request", "The model of this request is missing.", "body.model", number)
    return LineError("invalid_request", "The body of this request is invalid.", "body", number)
