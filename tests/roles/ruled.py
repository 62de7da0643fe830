"""A deployment whose Redis has a user for each role, and no other user that may do anything but the test's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from batchling_client.operate.redis_roles import RedisUser, Role
from batchling_client.wire.deployment.connection import UNREACHABLE, connect
from batchling_worker.stack import redis_binary
from tests.deployment import Deployment
from tests.redis_server import free_port
from tests.waiting import wait_until

TEST: Final = "user default off\nuser test on >test ~* &* +@all\n"
SELECTORS: Final = (7, 0)
"""The first Redis whose users may have selectors."""
SERVERS: Final = ("packaged", "on-path")


def server(which: str) -> Path:
    """Return the packaged server, or the redis-server on PATH; skip the test where there is none."""
    if which == "packaged":
        return redis_binary.find(os.environ["PATH"])
    path = shutil.which("redis-server")
    if path is None:
        pytest.skip("no redis-server on PATH: only the packaged server is tried")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v=(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < SELECTORS:
        pytest.skip(f"{said.strip()} has no selectors: Redis or Valkey 7.0 is the first that has")
    return Path(path)


@dataclass(slots=True)
class Users:
    """Redis on a loopback port with an ACL file; `at(role)` is the URL of a role's user."""

    home: Path
    which: str = SERVERS[0]
    namespace: str = "default"
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        """The URL of a user that may do everything, for the test itself."""
        return f"redis://test:test@127.0.0.1:{self.port}/0"

    def at(self, role: Role) -> str:
        return f"redis://{role}:{role}@127.0.0.1:{self.port}/0"

    async def start(self) -> subprocess.Popen[bytes]:
        """Start Redis with the users of all roles, each with its role for a name and password."""
        users = [RedisUser(role=role, name=role, namespace=self.namespace, password=role) for role in Role]
        acl = self.home / "users.acl"
        acl.write_text(TEST + "".join(f"{user.line()}\n" for user in users), encoding="ascii")
        (self.home / "redis").mkdir()
        command = [str(server(self.which)), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", f"{self.home}/redis", "--appendonly", "yes", "--save", "", "--aclfile", str(acl)]
        command += ["--maxmemory-policy", "noeviction"]
        with (self.home / "redis.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        probe = connect(self.url)

        async def answers() -> bool:
            assert process.poll() is None, (self.home / "redis.log").read_text()
            try:
                return bool(await probe.execute_command("PING"))
            except UNREACHABLE:
                return False

        await wait_until(answers, description="Redis answers")
        await probe.aclose()
        return process


async def denials(redis: Redis) -> Counter[tuple[str, str, str, str]]:
    """Return what Redis refused so far: user, reason, context and object, with how often."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    for entry in await redis.execute_command("ACL", "LOG", 128):
        told = entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))
        words = {_text(name): _text(value) for name, value in told.items()}
        place = (words["username"], words["reason"], words["context"], words["object"])
        found[place] += int(words["count"])
    return found


@dataclass(slots=True)
class Ruled(Deployment):
    """A deployment on a Redis with users; the test itself may do everything."""

    which: str = SERVERS[0]
    users: Users = field(init=False)

    @property
    def url(self) -> str:
        return self.users.url

    def at(self, role: Role) -> str:
        return self.users.at(role)

    async def start_redis(self) -> None:
        """Start Redis with the users of all roles."""
        self.users = Users(home=self.home, which=self.which)
        self.redis_process = await self.users.start()


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
