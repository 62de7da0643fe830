"""What the pages use of Flower is there: a new Flower that lacks it is named here, by what it lacks."""

from __future__ import annotations

from pathlib import Path

import flower.command
import flower.views
import pytest
from flower.options import default_options
from tornado.web import Application, RequestHandler

from batchling_worker.pages.loader import UnknownFlower, with_entry

TEMPLATES = Path(flower.__file__).parent / "templates"


def test_a_flower_that_lacks_what_the_pages_use_is_named_by_it() -> None:
    missing = []
    if not issubclass(getattr(flower.command, "Flower", object), Application):
        missing.append("flower.command.Flower")
    if not hasattr(getattr(flower.command, "Flower", None), "start_http_server"):
        missing.append("flower.command.Flower.start_http_server")
    if not issubclass(getattr(flower.views, "BaseHandler", object), RequestHandler):
        missing.append("flower.views.BaseHandler")
    base = (TEMPLATES / "base.html").read_text()
    missing += [f"base.html: {name}" for name in ("title", "navbar", "container", "extra_scripts")
                if f"{{% block {name} %}}" not in base]  # fmt: skip
    names = ("address", "auth", "basic_auth", "read_only", "unix_socket", "url_prefix")
    missing += [f"option {name}" for name in names if name not in default_options]
    try:
        with_entry((TEMPLATES / "navbar.html").read_text())
    except UnknownFlower as lacking:
        missing.append(str(lacking))

    assert missing == []


def test_a_navigation_bar_without_a_place_for_the_entry_is_refused() -> None:
    with pytest.raises(UnknownFlower, match="navbar"):
        with_entry("<ul></ul>")
