"""What every page does: who may ask for it, by which host name, and what a browser may do with it."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from flower.views import BaseHandler
from tornado.web import HTTPError, RequestHandler

from batchling_client.views.lane_view import tokens_in_words
from batchling_client.views.sent_again import in_words
from batchling_client.wording import counted

from . import words
from .choice import LONGEST
from .deployment import Deployment, RedisAway
from .loader import namespace_of

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
WRONG_HOST: Final = (
    "This address is not one of the dashboard's names: open it under one of them, or add the name to "
    "BATCHLING_FLOWER_HOSTS.\n"
)
READ_ONLY: Final = "This Flower runs with --read-only: nothing can be changed here.\n"
FOREIGN: Final = "This form was sent from another page, or is too old: load the page again.\n"
PARTIAL: Final = "X-Batchling-Partial"
CROSS_ORIGIN: Final = (
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Headers",
    "Access-Control-Allow-Methods",
)


class Page(BaseHandler):  # type: ignore[misc]  # Flower has no types
    """A page of batches in Flower."""

    deployment: Deployment
    hosts: frozenset[str]

    def initialize(self, deployment: Deployment, hosts: frozenset[str]) -> None:
        """Take what `install` gives each handler."""
        self.deployment = deployment
        self.hosts = hosts

    def set_default_headers(self) -> None:
        """Let no other page frame these, and no cache keep them."""
        super().set_default_headers()
        for name in CROSS_ORIGIN:
            # Flower sends these where its API is open to everybody: other pages could then read these, too.
            self.clear_header(name)
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")

    @property
    def read_only(self) -> bool:
        """Whether Flower was started with --read-only."""
        return bool(self.application.options.read_only)

    def check_xsrf_cookie(self) -> None:
        """Refuse a form that was not sent from these pages, also where Flower has no login and checks nothing."""
        if self.read_only:
            raise HTTPError(405, READ_ONLY)
        site, origin = self.request.headers.get("Sec-Fetch-Site"), self.request.headers.get("Origin")
        # Where a browser says which site it comes from, a proxy in front of Flower may have changed the host.
        same = site == "same-origin" if site else not origin or urlsplit(origin).netloc == self.request.host
        if not same:
            raise HTTPError(403, FOREIGN)
        try:
            RequestHandler.check_xsrf_cookie(self)
        except HTTPError:
            raise HTTPError(403, FOREIGN) from None

    def prepare(self) -> None:
        """Refuse foreign host names, then people who have not logged in."""
        if not is_known(self.request.host, self.hosts):
            raise HTTPError(403, WRONG_HOST)
        if not self.current_user:
            if self.request.method == "GET" and not self.word("partial"):
                self.redirect(self.get_login_url())
                return
            raise HTTPError(403, "Log in first.\n")

    @property
    def who(self) -> str:
        """The name under which somebody logged in; '' if Flower has no login."""
        if isinstance(self.current_user, str):
            return self.current_user
        if not self.application.options.basic_auth:
            return ""
        # Flower has compared the name and its password with those that it knows.
        given = self.request.headers.get("Authorization", "").partition(" ")[2]
        return base64.b64decode(given).decode().partition(":")[0]

    def word(self, name: str) -> str:
        """Return a word of the query, '' if it is not there. Unlike Flower's, it is not escaped: templates do that."""
        return str(self.get_query_argument(name, ""))[:LONGEST].strip()

    def show(self, template: str, *, title: str, tab: str, refresh: bool = True, **found: Any) -> None:
        """Answer with a page, or with the part of it that a browser loads again and again."""
        names: Mapping[str, Any] = {
            **namespace_of(words),
            "counted": counted,
            "tokens_in_words": tokens_in_words,
            "sent_again": in_words,
            "words": words,
            "place": self.deployment.place,
            "namespace": self.deployment.namespace,
            "read_only": self.read_only,
            **found,
        }
        live = self.render_string(f"batchling/{template}.html", **names)
        if self.word("partial"):
            self.set_header(PARTIAL, "1")
            self.finish(live)
            return
        self.render(
            "batchling/page.html",
            title=title,
            tab=tab,
            live=live,
            refresh=refresh,
            namespace=self.deployment.namespace,
            place=self.deployment.place,
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with a sentence: Flower's own pages of errors show tracebacks, or lead to where nobody may go."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if status_code == 401:
            super().write_error(status_code, **kwargs)
        elif isinstance(error, RedisAway):
            self.set_status(503)
            self.set_header("Retry-After", "5")
            self.show("away", title="Redis is away", tab="", sentence=str(error))
        elif isinstance(error, HTTPError) and error.log_message:
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(error.log_message)
        else:
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish("This page has a defect: Flower's log has the details.\n")

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log no traceback of a Redis that is away: the page says it, and tries again every two seconds."""
        if not isinstance(value, RedisAway):
            super().log_exception(typ, value, tb)


class WrongHost(RequestHandler):
    """Answers a call for a page of Flower's own under a name that is not the dashboard's."""

    def prepare(self) -> None:
        """Refuse the call, without Flower's page for errors."""
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(WRONG_HOST)


def is_known(host: str, hosts: frozenset[str]) -> bool:
    """Return whether a Host header names the dashboard.

    A name that somebody else resolves to this address would make their page a part of this site.
    """
    return "*" in hosts or host_name(host) in hosts | LOOPBACK


def is_address(host: str) -> bool:
    """Return whether a Host header holds an IP address, which nobody can resolve to another one."""
    try:
        ipaddress.ip_address(host_name(host))
    except ValueError:
        return False
    return True


def host_name(host: str) -> str:
    """Return the name in a Host header without its port; '' if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
