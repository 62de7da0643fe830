"""A setting may be in a file, as Docker and Kubernetes hand over secrets; a wrong file is one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchling_client import settings as client_settings
from batchling_client.errors import WrongSettings
from batchling_client.operate import doctor
from batchling_client.wire import sealing
from batchling_client.wire.deployment.finding import Health
from batchling_client.wire.deployment.keyring import Keyring
from batchling_worker import settings as worker_settings
from batchling_worker.stack import worker_settings as stack_settings
from batchling_worker.stack.errors import WrongSetting as WrongStackSetting

SECRET = "sk-canary-5f0e77a1"
KEY_FILE = "BATCHLING_SEAL_PRIVATE_KEY_FILE"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("BATCHLING_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BATCHLING_HOME", str(tmp_path / "home"))


def test_every_setting_that_holds_a_secret_may_be_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, private = sealing.new_pair()
    _, older = sealing.new_pair()
    held = {
        "REDIS_URL": "redis://:pw@127.0.0.1:1/0",
        "SEAL_PUBLIC_KEY": public,
        "SEAL_PRIVATE_KEY": f"{private}\n{older}",
        "PROVIDERS__GROQ__API_KEY": SECRET,
        "PROVIDERS__GROQ__HEADERS": '{"x-gateway-key": "gw"}',
    }
    for name, text in held.items():
        file = tmp_path / name
        file.write_text(text + "\n", encoding="ascii")
        monkeypatch.setenv(f"BATCHLING_{name}_FILE", str(file))

    worker, client = worker_settings.load(), client_settings.load()

    assert worker.redis_url == client.redis_url == held["REDIS_URL"]
    assert client.seal_public_key == public
    assert worker.keyring().private_keys() == (private, older)
    key = worker.providers["groq"].api_key
    assert key is not None
    assert key.get_secret_value() == SECRET
    assert worker.providers["groq"].headers == client.providers["groq"].headers
    assert SECRET not in repr(worker)
    assert stack_settings.read(dict(os.environ)).redis_url == held["REDIS_URL"]


def test_a_caller_reads_no_file_that_only_workers_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "not here"))
    monkeypatch.setenv("BATCHLING_PROVIDERS__GROQ__API_KEY_FILE", str(tmp_path / "not here either"))

    assert client_settings.load().providers.get("groq") is None


@pytest.mark.parametrize("name", ["REDIS_URL", "SEAL_PRIVATE_KEY", "PROVIDERS__GROQ__API_KEY"])
@pytest.mark.parametrize("what", ["absent", "folder", "empty", "binary", "long", "both"])
def test_a_wrong_file_is_one_sentence_that_names_the_setting_and_tells_nothing(
    name: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    content = {"empty": b" \n", "binary": SECRET.encode() + b"\x00\xff", "long": SECRET.encode() * 9999}
    if what == "folder":
        file.mkdir()
    elif what != "absent":
        file.write_bytes(content.get(what, SECRET.encode()))
    monkeypatch.setenv(f"BATCHLING_{name}_FILE", str(file))
    if what == "both":
        monkeypatch.setenv(f"BATCHLING_{name}", SECRET)

    with pytest.raises(WrongStackSetting) as caught:
        stack_settings.read(dict(os.environ))

    said = str(caught.value)
    assert said.startswith(f"BATCHLING_{name}_FILE ")
    assert said.endswith(".")
    assert SECRET not in said
    assert "\n" not in said
    if name == "REDIS_URL":
        with pytest.raises(WrongSettings, match="BATCHLING_REDIS_URL_FILE"):
            client_settings.load()


def test_doctor_finds_files_that_cannot_be_read_or_that_others_reach(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    environment = {KEY_FILE: str(file)}
    assert [one.health for one in doctor.of_files(environment)] == [Health.FAILURE]

    file.write_text(sealing.new_pair()[1], encoding="ascii")
    for mode, health in ((0o600, []), (0o400, []), (0o644, [Health.NOTE]), (0o620, [Health.FAILURE])):
        file.chmod(mode)
        assert [one.health for one in doctor.of_files(environment)] == health, oct(mode)


def test_a_keyring_follows_its_file_and_outlives_a_broken_one(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    pairs = [sealing.new_pair() for _ in range(2)]
    file.write_text(pairs[0][1], encoding="ascii")
    keyring = Keyring(None, file, tmp_path)
    assert keyring.private_keys() == (pairs[0][1],)

    file.write_text(f"{pairs[1][1]}\n{pairs[0][1]}\n", encoding="ascii")
    both = keyring.private_keys()
    assert both == (pairs[1][1], pairs[0][1])
    assert keyring.digests() == (sealing.digest(pairs[1][0]), sealing.digest(pairs[0][0]))

    for broken in ("no key at all", ""):
        file.write_text(broken, encoding="ascii")
        assert keyring.private_keys() == both
        assert str(file) in keyring.trouble
    file.unlink()
    assert keyring.private_keys() == both
    file.write_text(pairs[1][1], encoding="ascii")
    assert keyring.private_keys() == (pairs[1][1],)
    assert keyring.trouble == ""


def test_what_was_sealed_for_an_older_key_is_opened_with_the_keys_of_a_rotation() -> None:
    (old_public, old), (new_public, new) = sealing.new_pair(), sealing.new_pair()
    credential = sealing.Credential(
        namespace="default",
        provider="openai",
        host="api.openai.com",
        root=b"r" * 32,
        headers={"authorization": f"Bearer {SECRET}"},
    )
    for public in (old_public, new_public):
        assert sealing.unseal(sealing.seal(credential, public), [new, old]) == credential
    with pytest.raises(sealing.SealBroken):
        sealing.unseal(sealing.seal(credential, old_public), [new])
