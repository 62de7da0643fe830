"""A whole deployment for tests: a real Redis, real Celery workers, the sandbox over HTTP; all are stopped by pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from redis.asyncio import Redis

from batchling_client.operate import seal_keys
from batchling_client.wire import version_1
from batchling_client.wire.deployment import seal_key_files
from batchling_client.wire.deployment.connection import UNREACHABLE, connect
from batchling_client.wire.ids import new_batch_id, new_mailbox, new_request_id, new_run_id
from batchling_client.wire.keys import BatchId, Keys, RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import LaneSpec, Result, Row, line_bytes
from batchling_client.wire.routes import Routes
from batchling_client.wire.row_cipher import RowCipher
from batchling_client.wire.scripts import BatchCap, RowIn, Scripts
from batchling_client.wire.states import Verdict
from batchling_worker.sandbox import Sandbox
from batchling_worker.stack.redis_binary import find

from . import sealed
from .crash_points import VARIABLE
from .forks import Forks
from .form import Ability, form_of, names
from .sealed import Opener, root_of
from .waiting import wait_until

CANARY = "gsk-CANARY-0f3b9c7e1d"
MODEL = "llama-3.1-8b-instant"
ENQUEUED_AT_ONCE = 128
UNTIL_THE_LAST_MS = 60_000
"""Seconds that an incomplete batch lingers: with less, a worker on a busy machine would seal it between two calls."""
SLOW_MODEL = "openai/gpt-oss-20b"


@dataclass(slots=True)
class Deployment:
    """One namespace on its own Redis; `worker()` starts a Celery worker process."""

    home: Path
    sandbox: Sandbox
    env: dict[str, str] = field(default_factory=dict)
    redis_process: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    forks: Forks | None = None
    forked: list[int] = field(default_factory=list)
    redis: Redis = field(init=False)
    keys: Keys = field(init=False)
    scripts: Scripts = field(init=False)

    @property
    def url(self) -> str:
        return f"unix://{self.home}/redis.sock"

    async def __aenter__(self) -> Self:
        await self.start_redis()
        self.redis = connect(self.url)
        self.keys = Keys("default")
        self.scripts = Scripts(self.redis, self.keys)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BATCHLING_")},
            "BATCHLING_REDIS_URL": self.url,
            "BATCHLING_HOME": str(self.home),
            "BATCHLING_LEASE_SECONDS": "1",
            "BATCHLING_TICK_SECONDS": "0.05",
            "BATCHLING_POLL_INTERVAL_SECONDS": "0.1",
            "BATCHLING_RECONCILE_PATIENCE_SECONDS": "1.5",
            "BATCHLING_RESULTS_PATIENCE_SECONDS": "2",
            **self.sandbox.settings(),
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            kill(worker)
        for pid in self.forked:
            self.kill_fork(pid)
        await self.redis.aclose()
        if self.redis_process is not None:
            stop(self.redis_process)

    async def start_redis(self) -> None:
        """Start Redis with the embedded stack's durability: AOF, noeviction."""
        (self.home / "redis").mkdir(exist_ok=True)
        command = [find(os.environ["PATH"]), "--port", "0", "--unixsocket", f"{self.home}/redis.sock"]
        command += [
            "--dir",
            f"{self.home}/redis",
            "--appendonly",
            "yes",
            "--save",
            "",
            "--maxmemory-policy",
            "noeviction",
        ]
        with (self.home / "redis.log").open("ab") as log:
            self.redis_process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        probe = connect(self.url)

        async def answers() -> bool:
            try:
                return bool(await probe.execute_command("PING"))
            except UNREACHABLE:
                return False

        await wait_until(answers, description="Redis answers")
        await probe.aclose()

    def worker(
        self,
        *,
        pool: str = "threads",
        app: str = "batchling_worker",
        crash_at: str = "",
        messages: str = "",
        options: str = "--without-mingle --without-gossip",
        **settings: str,
    ) -> subprocess.Popen[bytes]:
        """Start a worker; settings are names without prefix, such as `lease_seconds`.

        `crash_at` = the point at which it dies; `messages` = `dropped` or `doubled`; without `options` it talks to
        other workers, as Celery's do by default.
        """
        name = f"w{len(self.workers)}"
        env = {**self._environment(settings), VARIABLE: crash_at, "TEST_MESSAGES": messages}
        if crash_at or messages:
            app = "tests.failing_worker"
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "--pool", pool]
        command += ["--concurrency", "2", "-n", f"{name}@test", "-l", "INFO"]
        command += options.split()
        with (self.home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        self.workers.append(process)
        return process

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        return {**self.env, **{f"BATCHLING_{name.upper()}": value for name, value in settings.items()}}

    def fork(self, *, crash_at: str = "", **settings: str) -> int:
        """Start a worker without Celery, which takes milliseconds; return its pid."""
        assert self.forks is not None
        env = {**self._environment(settings), VARIABLE: crash_at}
        pid = self.forks.start(env, self.home / f"w-fork{len(self.forked)}.log")
        self.forked.append(pid)
        return pid

    def kill_fork(self, pid: int) -> None:
        """Send kill -9 to a forked worker."""
        assert self.forks is not None
        self.forks.kill(pid)

    async def fork_died(self, pid: int, *, within_s: float = 30.0) -> int:
        """Wait until a forked worker has ended, and return its exit code."""
        forks = self.forks
        assert forks is not None
        await wait_until(
            lambda: forks.exit_code(pid) is not None, description="the worker died", within_s=within_s
        )
        return forks.exit_code(pid) or 0

    async def is_due(self, batch_id: BatchId) -> bool:
        """Return whether a batch is free, so that a worker may step it now."""
        look_at = await self.redis.zscore(self.keys.schedule, batch_id)
        seconds, micros = await self.redis.execute_command("TIME")
        return look_at is not None and look_at <= int(seconds) * 1000 + int(micros) // 1000

    async def room_is_taken(self) -> None:
        """Wait for a batch in progress, which counts against a quota: of two created at once, either may be first."""
        await wait_until(
            lambda: any(batch["status"] == "in_progress" for batch in self.sandbox.batches()),
            description="a batch is in progress",
        )

    async def due(self) -> None:
        """Make every batch due now."""
        for batch in await self.batches():
            await self.redis.execute_command("ZADD", self.keys.schedule, "XX", 0, batch.batch_id)

    async def forge(self, place: int, how: Callable[[bytes], bytes]) -> None:
        """Change a packed row of the only batch, in Redis."""
        [batch] = await self.batches()
        rows = self.keys.rows(batch.batch_id)
        packed = await self.redis.execute_command("LINDEX", rows, place)
        await self.redis.execute_command("LSET", rows, place, how(packed))

    async def replace_body(self, place: int, body: bytes) -> None:
        """Replace the body of a row of the only batch."""

        def repacked(packed: bytes) -> bytes:
            row = Row.decode(packed)
            return Row.pack(
                request_id=row.request_id,
                run_id=row.run_id,
                body=body,
                lane_id=batch.lane_id,
                cipher=cipher,
            )

        [batch] = await self.batches()
        cipher = await self.opener.cipher(batch.spec.fingerprint)
        await self.forge(place, repacked)

    async def told(self) -> dict[str, int]:
        """Return how often each request was announced to its waiters."""
        times: Counter[str] = Counter()
        async for mailbox in self.redis.scan_iter(match=self.keys.mailbox("*")):
            entries: Any = await self.redis.xrange(mailbox)
            for _, fields in entries:
                times.update(fields[b"ids"].decode().split())
        return dict(times)

    async def hurry(self) -> None:
        """Make batches that are due much later due now, and end the pauses of accounts.

        A batch due within a lease's length plus a second may be claimed, so it is left to its worker.
        """
        now_s, _ = await self.redis.execute_command("TIME")
        now_ms = int(now_s) * 1000
        leased_until = now_ms + 1000 + 1000 * float(self.env["BATCHLING_LEASE_SECONDS"])
        async for circuit in self.redis.scan_iter(match=self.keys.circuit("*")):
            if int(await self.redis.execute_command("HGET", circuit, "until") or 0) > leased_until:
                await self.redis.execute_command("HSET", circuit, "until", now_ms)
        looks: Any = await self.redis.zrange(self.keys.schedule, 0, -1, withscores=True)
        for name, score in looks:
            if score > leased_until:
                await self.redis.execute_command("ZADD", self.keys.schedule, "XX", 0, name)

    def worker_logs(self) -> str:
        """Return the log of all workers so far."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.home.glob("w*.log")))

    async def ask(
        self,
        n: int,
        *,
        provider: str = "groq",
        model: str | None = None,
        prompts: Sequence[str] = (),
        linger_ms: int = 50,
        rows: int = 50_000,
        headers: Mapping[str, str] | None = None,
        endpoint: str | None = None,
        again: Sequence[RequestId] = (),
    ) -> list[RequestId]:
        """Enqueue n requests as a client does, or one per prompt if prompts are given; `again`: enqueue these."""
        route, form = Routes().named(provider), form_of(provider)
        assert route is not None
        model = form.model if model is None else model
        credential = dict(headers or route.credential(form.key(CANARY)))
        is_first = self.keys.version == version_1.VERSION
        root = await root_of(self.redis, self.keys, credential)
        spec = LaneSpec(
            provider=provider,
            host=route.hosts[0].replace("*", "eu-1"),
            endpoint=endpoint or form.endpoint,
            model=model,
            fingerprint=version_1.fingerprint(credential) if is_first else root.fingerprint,
            completion_window="24h",
        )
        public, _ = seal_key_files.stored_pair(self.home)
        if is_first:
            place = self.keys.credential(version_1.credential_names(spec.fingerprint, provider)[0])
            await self.redis.set(place, version_1.seal(credential, public), ex=3600)
        else:
            await sealed.store(self.redis, self.keys, root, credential, public, spec)
        run_id, mailbox = new_run_id(), new_mailbox()
        ids = list(again) or [new_request_id() for _ in range(n)]
        incoming = []
        for i, request_id in enumerate(ids):
            prompt = prompts[i] if prompts else f"question {i}"
            body = form.body(prompt, model)
            packed = Row.pack(
                request_id=request_id,
                run_id=run_id,
                body=body,
                lane_id=spec.lane_id,
                cipher=None if is_first else root.cipher(),
            )
            incoming.append(RowIn(request_id=request_id, packed=packed, size=line_bytes(body)))
        guess = new_batch_id()
        while incoming:
            wait_ms = linger_ms if len(incoming) <= ENQUEUED_AT_ONCE else UNTIL_THE_LAST_MS
            cap = BatchCap(rows=rows, bytes=200 * 1024 * 1024, linger_ms=wait_ms, longest_ms=15 * wait_ms)
            reply = await self.scripts.enqueue(
                batch_id=guess,
                lane_id=spec.lane_id,
                spec=spec.encode(),
                mailbox=mailbox,
                run_id=run_id,
                run_name="test",
                cap=cap,
                poll_ms=100,
                keep_ms=3_600_000,
                ask_failed_anew=True,
                rows=incoming[:ENQUEUED_AT_ONCE],
            )
            if reply.verdict is Verdict.OK:
                incoming = incoming[len(reply.placements) :]
                if len(reply.placements) == ENQUEUED_AT_ONCE:
                    continue
            guess = reply.open_batch or new_batch_id()
        return ids

    async def results(self, ids: Sequence[RequestId]) -> list[Result | None]:
        """Return the stored results; None for a request without one."""
        raw = await self.redis.execute_command("MGET", *(self.keys.result(request_id) for request_id in ids))
        return [
            None if value is None else Result.decode(value, one, await self._cipher_of(value))
            for one, value in zip(ids, raw, strict=True)
        ]

    async def _cipher_of(self, packed: bytes) -> RowCipher | None:
        if self.keys.version == version_1.VERSION:
            return None
        return await self.opener.cipher(Result.fingerprint_of(packed))

    @property
    def opener(self) -> Opener:
        """Opens rows and results with the deployment's private seal key."""
        seal_key_files.stored_pair(self.home)
        return Opener(self.redis, self.keys, seal_keys.stored(self.home))

    async def answered(
        self, ids: Sequence[RequestId], *, within_s: float = 90.0, hurried: bool = False
    ) -> list[Result]:
        """Wait until each request has its result; `hurried` skips longer pauses."""
        found: list[Result | None] = []

        async def complete() -> bool:
            nonlocal found
            if hurried:
                await self.hurry()
            found = await self.results(ids)
            return all(result is not None for result in found)

        await wait_until(complete, description=f"{len(ids)} answers", within_s=within_s)
        return [result for result in found if result is not None]

    async def batches(self) -> list[Batch]:
        """Return all batches, oldest first."""
        ids = await self.redis.execute_command("ZRANGE", self.keys.batches, 0, -1)
        found = []
        for batch_id in ids:
            fields = await self.redis.execute_command("HGETALL", self.keys.batch(BatchId(batch_id.decode())))
            found.append(Batch.decode(fields))
        return found

    async def settled(self, *, within_s: float = 30.0) -> list[Batch]:
        """Wait until every batch is terminal."""
        found: list[Batch] = []

        async def complete() -> bool:
            nonlocal found
            found = await self.batches()
            return bool(found) and all(batch.state.terminal for batch in found)

        await wait_until(complete, description="every batch is terminal", within_s=within_s)
        return found

    def billed(self) -> dict[str, int]:
        """Return how often the provider ran each custom_id."""
        times: dict[str, int] = {}
        for row in self.sandbox.ledger().rows:
            times[row.custom_id] = times.get(row.custom_id, 0) + 1
        return times

    async def died(self, worker: subprocess.Popen[bytes], *, within_s: float = 30.0) -> int:
        """Wait until a worker process has ended, and return its exit code."""
        return await asyncio.wait_for(asyncio.to_thread(worker.wait), within_s)


def in_turn(cases: Iterable[str]) -> list[tuple[str, str]]:
    """Pair each case with one provider, in turn: not every provider needs to run every case."""
    able = names(Ability.OPENAI_FILES)
    return [(case, able[n % len(able)]) for n, case in enumerate(cases)]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process by its pid, with SIGTERM first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Send kill -9 to a worker and its pool children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)
