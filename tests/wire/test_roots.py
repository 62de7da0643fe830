"""Roots: nobody who reads Redis learns from a fingerprint or a request id whether a guessed key or prompt is right."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Any

import pytest

from batchling_client.wire import roots as roots_of_wire
from batchling_client.wire.keys import LaneId
from batchling_client.wire.roots import Root, Roots, names_account, new_secret

SECRET = "sk-canary-3b1f9e27"
SALT = b"0123456789abcdef"
KEY = {"authorization": f"Bearer {SECRET}"}


def test_a_key_has_the_same_root_whatever_its_header_and_another_key_another_one() -> None:
    known = Roots("default", SALT)
    root = known.of_credential(KEY)
    assert known.of_credential({"x-api-key": SECRET}).raw == root.raw
    assert root.matches(root.fingerprint)
    assert len(root.fingerprint) == 20
    others = [
        known.of_credential({"authorization": f"Bearer {SECRET}x"}),
        known.of_credential({**KEY, "x-organization-key": "other"}),
        known.of_credential({**KEY, "+x-tenant": "a"}),
        known.of_account(SECRET, "openai"),
        Roots("default", b"fedcba9876543210").of_credential(KEY),
        Roots("another", SALT).of_credential(KEY),
    ]
    assert len({one.raw for one in (root, *others)}) == len(others) + 1
    assert not any(one.matches(root.fingerprint) for one in others)


def test_two_secrets_are_no_third_one_together() -> None:
    known = Roots("default", SALT)
    split = {"a": "x\ny", "b": "z"}, {"a": "x", "b": "y\nz"}
    assert len({known.of_credential(one).raw for one in split}) == 2


def test_a_fingerprint_or_an_identity_tells_neither_the_root_nor_the_key() -> None:
    root = Roots("default", SALT).of_credential(KEY)
    identity = root.identity(LaneId("a" * 20))
    for told in (root.fingerprint, identity, repr(root), repr(root.cipher())):
        assert SECRET not in told
        assert root.raw.hex()[:8] not in told
    assert identity != root.identity(LaneId("b" * 20))
    assert identity != Root(b"r" * 32, named=False).identity(LaneId("a" * 20))


def test_a_guess_at_a_key_is_slow_and_a_second_call_under_it_is_not() -> None:
    """A ratio, as machines differ: a guess costs at least a thousand plain hashes."""
    known = Roots("default", SALT)
    begun = time.perf_counter()
    known.of_credential({"authorization": "Bearer sk-guess-1"})
    first_s = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in range(100):
        known.of_credential({"authorization": "Bearer sk-guess-1"})
    again_s = (time.perf_counter() - begun) / 100
    assert first_s > 100 * again_s
    assert roots_of_wire.SCRYPT_N >= 2**14


def test_threads_that_call_under_one_key_at_once_derive_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    derived: list[int] = []
    scrypt = hashlib.scrypt

    def counted(*words: Any, **options: Any) -> bytes:
        derived.append(1)
        return scrypt(*words, **options)

    monkeypatch.setattr(hashlib, "scrypt", counted)
    known, start = Roots("default", SALT), threading.Barrier(8)

    def call() -> None:
        start.wait(10)
        known.of_credential({"authorization": "Bearer sk-at-once"})

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(derived) == 1


def test_the_name_of_an_account_is_not_enough_where_the_deployment_has_a_secret() -> None:
    stranger = Roots("default", SALT).of_account("evals", "openai")
    member = Roots("default", SALT, new_secret()).of_account("evals", "openai")
    assert names_account(stranger.fingerprint)
    assert names_account(member.fingerprint)
    assert stranger.raw != member.raw
    assert not stranger.matches(member.fingerprint)
    assert not names_account(Roots("default", SALT).of_credential({"x": "n"}).fingerprint)
