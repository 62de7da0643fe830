"""The records of a lane, a row and a result; each encodes and decodes itself, and only the records handle bytes."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Final

import msgspec

from ..keys import LaneId, RequestId
from ..row_cipher import LockBroken, RowCipher
from ..states import RowKind

COMPRESS_FROM: Final = 1024
"""Bodies from this many bytes on are stored compressed: zlib level 1 thirds typical JSON at 50,000 records/s a core."""

LINE_OVERHEAD: Final = 256
"""Upper bound of what a provider's line holds beside the body: custom_id, method, url, punctuation."""

_QUERY: Final = "?"
_STAGING: Final = "x-batchling-staging"
_CARRIED: Final = "x-batchling-carried"
"""How a stored lane marks, among its headers, what is not a header."""

_json = msgspec.json.Encoder(order="sorted")
_msgpack = msgspec.msgpack.Encoder()


PROVIDER: Final = "provider"
"""Origin of a result that its provider sent."""
_LOCKED: Final = b"\x01"
"""Begins, after the mark, a result that is encrypted; in msgpack no result begins so."""
_LOCKED_FROM: Final = 2 + 20
"""Where its encrypted part begins: behind mark, `_LOCKED` and the fingerprint of the key that opens it."""

LONGEST_BODY: Final = 256 * 1024 * 1024
"""Bytes of a body, expanded: more than any provider takes or sends. A few stored kilobytes could claim terabytes."""


class CorruptRecord(ValueError):
    """A value in Redis is not what this version writes there; it is refused."""


UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)
"""Exceptions that msgspec raises for bytes that are not the record, invalid UTF-8 included."""


def _squeeze(body: bytes) -> tuple[bool, bytes]:
    if len(body) < COMPRESS_FROM:
        return False, body
    return True, zlib.compress(body, 1)


def _expand(squeezed: bool, body: bytes) -> bytes:
    if not squeezed:
        return body
    expand = zlib.decompressobj()
    try:
        expanded = expand.decompress(body, LONGEST_BODY)
    except zlib.error as error:
        raise CorruptRecord("a stored body cannot be decompressed") from error
    if not expand.eof:
        raise CorruptRecord("a stored body is cut off, or longer than any there is")
    return expanded


def line_bytes(body: bytes) -> int:
    """Return how many bytes of a batch's byte limit a request takes, at most."""
    return len(body) + LINE_OVERHEAD


class LaneSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What requests must have in common to share a batch; the lane's id is its digest."""

    provider: str
    host: str
    endpoint: str
    model: str
    fingerprint: str
    completion_window: str
    headers: tuple[tuple[str, str], ...] = ()
    """Headers that apply to a whole batch, lower-case names, sorted; never a credential."""
    query: tuple[tuple[str, str], ...] = ()
    """Fields of a call's query that apply to a whole batch, sorted."""
    staging: str = ""
    """URL below which the files of its batches are stored, where callers choose it."""
    carried: str = ""
    """The marked names of what travels sealed beside the credential, between commas (see `carried`)."""

    @property
    def stored_headers(self) -> tuple[tuple[str, str], ...]:
        """All that applies to a whole batch, as it is stored and shown: as headers, some with a name that none has."""
        query = ((f"{_QUERY}{name}", said) for name, said in self.query)
        others = ((name, said) for name, said in ((_STAGING, self.staging), (_CARRIED, self.carried)) if said)
        return tuple(sorted((*self.headers, *query, *others)))

    def encode(self) -> bytes:
        """Return the spec as canonical JSON."""
        return _json.encode(
            _StoredLane(
                provider=self.provider,
                host=self.host,
                endpoint=self.endpoint,
                model=self.model,
                fingerprint=self.fingerprint,
                completion_window=self.completion_window,
                headers=self.stored_headers,
            )
        )

    @property
    def lane_id(self) -> LaneId:
        """The digest of the spec, 20 hex digits."""
        return LaneId(hashlib.blake2b(self.encode(), digest_size=10).hexdigest())

    @classmethod
    def decode(cls, raw: bytes) -> LaneSpec:
        """Read a spec; raise `CorruptRecord`."""
        try:
            stored = _lane_decoder.decode(raw)
        except UNREADABLE as error:
            raise CorruptRecord("a stored lane spec cannot be read") from error
        named = dict(stored.headers)
        return cls(
            provider=stored.provider,
            host=stored.host,
            endpoint=stored.endpoint,
            model=stored.model,
            fingerprint=stored.fingerprint,
            completion_window=stored.completion_window,
            staging=named.pop(_STAGING, ""),
            carried=named.pop(_CARRIED, ""),
            query=tuple((name[1:], said) for name, said in named.items() if name.startswith(_QUERY)),
            headers=tuple(one for one in named.items() if not one[0].startswith(_QUERY)),
        )


class _StoredLane(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A lane as Redis has it: its id is the digest of these bytes, so they stay as the first version wrote them."""

    provider: str
    host: str
    endpoint: str
    model: str
    fingerprint: str
    completion_window: str
    headers: tuple[tuple[str, str], ...] = ()


_lane_decoder = msgspec.json.Decoder(_StoredLane)


class Row(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One request as it waits in a batch."""

    request_id: RequestId
    run_id: str
    attempt: int
    squeezed: bool
    packed_body: bytes
    """Compressed where `squeezed` says so, then encrypted, except in wire version 1."""
    n_bytes: int = 0
    """Length of the body as the SDK sent it; 0 in wire version 1, where the body itself tells."""

    @classmethod
    def pack(
        cls,
        *,
        request_id: RequestId,
        run_id: str,
        body: bytes,
        lane_id: str = "",
        cipher: RowCipher | None = None,
    ) -> bytes:
        """Encode a first attempt, encrypted for its lane; in clear, as in wire version 1, without a cipher."""
        squeezed, packed = _squeeze(body)
        if cipher is None:
            return _msgpack.encode((request_id, run_id, 1, squeezed, packed))
        locked = cipher.lock(packed, _row_context(lane_id, request_id, squeezed))
        return _msgpack.encode((request_id, run_id, 1, squeezed, locked, len(body)))

    @property
    def size(self) -> int:
        """How much of a batch's byte limit it takes, at most; a damaged body counts as it is stored."""
        if self.n_bytes:
            return self.n_bytes + LINE_OVERHEAD
        try:
            return line_bytes(_expand(self.squeezed, self.packed_body))
        except CorruptRecord:
            return line_bytes(self.packed_body)

    def next_attempt(self, attempt: int) -> bytes:
        """Encode the same request for another attempt."""
        row = (self.request_id, self.run_id, attempt, self.squeezed, self.packed_body)
        return _msgpack.encode((*row, self.n_bytes) if self.n_bytes else row)

    def body(self, lane_id: str = "", cipher: RowCipher | None = None) -> bytes:
        """Return the request's body as the SDK sent it; raise `CorruptRecord`.

        Without a cipher, a row of wire version 1 is read.
        """
        if cipher is None:
            return _expand(self.squeezed, self.packed_body)
        try:
            packed = cipher.open(self.packed_body, _row_context(lane_id, self.request_id, self.squeezed))
        except LockBroken:
            raise CorruptRecord("a stored row was not written by who holds its credential") from None
        return _expand(self.squeezed, packed)

    @classmethod
    def decode(cls, raw: bytes) -> Row:
        """Read a row; raise `CorruptRecord`."""
        try:
            return _row_decoder.decode(raw)
        except UNREADABLE as error:
            raise CorruptRecord("a stored row cannot be read") from error

    @classmethod
    def decode_if_whole(cls, raw: bytes) -> Row | None:
        """Read a packed row; None if it is damaged."""
        try:
            return cls.decode(raw)
        except CorruptRecord:
            return None


def _row_context(lane_id: str, request_id: str, squeezed: bool) -> bytes:
    return f"row:{lane_id}:{request_id}:{squeezed:d}".encode()


_row_decoder = msgspec.msgpack.Decoder(Row)


class Result(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The answer to one request: HTTP status, headers that matter, body; `origin` says who speaks."""

    status: int
    headers: dict[str, str]
    squeezed: bool
    packed_body: bytes
    origin: str
    """`provider`, or a code of ours for what HTTP cannot say (`batch_failed`, `batch_expired`, ...)."""

    @classmethod
    def pack(
        cls,
        *,
        kind: RowKind,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        origin: str = PROVIDER,
        request_id: str = "",
        cipher: RowCipher | None = None,
    ) -> bytes:
        """Encode a result, encrypted for its request; its first byte tells scripts a success (`+`) from the rest (`-`).

        Without a cipher it is written in clear: in wire version 1, and where batchling itself says why there is no
        answer.
        """
        squeezed, packed = _squeeze(body)
        mark = b"+" if kind is RowKind.SUCCESS else b"-"
        said = _msgpack.encode((status, headers, squeezed, packed, origin))
        if cipher is None:
            return mark + said
        locked = cipher.lock(said, _result_context(mark, request_id))
        return mark + _LOCKED + cipher.fingerprint.encode() + locked

    @staticmethod
    def fingerprint_of(raw: bytes) -> str:
        """Return whose key opens a packed result; '' for one in clear."""
        whose = bytes(raw[2:_LOCKED_FROM])
        return whose.decode() if raw[1:2] == _LOCKED and whose.isascii() else ""

    @property
    def body(self) -> bytes:
        """The body as the provider sent it; raises `CorruptRecord`."""
        return _expand(self.squeezed, self.packed_body)

    @classmethod
    def decode(cls, raw: bytes, request_id: str = "", cipher: RowCipher | None = None) -> Result:
        """Read a result; raise `CorruptRecord`, also for a status that no answer has.

        With a cipher, an answer counts only if it was encrypted with it. A failure may be in clear: a worker that
        cannot open the credential has no key. So may everything in wire version 1. Nobody who writes to Redis may steer
        the caller's client: a redirect would take its key along, and a cookie would stay in it. So of the headers only
        those are read that say what an answer is and how it is called.
        """
        mark, said = bytes(raw[:1]), memoryview(raw)[1:]
        is_locked = bytes(said[:1]) == _LOCKED
        if is_locked:
            said = memoryview(_opened(bytes(raw[_LOCKED_FROM:]), _result_context(mark, request_id), cipher))
        try:
            result = _result_decoder.decode(said)
        except UNREADABLE as error:
            raise CorruptRecord("a stored result cannot be read") from error
        if cipher is not None and not is_locked and (mark != b"-" or result.status < 400):
            raise CorruptRecord("a stored answer is not encrypted as its request is")
        if not (200 <= result.status < 300 or 400 <= result.status < 600):
            raise CorruptRecord("a stored result has the status of no answer")
        if not result.headers.keys() <= READ_HEADERS or not all(map(_is_plain, result.headers.values())):
            kept = {
                name: said
                for name, said in result.headers.items()
                if name in READ_HEADERS and _is_plain(said)
            }
            return msgspec.structs.replace(result, headers=kept)
        return result


def _opened(locked: bytes, context: bytes, cipher: RowCipher | None) -> bytes:
    if cipher is None:
        raise CorruptRecord("a stored result is encrypted, and its key is not at hand")
    try:
        return cipher.open(locked, context)
    except LockBroken:
        raise CorruptRecord("a stored result was not written by who holds its credential") from None


def _result_context(mark: bytes, request_id: str) -> bytes:
    return b"result:%b:%b" % (mark, request_id.encode())


READ_HEADERS: Final = frozenset(
    {"content-type", "x-request-id", "request-id", "x-amzn-requestid", "x-amzn-errortype"}
)
"""Headers of stored results that reach a caller."""
LONGEST_HEADER: Final = 1000


def _is_plain(said: str) -> bool:
    """Return whether a text can be the value of a header: a line break would begin another one."""
    return len(said) <= LONGEST_HEADER and said.isascii() and said.isprintable()


_result_decoder = msgspec.msgpack.Decoder(Result)


class WorkerPresence(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's heartbeat: who it is and which credentials it can open."""

    name: str
    pid: int
    version: str
    pool: str
    seal_public_key: str
    """Hex digest of the public key that clients are to seal for, not the key's private half."""
    opens: tuple[str, ...] = ()
    """Digests of all public keys whose credentials it can open; empty = the one above."""
    said_at: float = 0.0
    """The time of the heartbeat by the worker's own clock; 0 = unknown."""

    def can_open(self, digest: str) -> bool:
        """Return whether it can open what is sealed for the public key with that digest."""
        return digest in (self.opens or (self.seal_public_key,))

    def encode(self) -> bytes:
        return _json.encode(self)

    @classmethod
    def decode(cls, raw: bytes) -> WorkerPresence:
        """Read a heartbeat; raise `CorruptRecord`."""
        try:
            return _presence_decoder.decode(raw)
        except UNREADABLE as error:
            raise CorruptRecord("a worker's heartbeat cannot be read") from error


_presence_decoder = msgspec.json.Decoder(WorkerPresence)
