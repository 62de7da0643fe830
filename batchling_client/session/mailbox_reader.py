"""Reads the mailbox of a session: the ids of requests that were answered, in the order in which they were."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ..wire.deployment.connection import UNREACHABLE
from ..wire.keys import Keys, Mailbox, RequestId


async def listed_since(redis: Redis, keys: Keys, mailbox: Mailbox, entry: bytes) -> set[RequestId]:
    """Return the requests answered after that entry of the mailbox; a damaged mailbox reads as empty.

    Raises redis-py's own errors when Redis is away.
    """
    try:
        found = entries(await redis.xread({keys.mailbox(mailbox): entry}))
    except UNREACHABLE:
        raise
    except ResponseError:
        return set()
    return {request_id for _, request_ids in found for request_id in request_ids}


def entries(reply: Any) -> list[tuple[bytes, list[RequestId]]]:
    """Return the (entry id, request ids) of an XREAD of one stream, in either reply shape of the protocol."""
    if not reply:
        return []
    found = next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]
    return [
        (entry_id, [RequestId(name) for name in _field(fields).decode(errors="replace").split()])
        for entry_id, fields in found
    ]


def _field(fields: Any) -> bytes:
    value: bytes = fields.get(b"ids", b"") if isinstance(fields, dict) else fields[1]
    return value
