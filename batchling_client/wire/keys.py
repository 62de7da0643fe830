"""Every Redis key of a deployment: its name, type and lifetime."""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass
from typing import Final, NewType

WIRE_VERSION: Final = 2
"""Part of every key's prefix: a changed record or script contract needs a new version."""

DRAINED_VERSIONS: Final = (1, 2)
"""The versions that a worker of this release works on, each in its own keyspace; its own is one of them."""

RequestId = NewType("RequestId", str)
CustomId = NewType("CustomId", str)
BatchId = NewType("BatchId", str)
ProviderBatchId = NewType("ProviderBatchId", str)
RunId = NewType("RunId", str)
LaneId = NewType("LaneId", str)
Fingerprint = NewType("Fingerprint", str)
Mailbox = NewType("Mailbox", str)

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_DAY_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """How long a key lives from its last renewal, at most."""

    ms: int
    """0 = it never expires."""
    shown: str
    why: str


PERMANENT: Final = Lifetime(ms=0, shown="permanent", why="a batch leaves the schedule when it is settled")
FOR_GOOD: Final = Lifetime(
    ms=0, shown="permanent", why="a rerun after it has gone would not find the answers of earlier runs"
)
UNTIL_RESUMED: Final = Lifetime(ms=0, shown="until resumed", why="a pause ends when a person ends it")
IN_FLIGHT: Final = Lifetime(
    ms=35 * _DAY_MS,
    shown="35 days",
    why="longer than a completion window with its attempts, and than the default lifetime of results",
)
RESULTS: Final = Lifetime(
    ms=30 * _DAY_MS, shown="30 days", why="the default; `BATCHLING_RESULT_TTL_SECONDS` sets another one"
)
UNNEEDED: Final = Lifetime(
    ms=7 * 3600 * 1000,
    shown="7 hours",
    why="longer than a session believes that a credential is stored, and enough to `retry` what failed",
)
MAIL: Final = Lifetime(
    ms=_DAY_MS,
    shown="1 day",
    why="a session that reads its mailbox later finds each answer under its result key",
)
MINUTE: Final = Lifetime(
    ms=25 * 3600 * 1000, shown="25 hours", why="one day of minutes, and the hour that is under way"
)
CIRCUIT: Final = Lifetime(
    ms=600_000, shown="10 minutes after its pause", why="an account without failures is trusted again"
)
LIST_PAGE: Final = Lifetime(
    ms=15_000,
    shown="up to 15 seconds",
    why="half the interval between two looks, which must not see a page again",
)
WORKER: Final = Lifetime(
    ms=15_000, shown="15 seconds", why="a worker that lives renews it every five seconds"
)


class Access(enum.StrEnum):
    """What the Redis user of a role may do with a family of keys."""

    NONE = "nothing"
    READ = "read"
    WRITE = "write, not read"
    DROP = "read, delete"
    ALL = "read, write"


NONE: Final = Access.NONE
READ: Final = Access.READ
WRITE: Final = Access.WRITE
DROP: Final = Access.DROP
ALL: Final = Access.ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyKind:
    """One family of keys: the first word after the prefix, the Redis type, and how long a key lives.

    Workers may do everything with every family. The other roles get what is said here, and nothing by default:
    `batchling acl` makes the rules of Redis users from it.
    """

    word: str
    redis_type: str
    lifetime: Lifetime
    holds: str
    client: Access = NONE
    """Programs that make calls, and the commands `submit` and `results`."""
    operator: Access = NONE
    """The commands that look at everything and steer: cancel, retry, pause, doctor."""
    dashboard: Access = NONE
    """Flower with batchling's pages."""


KEYSPACE: Final = (
    KeyKind(
        word="schedule",
        redis_type="zset",
        lifetime=PERMANENT,
        holds="batch id -> next look, ms",
        client=ALL,
        operator=ALL,
        dashboard=ALL,
    ),
    KeyKind(
        word="batches",
        redis_type="zset",
        lifetime=IN_FLIGHT,
        holds="batch id -> created_at, ms; for listings",
        client=ALL,
        operator=READ,
        dashboard=READ,
    ),
    KeyKind(
        word="runs",
        redis_type="zset",
        lifetime=IN_FLIGHT,
        holds="run id -> started_at, ms; for listings",
        client=ALL,
        operator=READ,
        dashboard=READ,
    ),
    KeyKind(
        word="lanes",
        redis_type="zset",
        lifetime=IN_FLIGHT,
        holds="lane id -> last enqueue, ms; for listings",
        client=ALL,
        operator=READ,
        dashboard=READ,
    ),
    KeyKind(
        word="paused",
        redis_type="hash",
        lifetime=UNTIL_RESUMED,
        holds="provider, model, key or lane that is paused -> by whom, since when, why",
        client=READ,
        operator=ALL,
        dashboard=ALL,
    ),
    KeyKind(
        word="lane",
        redis_type="hash",
        lifetime=IN_FLIGHT,
        holds="spec, open batch, hold of one lane",
        client=ALL,
        operator=ALL,
        dashboard=ALL,
    ),
    KeyKind(
        word="lane_batches",
        redis_type="zset",
        lifetime=IN_FLIGHT,
        holds="batches of one lane in one state -> since when, ms; for listings",
        client=ALL,
        operator=ALL,
        dashboard=ALL,
    ),
    KeyKind(
        word="batch",
        redis_type="hash",
        lifetime=IN_FLIGHT,
        holds="state of record of one batch",
        client=ALL,
        operator=ALL,
        dashboard=ALL,
    ),
    KeyKind(
        word="rows",
        redis_type="list",
        lifetime=IN_FLIGHT,
        holds="packed rows of one batch, in order",
        client=WRITE,
        operator=READ,
    ),
    KeyKind(
        word="unanswered",
        redis_type="set",
        lifetime=IN_FLIGHT,
        holds="ids of requests that one batch ended without an answer to",
        operator=ALL,
        dashboard=ALL,
    ),
    KeyKind(
        word="failures",
        redis_type="hash",
        lifetime=IN_FLIGHT,
        holds="status and code -> how many requests of one batch failed so",
        client=READ,
        operator=READ,
        dashboard=READ,
    ),
    KeyKind(
        word="failed_rows",
        redis_type="list",
        lifetime=IN_FLIGHT,
        holds="the first 1,000 failed requests of one batch: id, attempt, status, code",
        client=READ,
        operator=READ,
        dashboard=READ,
    ),
    KeyKind(
        word="request",
        redis_type="string",
        lifetime=IN_FLIGHT,
        holds="batch|attempt|mailboxes:runs, in flight",
        client=ALL,
        operator=ALL,
    ),
    KeyKind(
        word="result",
        redis_type="string",
        lifetime=RESULTS,
        holds="packed result of an answered request",
        client=DROP,
        operator=WRITE,
    ),
    KeyKind(
        word="run",
        redis_type="hash",
        lifetime=IN_FLIGHT,
        holds="name, times and counts of one run",
        client=ALL,
        operator=ALL,
        dashboard=READ,
    ),
    KeyKind(
        word="run_batches",
        redis_type="set",
        lifetime=IN_FLIGHT,
        holds="batch ids in which a run has requests",
        client=ALL,
        operator=READ,
        dashboard=READ,
    ),
    KeyKind(
        word="minute",
        redis_type="hash",
        lifetime=MINUTE,
        holds="lane|count -> how many answers and tokens came in this minute since 1970",
        client=READ,
        operator=READ,
        dashboard=READ,
    ),
    KeyKind(
        word="run_rows",
        redis_type="list",
        lifetime=IN_FLIGHT,
        holds="request ids of a run in the order of its calls, some of them in each entry",
        client=ALL,
        operator=READ,
        dashboard=READ,
    ),
    KeyKind(
        word="run_withdrawn",
        redis_type="set",
        lifetime=IN_FLIGHT,
        holds="ids of those requests of a run that were withdrawn, asked for again or not",
        client=ALL,
        operator=ALL,
        dashboard=READ,
    ),
    KeyKind(
        word="run_requests",
        redis_type="hash",
        lifetime=IN_FLIGHT,
        holds="chunks of a submitted file's requests, in its order",
        client=ALL,
    ),
    KeyKind(
        word="mailbox",
        redis_type="stream",
        lifetime=MAIL,
        holds="ids answered for one client session",
        client=ALL,
        operator=WRITE,
    ),
    KeyKind(
        word="salt",
        redis_type="string",
        lifetime=FOR_GOOD,
        holds="16 random bytes, with which fingerprints are derived from credentials",
        client=READ,
        operator=READ,
    ),
    KeyKind(
        word="credential",
        redis_type="string",
        lifetime=IN_FLIGHT,
        holds="sealed credential, by fingerprint, provider and host; goes 7 hours after its last unfinished batch",
        client=WRITE,
    ),
    KeyKind(
        word="key_hint",
        redis_type="string",
        lifetime=IN_FLIGHT,
        holds="last four characters of an API key, by fingerprint",
        client=ALL,
        operator=READ,
        dashboard=READ,
    ),
    KeyKind(
        word="reader",
        redis_type="string",
        lifetime=IN_FLIGHT,
        holds="what opens the answers to a credential's requests, sealed, by fingerprint",
        client=ALL,
        operator=READ,
    ),
    KeyKind(
        word="quota",
        redis_type="hash",
        lifetime=IN_FLIGHT,
        holds="learned limit and batches in flight, by account and model",
        client=READ,
        operator=READ,
        dashboard=READ,
    ),
    KeyKind(
        word="circuit",
        redis_type="hash",
        lifetime=CIRCUIT,
        holds="why an account or a lane is left alone",
        client=READ,
        operator=DROP,
        dashboard=DROP,
    ),
    KeyKind(
        word="owner",
        redis_type="string",
        lifetime=IN_FLIGHT,
        holds="batch id, by a digest of account and provider's id",
        client=READ,
        operator=READ,
        dashboard=READ,
    ),
    KeyKind(
        word="list_page",
        redis_type="string",
        lifetime=LIST_PAGE,
        holds="a page of a provider's list of batches, for the steps of one sweep",
    ),
    KeyKind(
        word="spent_files",
        redis_type="zset",
        lifetime=IN_FLIGHT,
        holds="files of a batch that are needed no more -> when they are deleted, ms",
    ),
    KeyKind(
        word="worker",
        redis_type="string",
        lifetime=WORKER,
        holds="heartbeat of one worker",
        client=READ,
        operator=READ,
        dashboard=READ,
    ),
    KeyKind(
        word="workers",
        redis_type="zset",
        lifetime=IN_FLIGHT,
        holds="worker name -> last heartbeat, ms",
        client=READ,
        operator=READ,
        dashboard=READ,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerKeys:
    """Keys of Celery's broker: a pattern after their prefix, and what a dashboard may do with them."""

    pattern: str
    redis_types: tuple[str, ...]
    dashboard: Access = NONE


BROKER_KEYSPACE: Final = (
    BrokerKeys(pattern="batchling*", redis_types=("list",), dashboard=READ),
    BrokerKeys(pattern="_kombu.binding*", redis_types=("set", "zset"), dashboard=ALL),
    BrokerKeys(pattern="celeryev.*", redis_types=("list",), dashboard=ALL),
    BrokerKeys(pattern="*.pidbox*", redis_types=("list",), dashboard=ALL),
)
"""The queues of messages, what is bound to them, and the queues of events and of replies."""

BROKER_CHANNELS: Final = (
    "celery.pidbox",
    "celeryev/*",
    "celeryev/worker.*",
    "celeryev/task.*",
    "celeryev/worker.#",
    "celeryev/task.#",
    "reply.celery.pidbox",
)
"""Channels after `/DATABASE.`, spelt as Celery spells them: Redis compares the pattern of a subscription as text."""


def broker_prefix(namespace: str) -> str:
    """Return the prefix of the keys and channels of a deployment's Celery."""
    return f"batchling:celery:{namespace}:"


def usable_namespace(namespace: str) -> str:
    """Return the name of a deployment; raise ValueError if it cannot be part of a key."""
    if _NAMESPACE.fullmatch(namespace) is None:
        raise ValueError("may hold up to 64 letters, digits, dots, dashes and underscores")
    return namespace


def credential_name(fingerprint: str, provider: str, host: str) -> str:
    """Return the name of a credential as it is used at a provider's host, which is a host or a base URL."""
    use = hashlib.blake2b(f"{provider}\n{host}".encode(), digest_size=6).hexdigest()
    return f"{fingerprint}.{use}"


class Keys:
    """Names the keys of one deployment, in this wire version unless another is named.

    All share one hash tag, so every script runs on one Redis slot.
    """

    def __init__(self, namespace: str, version: int | None = None) -> None:
        self.namespace = namespace
        self.version = WIRE_VERSION if version is None else version
        self.prefix = f"batchling:{self.version}:{{{namespace}}}:"
        prefix = self.prefix
        self.schedule = prefix + "schedule"
        self.batches = prefix + "batches"
        self.runs = prefix + "runs"
        self.lanes = prefix + "lanes"
        self.workers = prefix + "workers"
        self.paused = prefix + "paused"
        self.salt = prefix + "salt"
        self.spent_files = prefix + "spent_files"
        self.notice_prefix = prefix + "notice:"
        self._request_prefix = prefix + "request:"
        self._result_prefix = prefix + "result:"

    def lane(self, lane_id: str) -> str:
        return f"{self.prefix}lane:{lane_id}"

    def lane_batches(self, lane_id: str, state: str) -> str:
        """Return the key of the list of a lane's batches in a state, or in one of `_moved.lua`'s own lists."""
        return f"{self.prefix}lane_batches:{lane_id}:{state}"

    def batch(self, batch_id: str) -> str:
        return f"{self.prefix}batch:{batch_id}"

    def rows(self, batch_id: str) -> str:
        return f"{self.prefix}rows:{batch_id}"

    def unanswered(self, batch_id: str) -> str:
        return f"{self.prefix}unanswered:{batch_id}"

    def minute(self, minute: int) -> str:
        """Return the key of the counts of a minute, numbered since 1970."""
        return f"{self.prefix}minute:{minute}"

    def failures(self, batch_id: str) -> str:
        return f"{self.prefix}failures:{batch_id}"

    def failed_rows(self, batch_id: str) -> str:
        return f"{self.prefix}failed_rows:{batch_id}"

    def request(self, request_id: str) -> str:
        return self._request_prefix + request_id

    def result(self, request_id: str) -> str:
        return self._result_prefix + request_id

    def run(self, run_id: str) -> str:
        return f"{self.prefix}run:{run_id}"

    def run_batches(self, run_id: str) -> str:
        return f"{self.prefix}run_batches:{run_id}"

    def run_rows(self, run_id: str) -> str:
        return f"{self.prefix}run_rows:{run_id}"

    def run_withdrawn(self, run_id: str) -> str:
        return f"{self.prefix}run_withdrawn:{run_id}"

    def run_requests(self, run_id: str) -> str:
        return f"{self.prefix}run_requests:{run_id}"

    def mailbox(self, mailbox: str) -> str:
        return f"{self.prefix}mailbox:{mailbox}"

    def credential(self, name: str) -> str:
        """Return the key of a credential by its name (see `credential_name`)."""
        return f"{self.prefix}credential:{name}"

    def reader(self, fingerprint: str) -> str:
        """Return the key of what reads the answers of a credential's requests."""
        return f"{self.prefix}reader:{fingerprint}"

    def key_hint(self, fingerprint: str) -> str:
        return f"{self.prefix}key_hint:{fingerprint}"

    def quota(self, quota_id: str) -> str:
        return f"{self.prefix}quota:{quota_id}"

    def circuit(self, name: str) -> str:
        """Return the key of the circuit of an account (by its digest) or of a lane (by its id)."""
        return f"{self.prefix}circuit:{name}"

    def owner(self, name: str) -> str:
        """Return the key of a provider's batch, by a digest of account and provider's id."""
        return f"{self.prefix}owner:{name}"

    def list_page(self, name: str) -> str:
        """Return the key of a page of an account's list of batches, by a digest of account, list and cursor."""
        return f"{self.prefix}list_page:{name}"

    def worker(self, name: str) -> str:
        return f"{self.prefix}worker:{name}"

    def notice(self, mailbox: str) -> str:
        """Return the pub/sub channel for a client session's notices, which carry no payload."""
        return self.notice_prefix + mailbox
