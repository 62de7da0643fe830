"""Where Celery's broker is, and how Celery talks to it: the deployment's Redis, in kombu's words."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from batchling_client.wire.deployment.connection import (
    CONNECT_SECONDS,
    HEALTH_SECONDS,
    REPLY_SECONDS,
    parse_sentinel,
)
from batchling_client.wire.keys import broker_prefix


def broker_url(redis_url: str) -> str:
    """Return the deployment's Redis as kombu spells it."""
    if redis_url.startswith("unix://"):
        path, options = _without_options(redis_url)
        database = f"?virtual_host={options['db']}" if "db" in options else ""
        return "redis+socket://" + path.removeprefix("unix://") + database
    if redis_url.startswith("sentinel://"):
        watch = parse_sentinel(redis_url)
        credentials = f":{quote(watch.password)}@" if watch.password else ""
        return ";".join(
            f"sentinel://{credentials}{host}:{port}/{watch.database}" for host, port in watch.addresses
        )
    bare, options = _without_options(redis_url)
    if "db" in options:
        bare = urlsplit(bare)._replace(path=f"/{options['db']}").geturl()
    ssl = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if bare.startswith("rediss://"):
        # Without a word on it, kombu takes any certificate.
        ssl.setdefault("ssl_cert_reqs", "required")
    return f"{bare}?{urlencode(ssl)}" if ssl else bare


def transport_options(redis_url: str, namespace: str) -> dict[str, object]:
    """Return kombu's connection options; every Celery key of a deployment has its own prefix.

    A connection that went dead in silence is noticed within one second and two health checks.
    """
    _, said = _without_options(redis_url)
    options: dict[str, object] = {
        # A message may be lost, its batch is due again with the lease: to keep a copy of it until it is acknowledged
        # would be work for nothing, and ends the worker where Redis goes away with a message in its hands (kombu 5.7).
        "ack_emulation": False,
        "socket_timeout": float(said.get("socket_timeout", REPLY_SECONDS)),
        "socket_connect_timeout": float(said.get("socket_connect_timeout", CONNECT_SECONDS)),
        "socket_keepalive": not redis_url.startswith("unix://"),
        "health_check_interval": float(said.get("health_check_interval", HEALTH_SECONDS)),
        "global_keyprefix": broker_prefix(namespace),
    }
    if redis_url.startswith("sentinel://"):
        options["master_name"] = parse_sentinel(redis_url).service
    return options


def _without_options(redis_url: str) -> tuple[str, dict[str, str]]:
    """Return the URL without its query, which kombu cannot read, and the options that redis-py would read there."""
    bare, _, query = redis_url.partition("?")
    return bare, dict(parse_qsl(query))
