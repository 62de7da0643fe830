"""The hosts beside a provider's own that its result files may be fetched from, as the settings list them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from ..route import OWN_PORTS, in_ascii

MOST_HOSTS: Final = 100
PLAIN: Final = "http://"
"""Begins the hosts of other machines that are called without TLS, which the settings have to say."""

_NAME: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*"
)
_SPELT: Final = re.compile(r"(?:(https?)://)?([^\s/?#@\\]+)/?")
_AS_IN: Final = "such as bucket.s3.amazonaws.com or *.r2.cloudflarestorage.com"


def usable(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the hosts in one spelling, each once; raise ValueError for what is not a host.

    The spelling is `name` or `name:port`, behind `http://` for a host of another machine that is called without TLS.
    """
    if len(hosts) > MOST_HOSTS:
        raise ValueError(f"holds more than {MOST_HOSTS} hosts")
    return tuple(dict.fromkeys(_usable(one) for one in hosts))


def _usable(spelt: str) -> str:
    found = _SPELT.fullmatch(spelt.strip().lower())
    if found is None:
        raise ValueError(f"holds hosts between commas, {_AS_IN}, without path, query and user")
    scheme, site = found[1] or "", found[2]
    wide = site.startswith("*.")
    try:
        parts = urlsplit(f"//{site.removeprefix('*.')}")
        name, port = in_ascii((parts.hostname or "").removesuffix(".")), parts.port
    except ValueError:
        raise ValueError(
            f"has a host with a port that is not a number from 1 to 65535: name hosts {_AS_IN}"
        ) from None
    if port == 0 or not (_NAME.fullmatch(name) or (_is_address(name) and ":" in name)):
        raise ValueError(f"has a name that is not a host: name hosts {_AS_IN}")
    if wide and ("." not in name or _is_address(name)):
        raise ValueError(f"has a * with too little behind it: name hosts {_AS_IN}")
    plain = PLAIN if scheme == "http" and not is_loopback(name) else ""
    own_port = OWN_PORTS.get(scheme or "https")
    return plain + ("*." if wide else "") + _site(name, None if port == own_port else port)


def allowed(hosts: Iterable[str], scheme: str, name: str, port: int | None) -> bool:
    """Return whether a result file may be fetched from this place; `port` is None for the scheme's own."""
    if scheme not in OWN_PORTS:
        return False
    name = name.lower().removesuffix(".")
    plain = scheme == "http" and not is_loopback(name)
    listed = [one.removeprefix(PLAIN) for one in hosts if one.startswith(PLAIN) is plain]
    sites = (_site(name, port), _site(name, port or OWN_PORTS[scheme]))
    return any(
        site.endswith(one[1:]) if one.startswith("*") else site == one for one in listed for site in sites
    )


def is_loopback(name: str) -> bool:
    """Return whether the name is that of the machine itself."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _site(name: str, port: int | None) -> str:
    name = f"[{name}]" if ":" in name else name
    return name if port is None else f"{name}:{port}"
