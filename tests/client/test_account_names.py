"""The name of an account stands for its tokens: the next token attaches, and no other account does."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import Any

import pytest

from batchling_client import batchify
from batchling_client.errors import WrongSettings
from batchling_client.intercept.interceptor import HttpCall, HttpReply
from batchling_client.session.calls import Calls, Request
from batchling_client.session.lanes import Terms
from batchling_client.wire import sealing
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.keys import credential_name
from batchling_client.wire.roots import Root, Roots, names_account
from batchling_client.wire.routes import Routes
from tests.waiting import wait_until

from .answerer import Answerer
from .asking import HOST, a_call, ask, content

LINGER_S = 0.05
AZURE: dict[str, Any] = {"host": "mine.openai.azure.com", "path": "/openai/v1/chat/completions"}


def jwt(n: int, **claims: object) -> str:
    """Return a token as Entra ID renews it each hour."""

    def part(fields: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part({'oid': 'u', **claims})}.c2ln{n}"


def read(call: HttpCall, *, account: str | None = "evals", namespace: str = "default") -> Request:
    """Return the request that a run under that name makes of a call."""
    terms = Terms(run_id=new_run_id(), run_name="", account=account, roots=Roots(namespace))
    request = Calls(terms, Routes()).read(call)
    assert isinstance(request, Request)
    return request


def test_two_tokens_of_one_name_make_the_same_request() -> None:
    first = read(a_call(key=jwt(1, exp=5000), **AZURE))
    second = read(a_call(key=jwt(2, exp=6000), **AZURE))
    api_key = read(a_call(key=None, headers={"api-key": "k" * 32}, **AZURE))

    assert first.request_id == second.request_id == api_key.request_id
    assert first.lane.lane_id == second.lane.lane_id == api_key.lane.lane_id


def test_two_names_never_make_the_same_request_nor_does_a_name_and_none() -> None:
    """The claims of a token do not count either: the author of a JWT may claim anything."""
    call = a_call(key="gsk-test")
    others = {
        "another name": read(call, account="others"),
        "no name": read(call, account=None),
        "another deployment": read(call, namespace="n2"),
        "the key as a name": read(call, account="gsk-test"),
        "the name with blanks in it": read(call, account="ev als"),
        "the same claims": read(a_call(key=jwt(1, exp=1)), account=None),
        "the same claims in another token": read(a_call(key=jwt(2, exp=1)), account=None),
        "the name at another provider": read(
            a_call(key="gsk-test", host="api.openai.com", path="/v1/chat/completions")
        ),
        "the name": read(call),
    }
    assert len({one.request_id for one in others.values()}) == len(others)
    assert len({one.lane.spec.fingerprint for one in others.values()}) == len(others)


def test_no_secret_has_the_fingerprint_of_a_name() -> None:
    known = Roots("default")
    named = known.of_account("evals", "groq").fingerprint
    assert names_account(named)
    assert len(named) == 20
    assert not names_account(known.of_credential({"authorization": "Bearer n"}).fingerprint)


def test_a_call_without_a_key_is_refused_under_a_name_too() -> None:
    calls = Calls(Terms(run_id=new_run_id(), run_name="", account="evals"), Routes())
    assert isinstance(calls.read(a_call()), Request)
    refusal = calls.read(a_call(key=None))
    assert isinstance(refusal, HttpReply)
    assert refusal.status == 401


async def test_a_rerun_under_a_renewed_token_pays_nothing(answerer: Answerer) -> None:
    replies = []
    for n in range(2):
        async with batchify(batch_window_seconds=LINGER_S, account="evals") as run:
            replies.append(content(await ask(run, key=jwt(n))))

    assert replies[0] == replies[1]
    assert list(answerer.times_answered.values()) == [1]


async def test_a_renewed_token_joins_a_batch_that_runs(answerer: Answerer) -> None:
    answerer.go_on.clear()
    async with (
        batchify(batch_window_seconds=LINGER_S, account="evals") as one,
        batchify(batch_window_seconds=LINGER_S, account="evals") as two,
    ):
        asked = asyncio.gather(ask(one, key=jwt(1)), ask(two, key=jwt(2)))
        await wait_until(lambda: two.progress.n_waiting == 1, description="both wait")
        answerer.go_on.set()
        assert len({content(reply) for reply in await asked}) == 1
    assert list(answerer.times_answered.values()) == [1]


async def test_the_newest_token_is_kept_for_the_workers_sealed(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, private = sealing.new_pair()
    monkeypatch.setenv("BATCHLING_SEAL_PUBLIC_KEY", public)
    answerer.private_keys = [private]
    async with batchify(batch_window_seconds=LINGER_S, account="evals") as run:
        for n, key in enumerate((jwt(1), jwt(2), jwt(3))):
            await ask(run, f"q{n}", key=key)
    [name] = await answerer.redis.keys(answerer.keys.credential("*"))

    sealed = await answerer.redis.get(name)
    credential = sealing.unseal(sealed, [private])
    assert credential.headers == {"authorization": f"Bearer {jwt(3)}"}
    named = Root(credential.root, named=True).fingerprint
    assert name.decode() == answerer.keys.credential(credential_name(named, "groq", HOST))
    assert jwt(3).encode() not in sealed


async def test_a_credential_that_has_gone_is_stored_again_with_the_next_request(answerer: Answerer) -> None:
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await ask(run, "first")
        [name] = await answerer.redis.keys(answerer.keys.credential("*"))
        await answerer.redis.execute_command("UNLINK", name)
        await ask(run, "second")

        assert await answerer.redis.keys(answerer.keys.credential("*")) == [name]
        assert len(answerer.times_answered) == 2


async def test_the_setting_names_the_account_and_the_parameter_comes_first(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHLING_ACCOUNT", "evals")
    replies: list[str] = []
    for account in (None, " evals ", "others"):
        async with batchify(batch_window_seconds=LINGER_S, account=account) as run:
            replies.append(content(await ask(run, key=jwt(len(replies)))))
    assert replies[0] == replies[1] != replies[2]


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "x" * 201, "\x1b[2J"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(WrongSettings, match="account must be a name of 1 to 200 printable characters"):
        batchify(account=name)


RENEWED = {
    "Entra ID": (a_call(key=jwt(1, exp=5000), **AZURE), "a JWT that expires"),
    "an encrypted JWT": (a_call(key=f"{jwt(1)}.eA.eA"), "a JWT that expires"),
    "Google": (a_call(key="ya29.a0Ac"), "a Google access token"),
    "AWS": (
        a_call(
            key=None,
            headers={
                "authorization": "AWS4-HMAC-SHA256 Credential=ASIAXYZ/20261129/eu-1/bedrock/aws4_request"
            },
            host="bedrock-runtime.eu-west-1.amazonaws.com",
            path="/model/m/converse",
        ),
        "temporary AWS credentials",
    ),
}


@pytest.mark.parametrize("of", RENEWED)
def test_a_token_that_is_renewed_is_warned_of_once_in_each_run(
    of: str, caplog: pytest.LogCaptureFixture
) -> None:
    call, words = RENEWED[of]
    for _ in range(2):
        calls = Calls(Terms(run_id=new_run_id(), run_name=""), Routes())
        calls.read(call)
        calls.read(call)

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all(words in line and "batchify(account='NAME')" in line for line in said)
    token = re.sub("^.*[ =]", "", call.headers["authorization"])
    assert token not in caplog.text


def test_a_key_that_changes_in_the_middle_of_a_run_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls(Terms(run_id=new_run_id(), run_name=""), Routes())
    for key in ("opaque-1", "opaque-1", "opaque-2", "opaque-3"):
        calls.read(a_call(key=key))

    [said] = [record.getMessage() for record in caplog.records]
    assert "Calls to groq have changed their API key" in said
    assert "BATCHLING_ACCOUNT=NAME" in said


@pytest.mark.parametrize(
    ("key", "terms"),
    [
        ("gsk-test", Terms(run_id=new_run_id(), run_name="")),
        ("a.b.c", Terms(run_id=new_run_id(), run_name="")),
        ("eyJ.eyJ.x", Terms(run_id=new_run_id(), run_name="")),
        (jwt(1), Terms(run_id=new_run_id(), run_name="")),
        (jwt(1, exp=5000), Terms(run_id=new_run_id(), run_name="", account="evals")),
        (jwt(1, exp=5000), Terms(run_id=new_run_id(), run_name="", cache=False)),
    ],
    ids=["a key", "dots", "no JSON", "a JWT without an end", "a name", "no cache"],
)
def test_a_key_that_stays_a_name_and_a_run_without_cache_are_not_warned_of(
    key: str, terms: Terms, caplog: pytest.LogCaptureFixture
) -> None:
    calls = Calls(terms, Routes())
    calls.read(a_call(key=key))
    calls.read(a_call(key=key, host="api.openai.com", path="/v1/chat/completions"))
    assert caplog.text == ""
