"""Finds templates: batchling's own, else Flower's, whose navigation bar gets one more entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tornado.escape import to_unicode, xhtml_escape
from tornado.template import BaseLoader, Template

from batchling_client.wire.shown import lines

HTML: Final = Path(__file__).parent / "html"
NAVBAR: Final = "navbar.html"
MARK: Final = '<ul class="app-nav navbar-nav">'
"""Behind this text of Flower's navigation bar the entry is inserted."""
ENTRY: Final = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'batchling' %} active{% end %}"
            href="{{ reverse_url('batchling') }}"
            {% if active_tab == 'batchling' %}aria-current="page"{% end %}>Batches</a>
        </li>"""


class UnknownFlower(RuntimeError):
    """This Flower lacks a name or a text that the pages of batches build on."""


class Loader(BaseLoader):
    """Reads templates from batchling's folder and from Flower's."""

    def __init__(self, of_flower: Path) -> None:
        # Templates find the function that escapes what they show under this name, Flower's own too.
        super().__init__(namespace={"xhtml_escape": escaped})
        self._of_flower = of_flower

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """Return the name: none is relative to another."""
        return name

    def _create_template(self, name: str) -> Template:
        own = HTML / name
        text = (own if own.is_file() else self._of_flower / name).read_text()
        return Template(with_entry(text) if name == NAVBAR else text, name=name, loader=self)


def escaped(value: str | bytes) -> str:
    """Return a value for a page: without markup, and without characters that turn the direction of writing."""
    return xhtml_escape(lines(to_unicode(value)))


def with_entry(navbar: str) -> str:
    """Return Flower's navigation bar with the entry of the pages; raise `UnknownFlower` if it has no place for it."""
    if navbar.count(MARK) != 1:
        raise UnknownFlower(f"{NAVBAR} of this Flower does not have {MARK!r} once.")
    return navbar.replace(MARK, MARK + ENTRY)


def namespace_of(functions: Any) -> dict[str, Any]:
    """Return the public functions of a module, as templates use them."""
    return {
        name: value for name, value in vars(functions).items() if not name.startswith("_") and callable(value)
    }
