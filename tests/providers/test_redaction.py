"""An answer that echoes the key, in whatever spelling and wherever, is stored and logged without it."""

from __future__ import annotations

import base64
import html
import json
import random
import string
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, quote_plus

import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker.dialects.http_errors import secrets_of
from batchling_worker.dialects.redaction import MARK, Redaction
from batchling_worker.errors import WorkerError
from batchling_worker.pipeline.result_chunks import _redacted
from batchling_worker.provider import Answer

from .desk import Desk
from .wire import Wire, answer

BATCH = ProviderBatchId("batch_1")
KEY: Final = "sk-CANARY+KEY/with=odd&chars-0123456789"
SPELLINGS: Final[dict[str, Callable[[str], str]]] = {
    "as it is": lambda text: text,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON of PHP": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "JSON of Go": lambda text: json.dumps(text)[1:-1].replace("&", "\\u0026"),
    "URL": lambda text: quote(text, safe=""),
    "URL, small letters": lambda text: quote(text, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    "form": quote_plus,
    "HTML": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of a header": lambda text: base64.b64encode(f"Bearer {text}".encode()).decode(),
    "base64 of a page": lambda text: base64.b64encode(f"<p>{text}</p> and more".encode()).decode(),
    "base64 of URLs": lambda text: base64.urlsafe_b64encode(f"ab{text}??".encode()).decode(),
}


def spelled_in(text: str, key: str) -> list[str]:
    """Return how a text spells a key; of base64 what stands for the key's inner bytes."""
    found = [name for name, spell in SPELLINGS.items() if "base64" not in name and spell(key) in text]
    for shift in range(3):
        core = base64.b64encode(b"\0" * shift + key.encode()).decode()[4 : (shift + len(key)) * 8 // 6 - 1]
        found += [f"base64, {shift}"] if core in text or core.translate({43: "-", 47: "_"}) in text else []
    return found


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_key_is_left_out_however_it_is_spelled(spelling: str) -> None:
    redact = Redaction(secrets_of({"authorization": f"Bearer {KEY}"}))
    text = f'{{"said": "before {SPELLINGS[spelling](KEY)} after"}}'
    assert spelled_in(text, KEY)

    left = redact(text.encode()).decode()

    assert not spelled_in(left, KEY)
    assert MARK.decode() in left
    assert left.startswith('{"said": "before ')
    assert left.endswith(' after"}')


def test_no_key_of_any_letters_passes_in_any_spelling() -> None:
    chance = random.Random(20261201)
    letters = string.ascii_letters + string.digits + "+/=&-_.~:<> \"'\\%é"
    for _ in range(300):
        key = "".join(chance.choices(letters, k=chance.randint(12, 60)))
        redact = Redaction((key, f"Basic {key}"))
        for name, spell in SPELLINGS.items():
            left = redact(f"x{spell(key)}y".encode()).decode()
            assert MARK.decode() in left, (key, name)
            assert spell(key) not in left, (key, name)


def test_what_holds_no_key_is_left_as_it_is() -> None:
    redact = Redaction((KEY,))
    body = json.dumps({"text": "sk-CANARY and 0123456789 are parts of a key" * 50}).encode()
    assert redact(body) is body


def test_a_short_key_is_a_word_like_others_in_answers_and_is_left_out_of_errors() -> None:
    assert Redaction(("ollama",))(b"run ollama") == b"run ollama"
    assert Redaction(("ollama",), shortest=6)(b"no key ollama") == b"no key [redacted]"


ECHOES: Final[dict[str, Callable[[str], dict[str, object]]]] = {
    "id": lambda said: {"id": f"batch_{said}"},
    "status": lambda said: {"status": f"weird {said}"},
    "failures": lambda said: {
        "status": "failed",
        "errors": {"data": [{"code": f"c{said}", "message": f"key {said} has no quota"}]},
    },
    "file": lambda said: {"status": "completed", "output_file_id": f"file-{said}"},
}


@pytest.mark.parametrize("spelling", ["as it is", "URL", "base64 of a header"])
@pytest.mark.parametrize("where", ECHOES)
async def test_an_answer_that_is_a_success_is_read_without_the_key(
    wire: Wire, wired: Desk, where: str, spelling: str
) -> None:
    batch = {
        "id": BATCH,
        "object": "batch",
        "status": "in_progress",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "created_at": 1_700_000_000,
        "request_counts": {"total": 1, "completed": 0, "failed": 0},
    }
    echoed = batch | ECHOES[where](SPELLINGS[spelling](KEY))
    wire.reply = lambda seen: answer(
        json.dumps(echoed).encode(), headers="content-type: application/json\r\n"
    )
    desk = wired.under_key(KEY)
    said: list[object] = []
    for move in (desk.look(BATCH), desk.create("file-1")):
        try:
            said.append(await move)
        except WorkerError as error:
            said.append(error)

    assert KEY in wire.seen[0].head
    assert not spelled_in(repr(said), KEY)


def test_a_row_that_echoes_the_key_is_stored_without_it() -> None:
    redact = Redaction(secrets_of({"x-api-key": KEY}))
    for name, spell in SPELLINGS.items():
        row = Answer(
            custom_id="a" * 26,
            status=400,
            body=json.dumps({"error": {"message": f"key {spell(KEY)} is bad"}}).encode(),
            headers={"content-type": "application/json", "x-request-id": f"r-{KEY}"},
        )
        stored = _redacted(row, redact)
        assert not spelled_in(stored.body.decode() + repr(stored.headers), KEY), name
        assert json.loads(stored.body)["error"]["message"].startswith("key ")
