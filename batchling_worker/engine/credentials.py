"""Opens the sealed credential of a lane, and refuses what was sealed for another use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from batchling_client.wire import carried, sealing, version_1
from batchling_client.wire.records.row_and_result import CorruptRecord, LaneSpec
from batchling_client.wire.roots import Root, Roots, names_account
from batchling_client.wire.row_cipher import RowCipher

from ..errors import PermanentError
from ..store import Store

_SEALED_FOR_OTHERS = (
    "The credential was sealed for other workers than this one: give client and workers the same "
    "BATCHLING_SEAL_PUBLIC_KEY and BATCHLING_SEAL_PRIVATE_KEY (`batchling keys new`)."
)
_ANOTHER_ONES = "The credential stored for this batch is another one's, and was refused: call again."
_OTHER_FIELDS = (
    "What was stored beside the credential is not what the batch names, and was refused: call again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An opened credential: its headers, what travels beside them, and what opens the rows of its lane."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    beside: Mapping[str, str] = field(default_factory=dict, repr=False)
    cipher: RowCipher | None = field(default=None, repr=False)

    def check_carried(self, names: str) -> None:
        """Raise `PermanentError` unless just what the lane names is carried, and nothing that changes a call."""
        if carried.named(self.beside) != names or len(self.beside) > carried.MOST_CARRIED:
            raise PermanentError(_OTHER_FIELDS, status=401)
        unfit = self._unfit()
        if unfit:
            raise PermanentError(f"The field {unfit!r} of a call cannot travel with its batch.")

    def _unfit(self) -> str:
        # The values stay out of a frame that raises.
        for name, said in self.beside.items():
            refused = name.startswith(carried.HEADER) and carried.refusal_of(name[1:], chosen_by="calls")
            if refused or not carried.is_usable(said):
                return name[1:65]
        return ""


class Credentials:
    """The sealed credentials of one deployment, in one wire version."""

    def __init__(self, store: Store, private_keys: Callable[[], Sequence[str]]) -> None:
        self._store = store
        self._private_keys = private_keys
        self._roots: Roots | None = None
        self._is_version_1 = store.keys.version == version_1.VERSION

    async def open(self, spec: LaneSpec, *, for_headers: bool) -> Opened:
        """Return the lane's credential; raise `PermanentError` if there is none, or one for another use.

        Without `for_headers`, the worker's own key is used, and only what is beside the caller's is needed.
        """
        if self._is_version_1 and not for_headers and not spec.carried:
            return Opened()
        sealed = await self._store.credential(spec)
        if sealed is None:
            raise PermanentError(
                f"The credential of this batch is no longer stored; call again, or give the worker one in "
                f"BATCHLING_PROVIDERS__{spec.provider.upper()}__API_KEY.",
                status=401,
            )
        try:
            return self._of_version_1(sealed, spec) if self._is_version_1 else self._bound(sealed, spec)
        except sealing.SealBroken:
            raise PermanentError(_SEALED_FOR_OTHERS, status=401) from None

    async def fingerprint(self, own: Opened) -> str:
        """Return what identifies a key of the workers' own."""
        if self._is_version_1:
            return version_1.fingerprint({**own.headers, **own.beside})
        if self._roots is None:
            try:
                self._roots = Roots(self._store.keys.namespace, await self._store.salt())
            except CorruptRecord as error:
                raise PermanentError(str(error)) from None
        # Slow by intention: other steps go on meanwhile.
        root = await asyncio.to_thread(self._roots.of_credential, {**own.headers, **own.beside})
        return root.fingerprint

    def _bound(self, sealed: bytes, spec: LaneSpec) -> Opened:
        credential = sealing.unseal(sealed, self._private_keys())
        root = Root(credential.root, named=names_account(spec.fingerprint))
        is_for = (credential.namespace, credential.provider, credential.host)
        if is_for != (self._store.keys.namespace, spec.provider, spec.host) or not root.matches(
            spec.fingerprint
        ):
            raise PermanentError(_ANOTHER_ONES, status=401)
        headers, beside = carried.parted(credential.headers)
        return Opened(headers=headers, beside=beside, cipher=root.cipher())

    def _of_version_1(self, sealed: bytes, spec: LaneSpec) -> Opened:
        headers = version_1.unsealed_for(sealed, self._private_keys(), spec.fingerprint)
        if headers is None:
            raise PermanentError(_ANOTHER_ONES, status=401)
        return Opened(headers=carried.parted(headers)[0], beside=carried.parted(headers)[1])
