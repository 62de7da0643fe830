"""Sealing: only workers open it, nothing tells it, and every process of a home agrees on one pair."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import msgspec
import pytest
from nacl.public import PublicKey, SealedBox

from batchling_client.wire import sealing
from batchling_client.wire.deployment import seal_key_files
from batchling_client.wire.deployment.keyring import Keyring

SECRET = "sk-canary-3b1f9e27"
CREDENTIAL = sealing.Credential(
    namespace="default",
    provider="openai",
    host="api.openai.com",
    root=b"r" * 32,
    headers={"authorization": f"Bearer {SECRET}", "x-api-key": SECRET},
)

PRINT_PAIR = """
import sys, pathlib
from batchling_client.wire.deployment import seal_key_files
sys.stdin.readline()
print(*seal_key_files.stored_pair(pathlib.Path(sys.argv[1])))
"""


def test_what_was_sealed_comes_out_with_the_private_key_only() -> None:
    public, private = sealing.new_pair()
    _, other = sealing.new_pair()
    sealed = sealing.seal(CREDENTIAL, public)
    assert SECRET.encode() not in sealed
    assert sealing.unseal(sealed, [other, private]) == CREDENTIAL
    with pytest.raises(sealing.SealBroken):
        sealing.unseal(sealed, [other])


def test_two_seals_of_one_credential_cannot_be_told_to_be_one() -> None:
    public, _ = sealing.new_pair()
    assert sealing.seal(CREDENTIAL, public) != sealing.seal(CREDENTIAL, public)


def test_damaged_and_foreign_seals_are_refused() -> None:
    public, private = sealing.new_pair()
    sealed = sealing.seal(CREDENTIAL, public)
    box = SealedBox(PublicKey(sealing.raw_key(public)))
    foreign = [
        box.encrypt(msgspec.json.encode(value))
        for value in (
            [1],
            {"a": 1},
            "text",
            {"authorization": SECRET},
            msgspec.structs.replace(CREDENTIAL, form=1),
        )
    ]
    damaged = [sealed[:-1], sealed[1:], b"", b"x", bytes(len(sealed)), sealed[:-1] + bytes([sealed[-1] ^ 1])]
    for raw in (*damaged, *foreign, box.encrypt(b"\xff\xfe no json")):
        with pytest.raises(sealing.SealBroken):
            sealing.unseal(raw, [private])


@pytest.mark.parametrize("key", ["", "not base64 at all", "QUJD", "A" * 200, "é" * 44])
def test_an_unreadable_key_is_a_sentence_without_the_key(key: str) -> None:
    for use in (
        lambda: sealing.seal(CREDENTIAL, key),
        lambda: sealing.unseal(b"x" * 80, [key]),
        lambda: sealing.public_half(key),
        lambda: sealing.digest(key),
    ):
        with pytest.raises(sealing.UnreadableSealKey) as caught:
            use()
        assert "batchling keys new" in str(caught.value)
        assert not key or key not in str(caught.value)


def test_no_error_of_sealing_tells_a_secret() -> None:
    public, private = sealing.new_pair()
    _, other = sealing.new_pair()
    forged = SealedBox(PublicKey(sealing.raw_key(public))).encrypt(
        msgspec.json.encode({SECRET: {SECRET: SECRET}})
    )
    for raw, key in ((sealing.seal(CREDENTIAL, public), other), (forged, private)):
        with pytest.raises(sealing.SealBroken) as caught:
            sealing.unseal(raw, [key])
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert all(secret not in told for secret in (SECRET, private, other))


def test_a_private_key_tells_its_public_half_and_a_digest_tells_neither() -> None:
    public, private = sealing.new_pair()
    assert sealing.public_half(private) == public
    assert sealing.public_half(f" {private}\n") == public
    assert len(sealing.digest(public)) == 16
    assert sealing.digest(public) not in public


def test_the_pair_of_a_home_is_made_once_and_kept(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    first = seal_key_files.stored_pair(home)
    assert seal_key_files.stored_pair(home) == first
    assert sealing.public_half(first[1]) == first[0]
    assert (home / "keys" / seal_key_files.PUBLIC_FILE).read_text().strip() == first[0]


def test_nobody_else_can_read_a_home_that_the_keys_make_and_no_draft_is_left(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    mask = os.umask(0)
    try:
        seal_key_files.stored_pair(home)
    finally:
        os.umask(mask)
    keys = home / "keys"
    assert [stat.S_IMODE(one.stat().st_mode) for one in (home, keys)] == [0o700, 0o700]
    assert {stat.S_IMODE(one.stat().st_mode) for one in keys.iterdir()} == {0o600}
    assert {one.name for one in keys.iterdir()} == {seal_key_files.PRIVATE_FILE, seal_key_files.PUBLIC_FILE}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_a_private_key_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    _, private = seal_key_files.stored_pair(tmp_path)
    file = tmp_path / "keys" / seal_key_files.PRIVATE_FILE
    file.chmod(mode)

    for read in (seal_key_files.stored_pair, lambda home: Keyring(None, None, home)):
        with pytest.raises(sealing.UnreadableSealKey, match=f"run `chmod 600 {file}`") as refused:
            read(tmp_path)
        assert private not in str(refused.value)


def test_a_private_key_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal_key_files.stored_pair(tmp_path)
    somebody_else = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody_else)

    with pytest.raises(sealing.UnreadableSealKey, match="belongs to another user"):
        seal_key_files.stored_pair(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file to another user")
def test_a_private_key_that_another_user_put_there_is_refused(tmp_path: Path) -> None:
    seal_key_files.stored_pair(tmp_path)
    os.chown(tmp_path / "keys" / seal_key_files.PRIVATE_FILE, 65534, 65534)

    with pytest.raises(sealing.UnreadableSealKey, match="belongs to another user, with the id 65534"):
        seal_key_files.stored_pair(tmp_path)


def test_a_worker_keeps_its_keys_when_others_can_read_their_file(tmp_path: Path) -> None:
    _, private = seal_key_files.stored_pair(tmp_path)
    keyring = Keyring(None, None, tmp_path)
    planted = seal_key_files.stored_pair(tmp_path / "other")[1]
    file = tmp_path / "keys" / seal_key_files.PRIVATE_FILE
    file.write_text(planted + "\n", encoding="ascii")
    file.chmod(0o644)

    assert keyring.private_keys() == (private,)
    assert "chmod 600" in keyring.trouble


def test_processes_that_need_a_pair_at_once_agree_on_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PRINT_PAIR, str(tmp_path)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=50)[0].split() for racer in racers]
    assert all(racer.returncode == 0 for racer in racers)
    assert len({tuple(pair) for pair in said}) == 1
    assert seal_key_files.stored_pair(tmp_path) == tuple(said[0])


def test_threads_that_need_a_pair_at_once_agree_on_one(tmp_path: Path) -> None:
    """They share a process id, as the first processes of two containers with one volume do."""
    for n in range(20):
        home, pairs, start = tmp_path / str(n), list[tuple[str, str]](), threading.Barrier(8)

        def race(
            home: Path = home, pairs: list[tuple[str, str]] = pairs, start: threading.Barrier = start
        ) -> None:
            start.wait(10)
            pairs.append(seal_key_files.stored_pair(home))

        threads = [threading.Thread(target=race) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(pairs) == 8
        assert set(pairs) == {seal_key_files.stored_pair(home)}
