"""Checks whether a Redis can be trusted with a queue: takes its facts, returns findings, does no I/O."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from .finding import Finding, Health, judge

OLDEST: Final = (6, 2)
"""What the scripts need, and the Celery transport."""
OLDEST_WITH_FSYNC: Final = (7, 2)
"""The first that knows WAITAOF."""
SKEW_S: Final = 5.0
FULL_FROM: Final = 0.8
ANSWER_GROWTH: Final = 1.0
"""An answer is taken to be as long as its request. Redis holds both compressed: the forecast is rather too high."""
ANSWER_BYTES: Final = 500
"""What Redis needs beside the bytes of an answer: its key, its lifetime, an entry of a mailbox."""
_NO: Final = ("false", "False", "no", "0")

_FSYNC_COSTS: Final = {
    "everysec": "a power loss costs the last second or two of writes",
    "no": "a power loss costs what the system had not written, up to half a minute",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """Facts that a Redis reports about itself."""

    info: Mapping[str, Any]
    """Its INFO; empty where that is not permitted."""
    appendfsync: str | None
    """None where CONFIG is not permitted, as on most managed ones."""
    skew_s: float
    """How far this machine's clock is ahead of its own."""


def of_redis(told: RedisFacts) -> list[Finding]:
    """Return all findings on a Redis that holds a queue."""
    if not told.info:
        return [
            Finding(
                check="info",
                health=Health.FAILURE,
                says="this user may not call INFO: role, eviction, durability and memory are unknown",
                mend="Permit it (ACL SETUSER ... +info), and CONFIG GET if possible.",
            )
        ]
    info = told.info
    found = [_of_version(info), _of_role(info)]
    if str(info.get("redis_mode")) == "sentinel":
        return found
    found += [_of_loading(info)] if str(info.get("loading", 0)) == "1" else []
    found += [_of_eviction(info), _of_durability(info)]
    found += [_of_fsync(told)] if _is_durable(info) else []
    found += _of_replicas(info)
    found += [_of_memory(info), of_clock(told.skew_s)]
    return found


def of_fsync_intent(told: RedisFacts) -> Finding:
    """Check that this Redis can confirm a write to disk before a create is sent."""
    able = _numbers(told.info) >= OLDEST_WITH_FSYNC and _is_durable(told.info) and told.appendfsync != "no"
    return judge(
        "fsync_intent",
        able or not told.info,
        "writes can be confirmed on disk"
        if able
        else "BATCHLING_FSYNC_INTENT is set and this Redis cannot confirm that a write is on disk",
        "Use Redis or Valkey 7.2 or newer with `appendonly yes` and `appendfsync always` or `everysec`, "
        "or unset BATCHLING_FSYNC_INTENT.",
        fatal=True,
    )


def of_clock(skew_s: float, whose: str = "this clock") -> Finding:
    """Check how far a machine's clock is from that of Redis, which is authoritative."""
    return judge(
        "clock",
        abs(skew_s) <= SKEW_S,
        f"{whose} is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} that of Redis",
        "Let NTP set the clocks: ages and waits are computed from both.",
    )


def of_access(url: str, user: str | None, user_rules: Mapping[str, Any] | None) -> list[Finding]:
    """Return notes on who can reach this Redis and do what: TLS, password, a user who may do everything.

    `user` is who is logged in, and `user_rules` what ACL GETUSER says of the user; None where that is not permitted.
    """
    parts = urlsplit(url)
    hosts = [one.rpartition(":")[0] or one for one in parts.netloc.rpartition("@")[2].split(",")]
    is_far = parts.scheme != "unix" and not all(is_loopback(host) for host in hosts)
    found = []
    if is_far and parts.scheme != "rediss":
        found.append(
            Finding(
                check="tls",
                health=Health.NOTE,
                says="prompts, answers and the password of Redis cross the network unencrypted",
                mend="Use rediss:// and a port with TLS, if others can read that network.",
            )
        )
    said = dict(parse_qsl(parts.query))
    is_unchecked = (
        said.get("ssl_cert_reqs", "required") != "required" or said.get("ssl_check_hostname") in _NO
    )
    if is_far and parts.scheme == "rediss" and is_unchecked:
        found.append(
            Finding(
                check="tls",
                health=Health.NOTE,
                says="the certificate of Redis is not checked: another server can take its place",
                mend="Give its CA with ?ssl_ca_certs=FILE, and leave out ssl_cert_reqs and ssl_check_hostname.",
            )
        )
    rules = user_rules or {}
    if parts.scheme != "unix" and "nopass" in _words(rules.get("flags")):
        found.append(
            Finding(
                check="password",
                health=Health.NOTE,
                says=f"Redis asks user {user} for no password: everybody who reaches its port, users of this machine "
                "included, may do what that user may",
                mend="Set a password, or let Redis listen on a unix socket in a folder of mode 0700.",
            )
        )
    elif (
        parts.scheme != "unix"
        and "+@all" in _words(rules.get("categories"))
        and "~*" in _words(rules.get("keys"))
    ):
        found.append(
            Finding(
                check="roles",
                health=Health.NOTE,
                says=f"user {user} may read and write every key in Redis: prompts, answers, other programs' data",
                mend="Give each part a user with the rules of its role, which `batchling acl` prints.",
            )
        )
    return found


def _words(value: Any) -> set[str]:
    listed = value if isinstance(value, (list, tuple, set, frozenset)) else str(_text(value)).split()
    return {str(_text(word)) for word in listed}


def _text(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def refusal(findings: Iterable[Finding], place: str) -> str | None:
    """Return in one sentence why this Redis must not be used; None if it may be."""
    for finding in findings:
        if finding.fatal:
            mend = finding.mend[:1].lower() + finding.mend[1:]
            return f"Redis at {place} would lose requests, as {finding.says}: {mend}"
    return None


def _of_version(info: Mapping[str, Any]) -> Finding:
    # Valkey reports the Redis version that it is compatible with, and its own version.
    valkey = info.get("valkey_version")
    text = f"Valkey {valkey}" if valkey else str(info.get("redis_version", "unknown"))
    return judge(
        "version",
        _numbers(info) >= OLDEST,
        f"its version is {text}",
        "Use Redis or Valkey 6.2 or newer: the scripts and Celery's transport need it.",
        fatal=True,
    )


def _of_role(info: Mapping[str, Any]) -> Finding:
    role, mode = str(info.get("role", "unknown")), str(info.get("redis_mode", ""))
    if mode == "sentinel":
        says = "this is a Sentinel and holds no data"
        mend = "Write BATCHLING_REDIS_URL as sentinel://host:26379/service."
    elif str(info.get("cluster_enabled", 0)) == "1":
        says = "this is a node of a Redis Cluster, which Celery's transport cannot use"
        mend = "Use a standalone Redis, or one with replicas and Sentinel."
    else:
        says = f"its role is {role}"
        mend = "Point BATCHLING_REDIS_URL at the master, or at its Sentinels (sentinel://host:26379/service)."
    return judge("role", says == "its role is master", says, mend, fatal=True)


def _of_loading(info: Mapping[str, Any]) -> Finding:
    left = info.get("loading_eta_seconds")
    return Finding(
        check="loading",
        health=Health.FAILURE,
        says="it is loading its data" + (f", for {left} s more" if left is not None else ""),
        mend="Wait: it answers nothing before.",
    )


def _of_eviction(info: Mapping[str, Any]) -> Finding:
    policy = str(info.get("maxmemory_policy", "unknown"))
    return judge(
        "eviction",
        policy == "noeviction",
        f"its maxmemory-policy is {policy}",
        "Set `maxmemory-policy noeviction`: any other policy throws waiting requests away when memory is short.",
        # A server that hides its policy gets a warning and is not refused.
        fatal=policy != "unknown",
    )


def _of_durability(info: Mapping[str, Any]) -> Finding:
    failed = [
        f"{words} failed"
        for field, words in (
            ("aof_last_write_status", "the last write of the append-only file"),
            ("aof_last_bgrewrite_status", "the last rewrite of the append-only file"),
            ("rdb_last_bgsave_status", "the last snapshot"),
        )
        if str(info.get(field, "ok")) != "ok"
    ]
    durable = _is_durable(info)
    state = f"its append-only file is {'on' if durable else 'off'}"
    return judge(
        "durability",
        durable and not failed,
        ", ".join([state, *failed]),
        "See that its disk has room and that it may write there."
        if failed and durable
        else "Set `appendonly yes`, or switch the managed service's persistence on: "
        "without it a restart of Redis loses requests.",
    )


def _of_fsync(told: RedisFacts) -> Finding:
    policy = told.appendfsync
    if policy == "always":
        return Finding(check="fsync", health=Health.OK, says="every write is on disk before it is confirmed")
    if policy is None:
        says = "how often it syncs its append-only file is unknown (CONFIG GET is not permitted)"
        return Finding(
            check="fsync",
            health=Health.NOTE,
            says=says,
            mend="Look up appendfsync at the Redis provider.",
        )
    return Finding(
        check="fsync",
        health=Health.FAILURE if policy == "no" else Health.NOTE,
        says=f"appendfsync is {policy}: {_FSYNC_COSTS.get(policy, 'what a power loss costs is not known')}",
        mend="Set `appendfsync everysec`, or `always`."
        if policy == "no"
        else "Set `appendfsync always`, or BATCHLING_FSYNC_INTENT=true for the workers, if that is too much.",
    )


def _of_replicas(info: Mapping[str, Any]) -> list[Finding]:
    """Return findings on replicas; none if there are no replicas."""
    n_replicas = int(info.get("connected_slaves", 0))
    good = info.get("min_slaves_good_slaves")
    if good is None and n_replicas == 0:
        return []
    if good is None:
        return [
            Finding(
                check="replicas",
                health=Health.NOTE,
                says=f"{n_replicas} connected; a master cut off from all of them keeps accepting writes, "
                "which a fail-over loses",
                mend="Set `min-replicas-to-write 1` and `min-replicas-max-lag 10`.",
            )
        ]
    return [
        judge(
            "replicas",
            int(good) > 0,
            f"{n_replicas} connected, {good} of them up to date",
            "Bring a replica back: `min-replicas-to-write` has Redis refuse every write until then.",
        )
    ]


def _of_memory(info: Mapping[str, Any]) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    room = limit or int(info.get("total_system_memory", 0))
    if not room:
        return Finding(check="memory", health=Health.OK, says=f"{_mib(used)} used")
    if used >= room * FULL_FROM:
        return Finding(
            check="memory",
            health=Health.FAILURE,
            says=f"{_mib(used)} used of {_mib(room)}",
            mend="Raise maxmemory, or lower BATCHLING_RESULT_TTL_SECONDS: a full Redis refuses new requests.",
        )
    if not limit:
        return Finding(
            check="memory",
            health=Health.NOTE,
            says=f"{_mib(used)} used; maxmemory is not set, so that the host's {_mib(room)} are the limit",
            mend="Set `maxmemory`, so that a full Redis rejects requests instead of being killed by the OS.",
        )
    return Finding(check="memory", health=Health.OK, says=f"{_mib(used)} used of {_mib(room)}")


def of_queue(told: RedisFacts, n_waiting: int, n_bytes: int) -> Finding:
    """Forecast whether Redis has room for the answers to the requests that wait, whose lines have that many bytes."""
    used, limit = int(told.info.get("used_memory", 0)), int(told.info.get("maxmemory", 0))
    room = limit or int(told.info.get("total_system_memory", 0))
    more = int(n_bytes * ANSWER_GROWTH) + n_waiting * ANSWER_BYTES
    says = f"the answers to {n_waiting:,} waiting requests may take {_mib(more)} more"
    if not n_waiting or not room:
        says = says if n_waiting else "no request waits for an answer"
        return Finding(check="forecast", health=Health.OK, says=says)
    says += f", {_mib(used + more)} of {_mib(room)} in all"
    if used + more < room * FULL_FROM:
        return Finding(check="forecast", health=Health.OK, says=says)
    return Finding(
        check="forecast",
        health=Health.NOTE,
        says=says,
        mend="Raise maxmemory, lower BATCHLING_RESULT_TTL_SECONDS, or `batchling pause` what can wait.",
    )


def _is_durable(info: Mapping[str, Any]) -> bool:
    return str(info.get("aof_enabled", 0)) == "1"


def _numbers(info: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", str(info.get("redis_version", "")))[:2])


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"
