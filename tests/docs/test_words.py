"""The project's prose is plain: fragments that readers have to read twice are banned from code, docs and tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).relative_to(ROOT).as_posix()
READ = (".py", ".lua", ".md", ".toml", ".conf", ".yml", ".example", "Makefile", "Procfile")
NOT_PROSE = (HERE, "CHANGELOG.md")
FOLDERS = (
    "batchling_client",
    "batchling_worker",
    "benchmarks",
    "deploy",
    "docs",
    "examples",
    "tests",
    "tools",
)
"""What a checkout holds beside these, such as a virtual environment, is not the project's prose."""
BANNED = {
    "told": r"\b(?:is|are) told\b",
    "whoever": r"\bwhoever\b",
    "who does": r"\bwho does\b",
    "one that": r"\bone that\b",
    "what is no": r"\bwhat is no\b",
    "X is no Y": r"(?<!there )\bis no (?!longer\b|more\b|less\b|earlier\b|later\b|other\b|room\b)[a-z]",
    "goes on": r"\bgoes on\b",
    "taken back": r"\btaken back\b",
    "at the most": r"\bat the most\b",
    "none of it": r"\bnone of it\b",
    "Of the ..., ...": r"(?:^|[.!?:] |\"\"\"|# )Of (?:a|the) ",
    ", and none": r", and none\b",
    "as good as": r"\bas good as\b",
    "in a hurry": r"\bin a hurry\b",
    "waits for company": r"\bwaits for company\b",
    "stands in": r"\bstands in\b(?! for\b)",
}
BAN = {name: re.compile(pattern, re.IGNORECASE if name[0] != "O" else 0) for name, pattern in BANNED.items()}


def hits() -> Iterator[str]:
    """Each line that holds a banned fragment, as `file:line: fragment: text`."""
    below = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    for path in sorted(one for one in (*ROOT.iterdir(), *below) if one.is_file()):
        file = path.relative_to(ROOT).as_posix()
        if file.endswith(READ) and file not in NOT_PROSE:
            for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                for name, ban in BAN.items():
                    if ban.search(line):
                        yield f"{file}:{n}: {name}: {line.strip()}"


def test_no_sentence_holds_a_banned_fragment() -> None:
    assert list(hits()) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("told", "The caller is told of it."),
        ("whoever", "Whoever asks again attaches."),
        ("one that", "A full Redis refuses, one that is killed is away."),
        ("X is no Y", "A file that the provider refused is no file."),
        ("goes on", "The batch goes on."),
        ("Of the ..., ...", "# Of the rows, those that are left."),
        ("stands in", "It stands in Redis."),
    ],
)
def test_the_ban_finds_the_fragments_that_it_names(name: str, sentence: str) -> None:
    assert BAN[name].search(sentence)


@pytest.mark.parametrize(
    "sentence",
    ["There is no file.", "It is no longer there.", "The rest of the rows are read.", "It tells why."],
)
def test_the_ban_leaves_plain_sentences_alone(sentence: str) -> None:
    assert not [name for name, ban in BAN.items() if ban.search(sentence)]
