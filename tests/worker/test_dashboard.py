"""The dashboard has no key: neither in its settings, nor in its app, nor in its environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from batchling_client.wire.deployment import seal_key_files
from batchling_worker.app import make_app, make_dashboard
from batchling_worker.settings import DashboardSettings, WorkerSettings, load_dashboard, of_dashboard
from batchling_worker.stack.layout import Layout
from batchling_worker.stack.recipes import Recipes
from tests.stack.bench import Bench
from tests.stack.conftest import bench

__all__ = ["bench"]

CANARY = "sk-CANARY-5b1e"
KEYS = {
    "BATCHLING_SEAL_PRIVATE_KEY": CANARY,
    "BATCHLING_SEAL_PRIVATE_KEY_FILE": CANARY,
    "BATCHLING_ACCOUNT_SECRET": CANARY,
    "BATCHLING_PROVIDERS__GROQ__API_KEY": CANARY,
    "BATCHLING_PROVIDERS__GROQ__HEADERS": f'{{"x": "{CANARY}"}}',
    "OPENAI_API_KEY": CANARY,
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "MY_COMPANYS_PASSWORD": CANARY,
}


def test_its_settings_hold_no_key_whatever_the_environment_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BATCHLING_REDIS_URL", "redis://h")
    # A file that cannot be read would be refused, if it was read.
    monkeypatch.setenv("BATCHLING_PROVIDERS__GROQ__API_KEY_FILE", "/no/such/file")

    settings = load_dashboard()

    assert settings.redis_url == "redis://h"
    assert CANARY not in repr(settings.model_dump())
    secret = {
        name for name, one in WorkerSettings.model_fields.items() if SecretStr in _kinds(one.annotation)
    }
    assert secret
    assert not {*secret, "providers"} & set(DashboardSettings.model_fields)


def _kinds(annotation: object) -> set[object]:
    return {annotation, *getattr(annotation, "__args__", ())}


def test_its_app_needs_no_seal_key(tmp_path: Path) -> None:
    seal_key_files.stored_pair(tmp_path)
    (tmp_path / "keys" / seal_key_files.PRIVATE_FILE).chmod(0o644)
    where: dict[str, Any] = {"redis_url": "redis://127.0.0.1:1", "home": tmp_path}

    app = make_dashboard(DashboardSettings(**where))

    assert not hasattr(app, "parts")
    with pytest.raises(ValueError, match="others can read"):
        make_app(WorkerSettings(**where))


def test_the_stack_hands_it_what_it_needs_and_no_key(tmp_path: Path) -> None:
    needs = {name: "1" for name in of_dashboard() if not name.endswith("_FILE")} | {
        "PATH": "/bin",
        "FLOWER_DEBUG": "1",
    }
    recipes = Recipes(Layout(tmp_path), tmp_path / "redis.sock", {**KEYS, **needs})

    assert set(needs) == set(recipes.flower(None).environment)
    assert set(KEYS) < set(recipes.worker().environment)


@pytest.mark.long
async def test_the_environment_of_a_running_dashboard_holds_no_key(bench: Bench) -> None:
    stack = bench.up(flower=True, OPENAI_API_KEY=CANARY, BATCHLING_PROVIDERS__GROQ__API_KEY=CANARY)
    assert stack.flower
    assert stack.worker

    assert CANARY in psutil.Process(stack.worker.pid).environ().values()
    assert CANARY not in psutil.Process(stack.flower.pid).environ().values()
    assert os.environ.get("PATH") == psutil.Process(stack.flower.pid).environ()["PATH"]
