"""An unusable Redis URL ends in one sentence, in every command and in a worker, without any of its password."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

from batchling_client.cli.main import main
from batchling_client.wire.deployment.connection import place_of

PASSWORD: Final = "S3cretPW0rd"
UNUSABLE: Final = (
    f"redis://:{PASSWORD}/x@127.0.0.1:1/0",
    f"redis://:{PASSWORD}#x@127.0.0.1:1/0",
    f"redis://:{PASSWORD}?x@127.0.0.1:1/0",
    f"redis://{PASSWORD}@127.0.0.1:1/0",
    f"rediss://{PASSWORD}@127.0.0.1:1/0",
    f"redis://127.0.0.1:1/0?password={PASSWORD}",
    f"redis://127.0.0.1:1/0?passwort={PASSWORD}",
    f"redis://:{PASSWORD}@127.0.0.1:notaport/0",
    f"redis://:{PASSWORD}@127.0.0.1:99999999/0",
    f"redis://:{PASSWORD}@/0",
    f"redis://[:{PASSWORD}@h",
    f"redis://127.0.0.1:1/{PASSWORD}",
    f"redis://127.0.0.1:1/0?db={PASSWORD}",
    f"redis://127.0.0.1:1/0?socket_timeout={PASSWORD}",
    f"reddis://:{PASSWORD}@h/0",
    f"sentinel://:{PASSWORD}@127.0.0.1:x/m/0",
    f"sentinel://:{PASSWORD}/y@127.0.0.1:1/m/0",
    f"sentinel://{PASSWORD}@127.0.0.1:1/m/0",
    PASSWORD,
)
USABLE: Final = (
    "redis://127.0.0.1:1",
    "redis://127.0.0.1:1/3?socket_timeout=3",
    f"redis://user:{PASSWORD}@127.0.0.1:1/",
    f"rediss://:{PASSWORD}%2F%23@redis.example/0?ssl_cert_reqs=none",
    "unix:///tmp/redis.sock?db=1",
    f"unix://:{PASSWORD}@/tmp/redis.sock",
    f"sentinel://:{PASSWORD}@a:26379,b/service/0",
)


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield every command of the group that reads a Redis URL, with words for its required arguments."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        elif command is not None and any(one.name == "redis_url" for one in command.params):
            given = [
                word
                for one in command.params
                if one.required or isinstance(one, click.Argument)
                for word in _given(one)
            ]
            yield (*path, name, *given)


def _given(one: click.Parameter) -> list[str]:
    word = one.type.choices[0] if isinstance(one.type, click.Choice) else "openai"
    return [word] if isinstance(one, click.Argument) else [one.opts[0], word]


COMMANDS: Final = [words for words in commands(main) if words[0] not in ("run", "submit")]
"""`run` and `submit` first want a target and a file that is there; both load the same settings."""


@pytest.mark.parametrize("by_option", [False, True])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_ends_in_one_sentence(
    words: tuple[str, ...],
    by_option: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for url in UNUSABLE if words == ("batches",) else UNUSABLE[:2]:
        monkeypatch.delenv("BATCHLING_REDIS_URL", raising=False)
        args = [*words, "--redis-url", url] if by_option else [*words]
        if not by_option:
            monkeypatch.setenv("BATCHLING_REDIS_URL", url)
        with pytest.raises(SystemExit) as ended:
            main.main(args)
        said = capfd.readouterr()
        assert PASSWORD not in said.out + said.err
        if words[0] == "doctor":
            # A finding among others, which has the exit code of findings.
            assert ended.value.code == 1
            assert "failure settings" in said.out
        else:
            assert ended.value.code == 2, (url, said.err)
            assert said.err.startswith("batchling: BATCHLING_REDIS_URL ")
            assert len(said.err.splitlines()) == 1


def test_a_worker_ends_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from batchling_worker import settings

    for url in UNUSABLE:
        with pytest.raises(settings.WrongSetting) as refused:
            settings.load({"BATCHLING_REDIS_URL": url, "BATCHLING_HOME": str(tmp_path)})
        assert str(refused.value).startswith("BATCHLING_REDIS_URL ")
        assert PASSWORD not in str(refused.value) + repr(refused.value.__context__)
    for part in (["worker", "--pool", "threads"], ["flower", "--port=0"]):
        ended = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "batchling_worker", *part],
            env={**os.environ, "BATCHLING_REDIS_URL": UNUSABLE[0], "BATCHLING_HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=40,
        )
        assert ended.returncode == 2
        assert ended.stderr.startswith("BATCHLING_REDIS_URL ")
        assert len(ended.stderr.splitlines()) == 1
        assert PASSWORD not in ended.stdout + ended.stderr


@pytest.mark.parametrize("url", USABLE)
def test_a_url_that_redis_py_and_celery_can_read_is_taken(url: str, tmp_path: Path) -> None:
    from batchling_worker import settings

    read = settings.load({"BATCHLING_REDIS_URL": url, "BATCHLING_HOME": str(tmp_path)})
    assert read.redis_url == url
    assert url not in repr(read)
    assert PASSWORD not in place_of(url)
