"""A browser without a screen: asks a Flower for pages, keeps cookies, reads links, forms and text."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from tests.redis_server import free_port

START_S: Final = 40.0


class Reply(HTMLParser):
    """An answer of Flower, with what a person would see of it."""

    def __init__(self, status: int, headers: dict[str, str], body: str) -> None:
        super().__init__()
        self.status = status
        self.headers = headers
        self.body = body
        self.links: list[str] = []
        self.fields: dict[str, str] = {}
        """Names and values of the inputs of forms."""
        self.methods: list[str] = []
        """How each form is sent."""
        self.tags: list[str] = []
        self._words: list[str] = []
        self.feed(body)

    @property
    def text(self) -> str:
        """The words between the tags."""
        return " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if tag == "a":
            self.links.append(given.get("href", ""))
        elif tag == "form":
            self.methods.append(given.get("method", "get").lower())
        elif tag == "input" and "name" in given:
            self.fields[given["name"]] = given.get("value", "")

    def handle_data(self, data: str) -> None:
        self._words.append(data)


class Browser:
    """Asks one Flower."""

    def __init__(self, port: int, **headers: str) -> None:
        self.port = port
        self._headers = headers
        self._cookie = ""

    def get(self, path: str, **headers: str) -> Reply:
        return self._ask("GET", path, None, headers)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Reply:
        return self._ask("POST", path, urlencode(fields), headers)

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Cookie": self._cookie} if self._cookie else {}
        sent |= {name.replace("_", "-"): value for name, value in (self._headers | headers).items()}
        if body is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            text = answer.read().decode()
        finally:
            connection.close()
        if "_xsrf=" in found.get("set-cookie", ""):
            self._cookie = found["set-cookie"].partition(";")[0]
        return Reply(answer.status, found, text)


@contextmanager
def running_flower(redis_url: str, namespace: str, home: Path, *words: str, **settings: str) -> Iterator[int]:
    """Run Flower as users do, and yield its port; stopped by pid."""
    port = free_port()
    command = [sys.executable, "-m", "celery", "-A", "batchling_worker", "flower", f"--port={port}"]
    with (home / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--address=127.0.0.1", *words],
            env=environment(redis_url, namespace, home) | settings,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                if Browser(port).get("/").status:
                    break
            except OSError:
                ended = process.poll() is not None or time.monotonic() > deadline
                assert not ended, (home / "flower.log").read_text()
                time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait(10)


def environment(redis_url: str, namespace: str, home: Path) -> dict[str, str]:
    """Return the environment of a Flower for one namespace."""
    return {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BATCHLING_", "FLOWER_"))
        },
        "BATCHLING_REDIS_URL": redis_url,
        "BATCHLING_NAMESPACE": namespace,
        "BATCHLING_HOME": str(home / "home"),
    }
