"""Messages are read as data and never run: the worker drops a message that is not our JSON, and continues."""

from __future__ import annotations

import ast
import base64
import json
import os
import pickle
from pathlib import Path

import pytest

from batchling_worker.app import make_app
from batchling_worker.runtime import tasks
from batchling_worker.runtime.wire_versions import queue_of
from batchling_worker.settings import WorkerSettings
from tests.deployment import Deployment

PACKAGES = Path(__file__).resolve().parents[2]
RUNS_DATA = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle"}
RUNS_PROGRAMS = "run_script.py"
"""Where `batchling run` runs the script or module that a person named on the command line."""


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


async def test_a_pickled_message_is_thrown_away_unread(deployment: Deployment, tmp_path: Path) -> None:
    trap = tmp_path / "unpickled"
    bomb = pickle.dumps(((), {"batch_id": Bomb(trap)}, {}))
    app = make_app(WorkerSettings(redis_url=deployment.url, home=deployment.home))
    foreign = [
        (bomb, "application/x-python-serialize", "binary", tasks.SUBMIT),
        (base64.b64encode(bomb), "application/json", "utf-8", tasks.POLL),
        (json.dumps([["b-none", 1], {}, {}]).encode(), "application/json", "utf-8", "os.system"),
        (json.dumps([[{"b": 1}, "x", "y", "z"], {}, {}]).encode(), "application/json", "utf-8", tasks.SUBMIT),
        (json.dumps([[[["b-none"]]], {}, {}]).encode(), "application/json", "utf-8", tasks.POLL),
        (b"\xff\x00", "application/json", "utf-8", tasks.SETTLE),
        (b"[", "application/x-yaml", "utf-8", tasks.COLLECT),
    ]
    with app.connection_for_write() as connection:
        producer = connection.Producer()
        for n, (payload, kind, encoding, task) in enumerate(foreign):
            headers = {"task": task, "id": f"foreign-{n}", "lang": "py"}
            producer.publish(
                payload,
                routing_key=queue_of(1),
                content_type=kind,
                content_encoding=encoding,
                headers=headers,
            )
    worker = deployment.worker()

    results = await deployment.answered(await deployment.ask(20))

    assert {result.status for result in results} == {200}
    assert worker.poll() is None
    assert not trap.exists()
    log = deployment.worker_logs()
    assert log.count("message_dropped") == len(foreign)


@pytest.mark.parametrize("package", ["batchling_client", "batchling_worker"])
def test_nothing_of_ours_can_run_what_it_reads(package: str) -> None:
    for file in (PACKAGES / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.module if isinstance(node, ast.ImportFrom) else None
                names = {module or "", *(alias.name for alias in node.names)}
                assert not {name.partition(".")[0] for name in names} & RUNS_DATA, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                runs_programs = file.name == RUNS_PROGRAMS and node.func.id == "exec"
                assert runs_programs or node.func.id not in {"eval", "exec", "compile"}, (
                    f"{file}:{node.lineno}"
                )
