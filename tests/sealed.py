"""What clients seal and encrypt, made and opened in tests: credentials, rows and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchling_client.wire import sealing
from batchling_client.wire.deployment import salt
from batchling_client.wire.keys import Keys, credential_name
from batchling_client.wire.records.row_and_result import LaneSpec
from batchling_client.wire.roots import Root, Roots, names_account
from batchling_client.wire.row_cipher import RowCipher


async def root_of(redis: Any, keys: Keys, headers: Mapping[str, str]) -> Root:
    """Return the root of a credential in the deployment of these keys."""
    return Roots(keys.namespace, await salt.load(redis, keys)).of_credential(headers)


def sealed(
    root: Root,
    headers: Mapping[str, str],
    public_key: str,
    *,
    namespace: str = "default",
    provider: str = "openai",
    host: str = "api.openai.com",
) -> bytes:
    """Return a credential, sealed for one use."""
    credential = sealing.Credential(
        namespace=namespace, provider=provider, host=host, root=root.raw, headers=dict(headers)
    )
    return sealing.seal(credential, public_key)


async def store(
    redis: Any, keys: Keys, root: Root, headers: Mapping[str, str], public_key: str, spec: LaneSpec
) -> None:
    """Keep a lane's credential in Redis, and beside it what reads the answers, as a client does."""
    use = sealed(root, headers, public_key, namespace=keys.namespace, provider=spec.provider, host=spec.host)
    place = keys.credential(credential_name(spec.fingerprint, spec.provider, spec.host))
    reader = sealed(root, {}, public_key, namespace=keys.namespace, provider="", host="")
    await redis.execute_command("SET", place, use, "EX", 3600)
    await redis.execute_command("SET", keys.reader(spec.fingerprint), reader, "EX", 3600)


class Opener:
    """Opens rows and results with the private seal key, as a worker or a person who holds it."""

    def __init__(self, redis: Any, keys: Keys, private_keys: Sequence[str]) -> None:
        self._redis = redis
        self._keys = keys
        self._private_keys = private_keys
        self._found: dict[str, RowCipher] = {}

    async def cipher(self, fingerprint: str) -> RowCipher:
        """Return what opens the rows of a fingerprint; '' = what opens nothing."""
        if not fingerprint:
            return RowCipher(b"", "")
        if fingerprint not in self._found:
            kept = await self._redis.execute_command("GET", self._keys.reader(fingerprint))
            assert kept is not None, f"nothing reads the answers of {fingerprint}"
            root = Root(sealing.unseal(kept, self._private_keys).root, named=names_account(fingerprint))
            assert root.fingerprint == fingerprint
            self._found[fingerprint] = root.cipher()
        return self._found[fingerprint]
