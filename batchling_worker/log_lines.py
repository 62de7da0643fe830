"""Log lines that programs can read: one record a line, as logfmt or as JSON."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from batchling_client.wire.shown import LONGEST_TEXT, as_json

Fields: TypeAlias = Mapping[str, str | int | float]

HEAD: Final = ("at", "level", "logger", "process", "event", "message", "exception")
"""Names that every line may have: an event's own field is called otherwise."""
FORMATS: Final = ("text", "logfmt", "json")
"""`text` and `logfmt` are the same."""


def emit(logger: logging.Logger, level: int, event: str, fields: Fields) -> None:
    """Log an event; its record has the name as `event` and the fields as `fields`, for other formatters."""
    if logger.isEnabledFor(level):
        said = f"{event} {logfmt(fields)}".rstrip()
        logger.log(level, "%s", said, extra={"event": event, "fields": dict(fields)})


def logfmt(fields: Mapping[str, Any]) -> str:
    """Return fields as `name=value`; a value with spaces, quotes, `=` or controls is quoted and escaped as in JSON."""
    return " ".join(f"{name}={_value(value)}" for name, value in fields.items())


def set_format(handlers: Iterable[logging.Handler], log_format: str) -> None:
    """Make handlers write records in one of the `FORMATS`."""
    formatter = JsonLines() if log_format == "json" else LogfmtLines()
    for handler in handlers:
        handler.setFormatter(formatter)


class _Lines(logging.Formatter):
    """Reads of a record what its line has."""

    def read(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the line's fields in order; other programs' records have a message instead of an event."""
        at = dt.datetime.fromtimestamp(record.created, tz=dt.UTC).isoformat(timespec="milliseconds")
        read: dict[str, Any] = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.processName or "",
        }
        event, fields = getattr(record, "event", None), getattr(record, "fields", None)
        if isinstance(event, str) and isinstance(fields, dict):
            read |= {"event": event, **fields}
        else:
            read["message"] = record.getMessage()
        if record.exc_info:
            read["exception"] = self.formatException(record.exc_info)
        return read


class LogfmtLines(_Lines):
    """Formats records as logfmt."""

    def format(self, record: logging.LogRecord) -> str:
        return logfmt(self.read(record))


class JsonLines(_Lines):
    """Formats records as one JSON object each."""

    def format(self, record: logging.LogRecord) -> str:
        return as_json({name: _cut(value) for name, value in self.read(record).items()})


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(_cut(value))
    if text and text.isprintable() and not any(one in text for one in ' "=\\'):
        return text
    return as_json(text)


def _cut(value: object) -> str | int | float | None:
    """Return a value as a line holds it; no word of others makes a line of any length."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
