"""Variables of other Celery and Django programs in the environment change nothing for batchling's processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from batchling_worker.runtime import foreign_settings
from tests.redis_server import redis_server

from ..waiting import wait_until

NOWHERE: Final = "redis://:their-password@127.0.0.1:1/0"
THEIRS: Final = {
    "BROKER_URL": NOWHERE,
    "CELERY_BROKER_URL": NOWHERE,
    "CELERY_BROKER_READ_URL": NOWHERE,
    "CELERY_BROKER_WRITE_URL": NOWHERE,
    "CELERY_CONFIG_MODULE": "their_celeryconfig",
    "CELERY_LOADER": "their.loader:Loader",
    "CELERY_RESULT_BACKEND": NOWHERE,
    "CELERY_TASK_ALWAYS_EAGER": "true",
    "CELERY_WORKER_QUEUES": "theirs",
    "CELERY_WORKER_TIME_LIMIT": "1",
    "DJANGO_SETTINGS_MODULE": "their_project.settings",
}
THEIR_CONFIG: Final = """
broker_url = result_backend = "redis://:their-password@127.0.0.1:1/0"
task_always_eager = True
imports = ["their_tasks"]
"""
CONF: Final = "broker_url broker_read_url broker_write_url result_backend task_always_eager imports"


def environment(home: Path, url: str) -> dict[str, str]:
    """A developer's shell beside a Django project that uses Celery."""
    theirs = home / "theirs"
    django = theirs / "django"
    (django / "utils").mkdir(parents=True)
    for package in (django, django / "utils"):
        (package / "__init__.py").touch()
    (django / "utils" / "functional.py").write_text("class Promise: pass\n")  # kombu looks for it
    (django / "conf.py").write_text("raise RuntimeError('their Django is set up')\n")
    (theirs / "their_celeryconfig.py").write_text(THEIR_CONFIG)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BATCHLING_")}
    return {
        **kept,
        **THEIRS,
        "PYTHONPATH": str(theirs),
        "BATCHLING_HOME": str(home),
        "BATCHLING_REDIS_URL": url,
    }


def test_a_broker_of_others_is_ignored_with_one_sentence() -> None:
    around = {**THEIRS, "CELERY_LOG_LEVEL": "10", "CELERY_WORKER_CONCURRENCY": "3", "PATH": "/bin"}

    said = foreign_settings.leave_out(around)

    assert set(around) == {
        "CELERY_LOG_LEVEL",
        "CELERY_WORKER_CONCURRENCY",
        "DJANGO_SETTINGS_MODULE",
        "PATH",
    }
    assert said is not None
    assert said.startswith("batchling ignores BROKER_URL, CELERY_BROKER_READ_URL, CELERY_BROKER_URL")
    assert "their-password" not in said


@pytest.mark.parametrize("around", [{}, {"CELERY_RESULT_BACKEND": NOWHERE}, {"CELERY_BROKER_URL": ""}])
def test_nothing_is_said_where_no_broker_is_named(around: dict[str, str]) -> None:
    assert foreign_settings.leave_out(around) is None
    assert around == {}


def test_the_app_is_configured_by_its_own_settings_alone(tmp_path: Path) -> None:
    ask = f"from batchling_worker.celery import app; print(*(getattr(app.conf, n) for n in {CONF.split()}), sep='|')"
    url = "redis://127.0.0.1:2/0"

    asked = subprocess.run(
        [sys.executable, "-c", ask], env=environment(tmp_path, url), capture_output=True, text=True
    )

    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip() == f"{url}|{url}|{url}|None|False|()"
    assert asked.stderr.count("batchling ignores") == 1


@pytest.mark.long
async def test_worker_and_commands_meet_at_the_redis_of_the_settings(tmp_path: Path) -> None:
    celery = [sys.executable, "-m", "celery", "-A", "batchling_worker"]
    with redis_server() as url, (tmp_path / "log").open("wb") as log:
        env = environment(tmp_path, url)
        words = ["worker", "--pool", "threads", "--concurrency", "1", "-n", "w@here", "-l", "INFO"]
        worker = subprocess.Popen([*celery, *words], env=env, stdout=log, stderr=log)
        try:
            await wait_until(
                lambda: b"w@here ready" in (tmp_path / "log").read_bytes(),
                description="the worker is ready",
                within_s=40,
            )
            ping = subprocess.run(
                [*celery, "inspect", "ping", "-t", "20", "-d", "w@here"],
                env=env,
                capture_output=True,
                text=True,
            )
        finally:
            worker.terminate()
            worker.wait(20)

    assert "pong" in ping.stdout, ping.stdout + ping.stderr
    assert b"127.0.0.1:1" not in (tmp_path / "log").read_bytes()
