"""Files do not pile up at providers: they are asked to expire where that can be asked for, and deleted when spent."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import httpx
import pytest

from batchling_worker.dialects.openai.files import EXPIRY_S
from batchling_worker.errors import PermanentError, TemporaryError
from batchling_worker.provider import Answer, SpentFiles, is_ours
from batchling_worker.sandbox import Limits, Sandbox
from tests.form import Ability

from .desk import Desk
from .wire import Seen, Wire, answer

KEPT = frozenset({"anthropic", "doubleword", "sference", "xai"})
"""Their files are parts of a batch that expires, or expire by themselves."""
REFUSED = {
    "a version that does not know it": b'{"error":{"message":"Unknown parameter: \'%s\'."}}',
    "a gateway that checks forms": b'{"detail":[{"loc":["body","%s"],"msg":"Extra inputs are not permitted"}]}',
}


async def test_spent_files_are_deleted_and_a_second_delete_succeeds(desk: Desk, sandbox: Sandbox) -> None:
    input_file_id = await desk.upload()
    batch = await desk.create(input_file_id)
    sandbox.clock.advance(60.0)
    ending = (await desk.ended(batch)).ending
    assert len(await desk.answers(ending)) == 1
    of_inputs = SpentFiles(
        endpoint=desk.form.endpoint,
        label="batchling-test-1",
        provider_batch_id=batch,
        inputs=(input_file_id,) if input_file_id else (),
    )
    of_results = dataclasses.replace(of_inputs, inputs=(), results=ending.results)

    for _ in range(2):
        await desk.provider.delete(desk.account, of_inputs)
    assert len(await desk.answers(ending)) == 1
    for _ in range(2):
        await desk.provider.delete(desk.account, of_results)

    left: list[Answer] = []
    with contextlib.suppress(PermanentError, TemporaryError):
        left = await desk.answers(ending)
    assert len(left) == (1 if desk.provider.facts.name in KEPT else 0)


def fields_of(seen: Seen) -> dict[str, str]:
    """The fields of a form, its file left out."""
    parts = seen.body.split(b'name="')[1:]
    named = [part.partition(b'"') for part in parts]
    return {
        name.decode(): rest.split(b"\r\n\r\n", 1)[1].split(b"\r\n--")[0].decode()
        for name, _, rest in named
        if name != b"file"
    }


def stored(wire: Wire) -> None:
    wire.reply = lambda seen: answer(b'{"id":"file-7","status":"processed"}')


async def test_an_upload_and_a_create_ask_for_an_expiry_where_the_provider_takes_one(
    wire: Wire, wired: Desk
) -> None:
    stored(wire)
    await wired.create(await wired.upload())

    form, wish = fields_of(wire.seen[0]), json.loads(wire.seen[-1].body)
    expires = wired.provider.facts.file_expiry_s is not None
    asked = {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(EXPIRY_S)}
    if wired.provider.facts.name == "mistral":
        asked = {"expiry": str(EXPIRY_S // 3600)}
    assert {name: said for name, said in form.items() if "expir" in name} == (asked if expires else {})
    assert ("output_expires_after" in wish) == (wired.provider.facts.name in ("openai", "azure"))
    assert list(form)[-1] != "file"


async def test_nothing_asks_for_an_expiry_when_files_are_kept(wire: Wire, wired: Desk) -> None:
    stored(wire)
    desk = dataclasses.replace(wired, account=dataclasses.replace(wired.account, keeps_files=True))
    await desk.create(await desk.upload())
    assert not any(b"expires_after" in seen.body or b"expiry" in seen.body for seen in wire.seen)


@pytest.mark.parametrize("why", REFUSED)
async def test_an_expiry_that_is_refused_is_left_out_from_then_on(wire: Wire, wired: Desk, why: str) -> None:
    def refuses(seen: Seen) -> bytes:
        for name in (b"output_expires_after", b"expires_after", b"expiry"):
            if name in seen.body:
                return answer(REFUSED[why] % name, status=400)
        return answer(b'{"id":"file-7","status":"processed"}')

    wire.reply = refuses
    assert await wired.upload() == "file-7"
    n_uploads = len(wire.seen)
    await wired.create("file-7")
    assert await wired.upload() == "file-7"

    expires = wired.provider.facts.file_expiry_s is not None
    assert n_uploads == (2 if expires else 1)
    assert b"expires_after" not in wire.seen[-1].body
    assert b"expiry" not in wire.seen[-1].body
    assert wire.seen[n_uploads - 1].body.count(b"custom_id") == 1


@pytest.mark.parametrize(
    "words",
    [
        "The quota for files without expiry is reached. The maximum is 500.",
        "You have exceeded your file storage quota. The organization limit is 100 GB.",
    ],
)
async def test_a_full_store_of_files_says_what_to_do(wire: Wire, wired: Desk, words: str) -> None:
    error = {"code": "quotaExceeded", "message": words, "type": "invalid_request_error"}
    wire.reply = lambda seen: answer(json.dumps({"error": error}).encode(), status=400)
    with pytest.raises(PermanentError) as caught:
        await wired.upload()
    told = json.loads(caught.value.body)["error"]
    for said in (str(caught.value), told["message"]):
        assert words in said
        assert f"Delete files at {wired.provider.facts.name}" in said
    assert told["code"] == "quotaExceeded"


async def test_files_that_expire_do_not_count_against_a_quota_of_lasting_ones(
    desk: Desk, sandbox: Sandbox
) -> None:
    if desk.provider.facts.file_expiry_s is None:
        return
    sandbox.limits = Limits(max_files=2)
    for number in range(4):
        assert await desk.upload({f"r{number}": desk.body()}, f"batchling-test-{number}")


@pytest.mark.parametrize("beyond", [-1, 1])
async def test_the_sandbox_takes_the_expiry_of_the_facts_and_none_beyond(
    desk: Desk, sandbox: Sandbox, http: httpx.AsyncClient, beyond: int
) -> None:
    allowed = desk.provider.facts.file_expiry_s
    if allowed is None:
        return
    edge = allowed[0] if beyond < 0 else allowed[1]
    root = "/openai/v1" if desk.provider.facts.name == "azure" else "/v1"

    async def status(seconds: int) -> int:
        expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(seconds)}
        if desk.provider.facts.name == "mistral":
            expiry = {"expiry": str(seconds // 3600 if beyond < 0 else -(-seconds // 3600))}
        reply = await http.post(
            f"{desk.account.base_url}{root}/files",
            headers=desk.account.headers,
            data={"purpose": "batch", **expiry},
            files={"file": ("a.jsonl", desk.lines({"r0": desk.body()}).getvalue())},
        )
        return reply.status_code

    assert await status(edge) in (200, 201)
    assert await status(edge + beyond) in (400, 422)


async def test_a_file_that_is_for_something_else_is_never_deleted(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b'{"id":"file-7","purpose":"fine-tune"}')
    await wired.provider.delete(
        wired.account,
        SpentFiles(
            endpoint=wired.form.endpoint, label="batchling-1", provider_batch_id=None, inputs=("file-7",)
        ),
    )
    assert not any(seen.head.startswith("DELETE") for seen in wire.seen)


@pytest.mark.needs(Ability.OPENAI_FILES)
@pytest.mark.parametrize("status", [401, 403, 405])
async def test_a_refused_delete_is_the_workers_own_error(wire: Wire, wired: Desk, status: int) -> None:
    if wired.provider.facts.name in KEPT:
        return
    wire.reply = lambda seen: (
        answer(b'{"error":{"message":"no"}}', status=status)
        if seen.head.startswith("DELETE")
        else answer(b'{"id":"file-7"}')
    )
    with pytest.raises(PermanentError):
        await wired.provider.delete(
            wired.account,
            SpentFiles(
                endpoint=wired.form.endpoint, label="batchling-1", provider_batch_id=None, inputs=("file-7",)
            ),
        )


@pytest.mark.parametrize(
    ("key", "staging", "ours"),
    [
        ("jobs/batchling-default-b1/input.jsonl", "jobs", True),
        ("batchling-default-b1/input.jsonl", "", True),
        ("jobs/report.csv", "jobs", False),
        ("batchling-default-b1/input.jsonl", "jobs", False),
        ("", "", False),
    ],
)
def test_only_objects_below_the_workers_own_place_and_a_label_are_ours(
    key: str, staging: str, ours: bool
) -> None:
    assert is_ours(key, staging) is ours
