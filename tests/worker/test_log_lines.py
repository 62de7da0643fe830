"""Every line of a worker's log can be read by a program, whatever a value holds."""

from __future__ import annotations

import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchling_worker.log_lines import emit, logfmt, set_format

PAIR = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)=("(?:[^"\\]|\\.)*"|[^\s"=]*)(?: |$)')


def parsed(line: str) -> dict[str, str]:
    """Read a line of logfmt; raise ValueError for anything that a lenient parser would have to guess."""
    found: dict[str, str] = {}
    at = 0
    while at < len(line):
        match = PAIR.match(line, at)
        if match is None or match[1] in found:
            raise ValueError(line[at:])
        found[match[1]] = json.loads(match[2]) if match[2].startswith('"') else match[2]
        at = match.end()
    return found


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(), min_size=1))
def test_whatever_a_value_holds_is_read_back_from_one_printable_line(fields: dict[str, str]) -> None:
    line = logfmt(fields)

    assert line.isprintable()
    assert parsed(line) == fields


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_record_is_one_line_with_its_traceback(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler()
    set_format([handler], log_format)
    logger = logging.getLogger(f"in {log_format}")
    logger.propagate = False
    logger.addHandler(handler)

    emit(logger, logging.WARNING, "batch_held", {"reason": 'held: "a" = b\n\x1b[31m\u2028', "delay_s": 1.5})
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        logger.exception("It failed: %s", "why")

    event, failure = map(parsed if log_format == "text" else json.loads, capsys.readouterr().err.splitlines())
    assert event["reason"] == 'held: "a" = b\n\x1b[31m\u2028'
    assert (event["event"], event["level"], float(event["delay_s"])) == ("batch_held", "warning", 1.5)
    assert failure["message"] == "It failed: why"
    assert failure["exception"].endswith("RuntimeError: two\nlines")
