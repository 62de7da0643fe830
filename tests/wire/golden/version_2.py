"""What version 2 writes otherwise than version 1: encrypted rows and results, bound credentials, derived names.

`python -m tests.wire.golden.version_2` wrote `version_2.json`, which is never written anew for this version.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from batchling_client.wire import ids, sealing
from batchling_client.wire.keys import Keys, RequestId, credential_name
from batchling_client.wire.records.row_and_result import Result, Row
from batchling_client.wire.roots import Root, Roots
from batchling_client.wire.states import RowKind

from . import CANONICAL, CREDENTIAL, PRIVATE_KEY, RUN, SPEC, text

FILE: Final = Path(__file__).parent / "version_2.json"
VERSION: Final = 2
SALT: Final = b"a salt for tests"
SECRET: Final = "the secret of the accounts"
ROOTS: Final = Roots("default", SALT, SECRET)
REQUEST: Final = RequestId("a" * 26)
BODY: Final = b'{"model":"m"}'


def root() -> Root:
    return ROOTS.of_credential(CREDENTIAL)


def credential() -> sealing.Credential:
    return sealing.Credential(
        namespace="default", provider="groq", host="api.groq.com", root=root().raw, headers=CREDENTIAL
    )


def derived() -> dict[str, str]:
    """Return what every process of a deployment has to derive alike."""
    lane_id = SPEC.lane_id
    account = ROOTS.of_account("evals", "groq", "a digest")
    return {
        "root": root().raw.hex(),
        "fingerprint": root().fingerprint,
        "identity": root().identity(lane_id),
        "request_id": ids.request_id(root().identity(lane_id), CANONICAL, 1),
        "account_root": account.raw.hex(),
        "account_fingerprint": account.fingerprint,
        "credential_name": credential_name(root().fingerprint, "groq", "api.groq.com"),
    }


def key_names() -> dict[str, str]:
    keys = Keys("name-space", VERSION)
    return {"salt": keys.salt, "credential": keys.credential("x"), "reader": keys.reader("x")}


def records() -> dict[str, bytes]:
    """Return every record that is encrypted or sealed: other bytes each time, and read alike."""
    cipher = root().cipher()
    row = Row.pack(request_id=REQUEST, run_id=RUN, body=BODY, lane_id=SPEC.lane_id, cipher=cipher)

    def result(kind: RowKind, status: int, body: bytes, origin: str = "provider") -> bytes:
        return Result.pack(
            kind=kind,
            status=status,
            headers={"x-request-id": "q"},
            body=body,
            origin=origin,
            request_id=REQUEST,
            cipher=cipher,
        )

    return {
        "row": row,
        "row_next_attempt": Row.decode(row).next_attempt(2),
        "row_squeezed": Row.pack(
            request_id=REQUEST, run_id=RUN, body=CANONICAL * 100, lane_id=SPEC.lane_id, cipher=cipher
        ),
        "result": result(RowKind.SUCCESS, 200, b"{}"),
        "result_failure": result(RowKind.FAILURE, 504, b'{"error":{}}', "batch_expired"),
        "result_squeezed": result(RowKind.SUCCESS, 200, CANONICAL * 100),
        "credential": sealing.seal(credential(), sealing.public_half(PRIVATE_KEY)),
    }


def load() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    if FILE.exists():
        raise SystemExit(f"{FILE.name} stands: what a version wrote once is never written anew.")
    written = {
        "records": {name: text(record) for name, record in records().items()},
        "derived": derived(),
        "key_names": key_names(),
    }
    FILE.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n", encoding="utf-8")
