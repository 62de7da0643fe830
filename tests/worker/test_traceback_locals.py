"""A traceback that prints the values of names, as some loggers do, shows no key."""

from __future__ import annotations

import base64
import secrets
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from batchling_client.wire import sealing
from batchling_client.wire.deployment import seal_key_files
from batchling_client.wire.deployment.keyring import Keyring
from batchling_client.wire.keys import Keys
from batchling_client.wire.records.row_and_result import LaneSpec
from batchling_client.wire.sealing import Credential
from batchling_worker.engine.accounts import Accounts
from batchling_worker.errors import PermanentError
from batchling_worker.providers import Providers
from batchling_worker.settings import ProviderSettings, WorkerSettings

CANARY = "gsk-CANARY-7d21f0"


def shown(raising: Callable[[], object]) -> str:
    """Return the traceback of a call that raises, with the names of all frames but the test's."""
    try:
        raising()
    except Exception as error:  # noqa: BLE001 - whatever it raises
        told: traceback.TracebackException | None
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        printed = ""
        while told is not None:
            for frame in told.stack:
                printed += f"{frame.name} {frame.locals} " if frame.filename != __file__ else ""
            printed += str(told)
            told = told.__cause__ or told.__context__
        return printed
    pytest.fail("nothing was raised")


def test_the_keys_of_a_worker_that_cannot_open_a_credential() -> None:
    _, private = sealing.new_pair()
    stranger, _ = sealing.new_pair()
    credential = Credential(
        namespace="default", provider="groq", host="h", root=b"r" * 32, headers={"authorization": CANARY}
    )
    sealed = sealing.seal(credential, stranger)
    keys = Keyring(private, None, Path("/")).private_keys()

    printed = shown(lambda: sealing.unseal(sealed, keys))

    assert "unseal" in printed
    assert private not in printed
    assert CANARY not in printed


@pytest.mark.parametrize(
    "spoilt", [lambda key: key[:-6], lambda key: f"{key},{key[:-8]}", lambda key: key + "?"]
)
def test_a_mistyped_private_key(tmp_path: Path, spoilt: Callable[[str], str]) -> None:
    _, private = sealing.new_pair()
    seal_key_files.stored_pair(tmp_path)
    file = tmp_path / "keys" / seal_key_files.PRIVATE_FILE
    file.write_text(spoilt(private), encoding="ascii")
    raw = repr(base64.b64decode(private))[2:20]
    settings = WorkerSettings(seal_private_key=SecretStr(spoilt(private)))

    for opened in (
        settings.keyring,
        lambda: Keyring(None, None, tmp_path),
        lambda: Keyring(None, file, tmp_path),
    ):
        printed = shown(opened)
        assert "public_half" in printed or "parsed" in printed or "stored_pair" in printed
        assert private[:20] not in printed
        assert raw not in printed


def test_the_private_key_of_a_file_that_is_not_text(tmp_path: Path) -> None:
    _, private = seal_key_files.stored_pair(tmp_path)
    (tmp_path / "keys" / seal_key_files.PRIVATE_FILE).write_bytes(private.encode() + b"\xff")

    assert private[:20] not in shown(lambda: seal_key_files.stored_pair(tmp_path))


async def test_the_workers_own_key_when_its_lane_is_refused() -> None:
    settings = ProviderSettings(api_key=SecretStr(CANARY), base_url="http://h", staging="gs://own/place")

    async def salt() -> bytes:
        return secrets.token_bytes(16)

    async def credential(_: object) -> None:
        return None

    store: Any = SimpleNamespace(keys=Keys("default", 1), salt=salt, credential=credential)
    accounts = Accounts(store, {"groq": settings}, lambda: (CANARY,), silence_s=1)
    spec = LaneSpec(
        provider="groq",
        host="h",
        endpoint="/v1/chat/completions",
        model="m",
        fingerprint="f" * 16,
        completion_window="24h",
        staging="gs://payroll/2026",
    )

    with pytest.raises(PermanentError, match="STAGING only") as refused:
        await accounts.open(spec, Providers({}).load("groq").facts)
    await accounts.close()

    def again() -> None:
        raise refused.value

    assert CANARY not in shown(again)
    assert "_staging" in shown(again)
