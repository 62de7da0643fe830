"""What Redis refuses is reported as such, in one sentence, to callers, commands, workers and the pages."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from batchling_client.operate.connect import unreachable
from batchling_client.operate.redis_roles import Role
from batchling_client.wire.deployment import redis_errors, redis_health, salt
from batchling_client.wire.deployment.connection import connect, user_of
from batchling_client.wire.keys import Keys
from tests.cli.command import batchling, clean_environment
from tests.deployment import CANARY, stop
from tests.pages.browser import Browser, running_flower

from .ruled import Users
from .test_paths import called

FAR: Final = "redis://10.1.2.3:6379/0"


@pytest.fixture
async def users() -> AsyncIterator[Users]:
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        found = Users(home=Path(home))
        process = await found.start()
        try:
            yield found
        finally:
            stop(process)


def environment(users: Users, url: str) -> dict[str, str]:
    return {
        **clean_environment(),
        "BATCHLING_HOME": str(users.home / "home"),
        "BATCHLING_REDIS_URL": url,
        "GROQ_API_KEY": CANARY,
    }


ANSWERS: Final[dict[str, tuple[RedisError, str]]] = {
    "NOPERM command": (
        NoPermissionError("User x has no permissions to run the 'config|get' command"),
        "CONFIG GET",
    ),
    "NOPERM key": (NoPermissionError("this user has no permissions to access one of the keys"), "use a key"),
    "NOPERM channel": (NoPermissionError("No permissions to access a channel"), "use a channel"),
    "NOPERM in a script": (
        ResponseError("ACL failure in script: No permissions to access a key"),
        "use a key",
    ),
    "WRONGPASS": (AuthenticationError("invalid username-password pair"), "refuses the user or password"),
    "NOAUTH": (AuthenticationError("Authentication required."), "asks for a password"),
    "READONLY": (ReadOnlyError("You can't write against a read only replica."), "is a replica"),
    "LOADING": (BusyLoadingError("Redis is loading the dataset in memory"), "still loading"),
    "MISCONF": (ResponseError("MISCONF Redis is configured to save"), "cannot write its data to disk"),
    "OOM": (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "is full"),
    "NOREPLICAS": (ResponseError("NOREPLICAS Not enough good replicas"), "too few replicas"),
    "BUSY": (ResponseError("BUSY Redis is busy running a script."), "busy with a script"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_each_refusal_of_redis_has_a_sentence_of_its_own(answer: str) -> None:
    error, words = ANSWERS[answer]

    said = redis_errors.refusal_of(error)

    assert said is not None
    assert words in said
    others = [redis_errors.refusal_of(other) for name, (other, _) in ANSWERS.items() if name != answer]
    assert said not in others or words == "use a key"
    assert str(unreachable(FAR, error)) == f"Redis at 10.1.2.3:6379 {said}."


async def test_a_full_disk_and_a_full_memory_are_told_by_a_real_redis(users: Users) -> None:
    redis = connect(users.url)

    async def refused() -> str | None:
        with pytest.raises(RedisError) as caught:
            await redis.set("x", "y")
        return redis_errors.refusal_of(caught.value)

    await redis.execute_command("CONFIG", "SET", "maxmemory", "1")
    full = await refused()
    await redis.execute_command("CONFIG", "SET", "maxmemory", "0", "min-replicas-to-write", "1")
    alone = await refused()
    await redis.aclose()

    assert full is not None
    assert "is full" in full
    assert alone is not None
    assert "too few replicas" in alone


@pytest.mark.long
async def test_commands_say_what_the_user_may_not(users: Users, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"model": "llama-3.1-8b-instant", "messages": []}\n')
    submit = ("submit", str(file), "--provider", "groq", "--endpoint", "/v1/chat/completions")
    wrong = users.at(Role.CLIENT).replace("client@", "wrong@")
    for words, url, sentence in (
        (submit, users.at(Role.DASHBOARD), "its role, which `batchling acl` prints (see deploy/acl)"),
        (("resume", "--all"), wrong, "refuses the user or password in BATCHLING_REDIS_URL"),
    ):
        done = await batchling(*words, env=environment(users, url))
        assert done.code == 3, done
        assert sentence in done.err
        assert "is full" not in done.err
        assert "Traceback" not in done.err


async def test_a_caller_of_a_new_deployment_is_told_that_a_worker_sets_it_up(users: Users) -> None:
    done = await called(environment(users, users.at(Role.CLIENT)), "name", "llama-3.1-8b-instant", "20")

    assert done.code != 0
    assert "start a worker first" in done.err


@pytest.mark.long
async def test_a_caller_is_told_what_the_user_may_not(users: Users) -> None:
    redis = connect(users.url)
    await salt.load(redis, Keys("default"))
    await redis.aclose()
    done = await called(environment(users, users.at(Role.OPERATOR)), "name", "llama-3.1-8b-instant", "20")

    assert done.out.split() == ["503", "503", "503"]
    assert "see deploy/acl" in done.err
    assert "Traceback" not in done.err
    assert "is full" not in done.err


def worker(users: Users, url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "celery", "-A", "batchling_worker", "worker", "--pool", "threads"]
    with (users.home / "worker.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--concurrency", "1", "--without-mingle", "--without-gossip"],
            env=environment(users, url),
            stdout=log,
            stderr=log,
        )


@pytest.mark.long
@pytest.mark.parametrize("role", [Role.CLIENT, Role.OPERATOR, Role.VIEWER])
async def test_a_worker_does_not_start_as_a_user_of_another_role(users: Users, role: Role) -> None:
    process = worker(users, users.at(role))
    try:
        code = await asyncio.to_thread(process.wait, 40)
    finally:
        stop(process)

    log = (users.home / "worker.log").read_text()
    assert code == 2, log
    assert "its role, which `batchling acl` prints (see deploy/acl)" in log


@pytest.mark.long
async def test_a_page_says_what_the_user_may_not(users: Users, tmp_path: Path) -> None:
    wrong = users.at(Role.DASHBOARD).replace(":dashboard@", ":wrong@")
    with running_flower(wrong, "default", tmp_path) as port:
        page = Browser(port).get("/batchling")
    assert page.status == 503
    assert "refuses the user or password in BATCHLING_REDIS_URL" in page.text


async def noted(redis: Redis, url: str) -> dict[str, str]:
    return {one.check: one.says for one in redis_health.of_access(url, *await user_of(redis))}


async def test_the_doctor_notes_a_user_who_may_do_everything_and_a_redis_without_password(
    users: Users,
) -> None:
    admin = connect(users.url)
    url = f"redis://:pw@127.0.0.1:{users.port}/0"
    await admin.execute_command("ACL", "SETUSER", "default", "on", "nopass", "~*", "&*", "+@all")
    default = connect(f"redis://127.0.0.1:{users.port}/0")
    assert set(await noted(default, f"redis://127.0.0.1:{users.port}/0")) == {"password"}
    await default.aclose()

    await admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">pw")
    default = connect(url)
    assert set(await noted(default, url)) == {"roles"}
    assert set(await noted(default, "unix:///run/redis.sock")) == set()
    await default.aclose()

    await admin.execute_command("ACL", "SETUSER", "default", "resetkeys", "~batchling:*")
    default = connect(url)
    assert await noted(default, url) == {}
    await default.aclose()

    for role in Role:
        async with connect(users.at(role)) as redis:
            assert await noted(redis, users.at(role)) == {}
    await admin.aclose()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (FAR, {"tls"}),
        ("redis://redis.internal:6379/0", {"tls"}),
        ("sentinel://:pw@127.0.0.1:26379,10.0.0.2:26379/ours/0", {"tls"}),
        ("rediss://user:pw@redis.internal:6380/0", set()),
        ("redis://localhost:6379", set()),
        ("redis://[::1]:6379/0", set()),
        ("unix:///run/redis.sock", set()),
    ],
)
def test_the_doctor_notes_a_connection_without_tls_beyond_this_machine(url: str, expected: set[str]) -> None:
    assert {one.check for one in redis_health.of_access(url, None, None)} == expected
