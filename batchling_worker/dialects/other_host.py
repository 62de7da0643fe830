"""A result file on another host than its provider's: one GET without a credential, and what may go wrong with it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final

import httpx

from batchling_client.wire.deployment import download_hosts

from ..errors import TemporaryError
from . import http_errors
from .http_errors import CallInfo
from .slow_answers import Trace

BARE: Final = ("user-agent", "accept-encoding", "range")
"""All that such a call takes along of the headers of the provider's own."""


def place_of(response: httpx.Response, hosts: tuple[str, ...], link: str = "") -> httpx.URL | None:
    """Return the URL on one of these hosts that a redirect of a download leads to, or a link in its body, else None.

    Everybody who has a signed URL can use it: it is used once, and never stored, logged or shown.
    """
    place = link or response.headers.get("location", "")
    if not hosts or response.request.method != "GET" or not place:
        return None
    try:
        url = response.url.join(place)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        return None
    name = url.raw_host.decode("ascii", "replace")
    if url.userinfo or not download_hosts.allowed(hosts, url.scheme, name, url.port):
        return None
    return url


def opened(
    client: httpx.AsyncClient, url: httpx.URL, headers: Mapping[str, str], trace: Trace
) -> contextlib.AbstractAsyncContextManager[httpx.Response]:
    """Return the call to that URL, without a query, credential or header of the provider's."""
    return client.stream(
        "GET",
        url,
        headers={name: said for name, said in headers.items() if name in BARE},
        follow_redirects=False,
        extensions={"trace": trace},
    )


def of_status(call_info: CallInfo, url: httpx.URL, status: int) -> TemporaryError:
    """Return the worker's error for an answer that is not the file: its body may repeat what was signed.

    A 401, 403 or 404 says nothing of the provider's key or file: the next redirect leads to another URL.
    """
    if 300 <= status < 400:
        return TemporaryError(
            f"{call_info.provider} keeps its results on {_origin(url)}, which redirects again ({status}): "
            "only one redirect to another host is followed"
        )
    return TemporaryError(
        f"{call_info.provider} keeps its results on {_origin(url)}, "
        f"which answered {status} when asked to {call_info.does}"
    )


def of_exception(call_info: CallInfo, url: httpx.URL, error: Exception) -> TemporaryError:
    """Return the worker's error for a call there that failed; of httpx's error its name alone is kept."""
    where = f"{call_info.provider} keeps its results on {_origin(url)}, which"
    if isinstance(error, http_errors.NOTHING_SENT):
        return TemporaryError(f"{where} could not be reached to {call_info.does} ({type(error).__name__})")
    return TemporaryError(
        f"{where} did not answer in full when asked to {call_info.does} ({type(error).__name__})"
    )


def _origin(url: httpx.URL) -> str:
    return http_errors.origin_of(str(url))
