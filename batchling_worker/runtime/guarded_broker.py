"""Reads Celery's messages so that none of them can end a worker: what cannot be read is logged and dropped.

Every program that writes to Redis can push anything onto Celery's list or publish it on its channels, and kombu lets
most errors of a message end the worker. A dropped message costs at most a lease: all state is in batchling's own keys.
"""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from queue import Empty
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from celery.worker.control import Panel
from kombu import matcher
from kombu.transport import TRANSPORT_ALIASES, redis

from ..log_lines import emit
from . import tasks, wire_versions

LONGEST_BODY: Final = 1 << 20
"""Characters of a message's body. The longest step, which polls 500 batches, takes about 30,000."""
LONGEST_HEADERS: Final = 16 << 10
"""Characters of a message's headers and properties: Celery sends less than 4,000 and logs them with an unknown task."""
READS: Final = frozenset(
    {
        "active",
        "active_queues",
        "clock",
        "conf",
        "dump_active",
        "dump_conf",
        "dump_reserved",
        "dump_revoked",
        "dump_schedule",
        "enable_events",
        "heartbeat",
        "ping",
        "query_task",
        "registered",
        "report",
        "reserved",
        "revoked",
        "scheduled",
        "stats",
    }
)
"""The remote commands that change nothing of a worker. Flower sends `enable_events`."""
RemoteControl: TypeAlias = Literal["read", "all"]

logger = logging.getLogger("batchling.worker")


def install() -> None:
    """Have every connection of this process' Celery read its messages through the guard."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
    TRANSPORT_ALIASES["sentinel"] = f"{__name__}:SentinelTransport"


def limit_commands(allowed: RemoteControl) -> None:
    """Take the remote commands that change a worker from this process, unless all are allowed."""
    if allowed == "all":
        return
    for name in set(Panel.data) - READS:
        del Panel.data[name]
    Panel.data["hello"] = _hello
    # A command may choose its workers by a regular expression, and some of these take for ever to match.
    with contextlib.suppress(matcher.MatcherNotInstalled):
        matcher.unregister("pcre")


def _hello(state: Any, from_node: object, **_: object) -> dict[str, object] | None:
    """Answer a worker that starts, as Celery does, but do not revoke the tasks that it names."""
    if from_node == state.hostname:
        return None
    return {"revoked": [], "clock": state.app.clock.forward()}


Id: TypeAlias = Annotated[str, msgspec.Meta(max_length=64)]


class _Properties(msgspec.Struct):
    delivery_tag: str
    delivery_info: dict[str, object]
    body_encoding: Literal["base64", "utf-8"] | None = None


class _Message(
    msgspec.Struct, rename={"content_type": "content-type", "content_encoding": "content-encoding"}
):
    """What Celery may read at all. Other encodings include `zip`, which would decompress the body."""

    body: Annotated[str, msgspec.Meta(max_length=LONGEST_BODY)]
    headers: dict[str, object]
    properties: _Properties
    content_type: Literal["application/json"]
    content_encoding: Literal["utf-8"]


class _StepHeaders(msgspec.Struct):
    """The headers of a step: it has no delay, which a worker would keep in memory, and no limit, which kills it."""

    task: Literal["batchling.submit", "batchling.poll", "batchling.collect", "batchling.settle"]
    id: Id
    eta: None = None
    expires: None = None
    shadow: None = None
    timelimit: tuple[None, None] | None = None


class _OneBatch(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    batch_id: Id
    token: int
    version: int = wire_versions.FIRST


class _ManyBatches(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    claims: list[tuple[Id, int]]
    version: int = wire_versions.FIRST


_Nothing: TypeAlias = Annotated[dict[str, None], msgspec.Meta(max_length=0)]
_STEP: Final[Any] = tuple[_OneBatch, _Nothing, dict[str, None]]
_POLL: Final[Any] = tuple[_ManyBatches, _Nothing, dict[str, None]]
"""Arguments, keywords and what runs after the task: callbacks could run any task, so there are none."""
_ANSWERS: Final = ".reply.celery.pidbox"
"""The end of the names of queues for answers to commands. A worker asks the others when it starts."""
_STEP_QUEUES: Final = frozenset(map(wire_versions.queue_of, wire_versions.SERVED))


def fault_of(message: object, queue: str | None) -> str | None:
    """Return why a parsed message is not delivered to a queue, or `None` if it may be."""
    try:
        envelope = msgspec.convert(message, _Message)
        if len(repr((envelope.headers, envelope.properties))) > LONGEST_HEADERS:
            return "headers too long"
    except (ValueError, RecursionError):
        return "not a message"
    is_step, is_answer = queue in _STEP_QUEUES, str(queue).endswith(_ANSWERS)
    if not (is_step or is_answer):
        return None
    body: str | bytes = envelope.body
    try:
        if envelope.properties.body_encoding == "base64":
            body = base64.b64decode(body)
        if is_answer:
            msgspec.json.decode(body, type=dict[str, object])
        else:
            headers = msgspec.convert(envelope.headers, _StepHeaders)
            msgspec.json.decode(body, type=_POLL if headers.task == tasks.POLL else _STEP)
    except (ValueError, RecursionError):
        return "not a step" if is_step else "not an answer"
    return None


class Channel(redis.Channel):
    """A channel to a Redis."""

    def _brpop_read(self, **options: Any) -> Any:
        return _or_dropped(self, partial(super()._brpop_read, **options))

    def _receive_one(self, c: Any) -> Any:
        # With an error, kombu would leave the messages behind this one in its buffer until another is published.
        with contextlib.suppress(Empty):
            return _or_dropped(self, partial(super()._receive_one, c))
        return None

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        message = _or_dropped(self, partial(super()._get, queue))
        fault = fault_of(message, queue)
        if fault is not None:
            _log_dropped(fault)
            raise Empty
        return message


class SentinelChannel(Channel, redis.SentinelChannel):
    """A channel to a Redis that sentinels watch."""


class Transport(redis.Transport):
    """A transport to a Redis."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str | None) -> None:
        fault = fault_of(message, queue)
        if fault is None:
            try:
                super()._deliver(message, queue)
            except (Empty, *_failures(self)):
                raise
            except Exception as error:  # noqa: BLE001 - a foreign message may raise anything
                fault = type(error).__name__
                self._forget(message["properties"]["delivery_tag"])
        if fault is not None:
            _log_dropped(fault)
            # Or it would count as one of the answers that `celery inspect` waits for.
            raise Empty

    def _forget(self, tag: str) -> None:
        """Acknowledge a dropped message: kombu puts what is not acknowledged back when it connects again."""
        for channel in self.channels or ():
            if tag in (channel.qos._delivered or ()):
                channel.qos.ack(tag)


class SentinelTransport(Transport, redis.SentinelTransport):
    """A transport to a Redis that sentinels watch."""

    Channel = SentinelChannel


def _failures(transport: Any) -> tuple[type[Exception], ...]:
    """Return the errors of a connection or of Redis. Kombu counts `KeyError`, too, which any message can raise."""
    return tuple({*transport.connection_errors, *transport.channel_errors} - {KeyError})


def _or_dropped(channel: Any, read: Callable[[], Any]) -> Any:
    """Read one message, and drop it for any error but a failed connection."""
    try:
        return read()
    except (Empty, *_failures(channel.connection)):
        raise
    except Exception as error:  # noqa: BLE001 - a foreign message may raise anything
        _log_dropped(type(error).__name__)
        raise Empty from None


def _log_dropped(reason: str) -> None:
    """Log a dropped message by its fault alone: its words may be anybody's."""
    emit(logger, logging.WARNING, "message_dropped", {"reason": reason})
