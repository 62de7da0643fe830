"""Puts the pages into the Flower that `celery -A batchling_worker flower` starts."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any, Final

import flower.command
from tornado.web import StaticFileHandler, url

from ..settings import DashboardSettings
from . import handlers
from .deployment import Deployment
from .loader import NAVBAR, Loader, UnknownFlower
from .page import LOOPBACK, WrongHost, is_address, is_known

STATIC: Final = Path(__file__).parent / "static"
USAGE: Final = 2
ID: Final = r"([A-Za-z0-9_-]{1,64})"
OPEN: Final = (
    "Flower would be open to other machines without a login: start it with --address=127.0.0.1, or with a login "
    "(--basic-auth=NAME:PASSWORD or --auth), or set BATCHLING_FLOWER_WITHOUT_LOGIN=true if what is in front of it "
    "asks for one.\n"
)
PAGES: Final = (
    (r"/batchling", handlers.OverviewPage, "batchling"),
    (r"/batches", handlers.BatchesPage, "batchling-batches"),
    (rf"/batch/{ID}", handlers.BatchPage, "batchling-batch"),
    (rf"/batch/{ID}/(cancel|retry)", handlers.SteerPage, "batchling-steer"),
    (r"/batches/(cancel|retry)", handlers.BulkPage, "batchling-bulk"),
    (rf"/failures/{ID}", handlers.FailuresPage, "batchling-failures"),
    (r"/find", handlers.FindPage, "batchling-find"),
    (r"/lanes", handlers.LanesPage, "batchling-lanes"),
    (r"/lanes/(pause|resume)", handlers.PausePage, "batchling-pause"),
    (r"/runs", handlers.RunsPage, "batchling-runs"),
)


def install(settings: DashboardSettings) -> None:
    """Make the command `flower` of this process serve the pages."""
    deployment = Deployment(settings.redis_url, settings.namespace)
    named = frozenset(one.strip().lower() for one in settings.flower_hosts.split(",") if one.strip())
    plain = flower.command.Flower

    class FlowerWithPages(plain):  # type: ignore[misc, valid-type]  # Flower has no types
        """Flower with one more entry in its navigation bar."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["template_loader"] = loader = Loader(Path(kwargs["template_path"]))
            kwargs["xsrf_cookies"] = True
            try:
                loader.load(NAVBAR)
            except UnknownFlower as lacking:
                sys.stderr.write(f"{lacking} Install the Flower that `batchling[worker]` names.\n")
                raise SystemExit(USAGE) from None
            super().__init__(*args, **kwargs)
            prefix = f"/{self.options.url_prefix.strip('/')}" if self.options.url_prefix else ""
            self.hosts = named | {self.options.address} - {""}
            given = {"deployment": deployment, "hosts": self.hosts}
            self.add_handlers(
                ".*",
                [
                    *(url(f"{prefix}{path}", handler, given, name=name) for path, handler, name in PAGES),
                    url(
                        rf"{prefix}/batchling/static/(.*)",
                        StaticFileHandler,
                        {"path": str(STATIC)},
                        name="batchling-static",
                    ),
                ],
            )

        def find_handler(self, request: Any, **kwargs: Any) -> Any:
            # Flower's own pages name models and batches, too. A monitor may ask for metrics by address.
            if is_known(request.host, self.hosts) or is_address(request.host):
                return super().find_handler(request, **kwargs)
            return self.get_handler_delegate(request, WrongHost)

        def start_http_server(self) -> Any:
            if not settings.flower_without_login and is_open(self.options):
                sys.stderr.write(OPEN)
                raise SystemExit(USAGE)
            # A full collection over all that Flower has imported would hold up its loop for 50 ms, again and again.
            gc.collect()
            gc.freeze()
            return super().start_http_server()

    flower.command.Flower = FlowerWithPages


def is_open(options: Any) -> bool:
    """Return whether Flower listens beyond loopback without a login of its own."""
    if options.basic_auth or options.auth or options.unix_socket:
        return False
    return options.address not in LOOPBACK
