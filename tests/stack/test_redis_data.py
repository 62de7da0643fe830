"""A data directory is read by the server that wrote it or a newer one, or a sentence says what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from batchling_worker.stack import redis_binary, redis_data
from batchling_worker.stack.errors import StackError
from batchling_worker.stack.redis_data import RELAXED, Family, Written

from ..redis_server import redis_server, skip_without_package
from ..waiting import wait_until
from .bench import Bench
from .test_redis_binary import pretend

REDIS_8 = b"REDIS0012\xfa\x09redis-ver\x058.2.3\xfa\x0aredis-bits\xc0@"
REDIS_7 = b"REDIS0010\xfa\x09redis-ver\x067.0.15\xfa\x0aredis-bits\xc0@"
REDIS_99 = b"REDIS0078\xfa\x09redis-ver\x0699.0.1\xfa\x0aredis-bits\xc0@"
VALKEY_9 = b"VALKEY080\xfa\x0avalkey-ver\x059.1.2\xfa\x0aredis-bits\xc0@"
UNKNOWN_KIND = b"\xf0\x00"
EMPTY_END = b"\xff" + bytes(8)
"""The end of a file without a checksum."""
MANIFEST = "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"


def data_of(directory: Path, base: bytes, commands: bytes = b"") -> Path:
    """A data directory as a server leaves it."""
    folder = directory / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_text(MANIFEST, encoding="utf-8")
    (folder / "appendonly.aof.1.base.rdb").write_bytes(base)
    (folder / "appendonly.aof.1.incr.aof").write_bytes(commands)
    return directory


def redis_of(directory: Path, version: str) -> str:
    directory.mkdir(exist_ok=True)
    pretend(directory, "redis-server", f"Redis server v={version} sha=00000000:0 malloc=jemalloc-5.3.0")
    return str(directory)


@pytest.mark.parametrize(
    ("base", "family", "number", "version"),
    [
        (REDIS_8, Family.REDIS, 12, "8.2.3"),
        (VALKEY_9, Family.VALKEY, 80, "9.1.2"),
        (b"REDIS0011", Family.REDIS, 11, ""),
        (b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n", Family.REDIS, 10, "7.0 or newer"),
        (b"", Family.REDIS, 10, "7.0 or newer"),
    ],
)
def test_the_head_of_the_file_says_who_wrote_it(
    tmp_path: Path, base: bytes, family: Family, number: int, version: str
) -> None:
    expected = Written(family=family, format=number, version=version)
    assert redis_data.written(data_of(tmp_path, base)) == expected


def test_the_single_file_of_redis_6_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_bytes(b"REDIS0009\xfa\x09redis-ver\x066.2.14")
    found = redis_data.written(tmp_path)
    assert found is not None
    assert redis_data.words_to_read(found, Family.VALKEY, (9, 1)) == ()


def test_a_fresh_directory_was_written_by_nobody(tmp_path: Path) -> None:
    assert redis_data.written(tmp_path) is None
    assert redis_data.written(tmp_path / "not made yet") is None


@pytest.mark.parametrize(
    ("base", "family", "version", "words"),
    [
        (REDIS_8, Family.REDIS, (8, 0), ()),
        (REDIS_8, Family.REDIS, (7, 2), None),
        (REDIS_8, Family.VALKEY, (9, 1), RELAXED),
        (REDIS_8, Family.VALKEY, (8, 1), None),
        (REDIS_7, Family.VALKEY, (7, 2), ()),
        (REDIS_7, Family.REDIS, (6, 2), None),
        (VALKEY_9, Family.VALKEY, (9, 0), ()),
        (VALKEY_9, Family.VALKEY, (8, 1), None),
        (VALKEY_9, Family.REDIS, (8, 2), None),
        (REDIS_99, Family.REDIS, (98, 9), None),
        (REDIS_99, Family.REDIS, (99, 0), ()),
        (b"*1\r\n", Family.REDIS, (6, 2), None),  # it would look elsewhere, and start empty
    ],
)
def test_each_server_reads_the_files_it_can(
    tmp_path: Path, base: bytes, family: Family, version: tuple[int, int], words: tuple[str, ...] | None
) -> None:
    found = redis_data.written(data_of(tmp_path, base))
    assert found is not None
    assert redis_data.words_to_read(found, family, version) == words


def test_the_server_that_can_read_the_data_is_chosen(tmp_path: Path) -> None:
    skip_without_package()
    path = redis_of(tmp_path / "bin", "8.2.3")

    fresh = redis_binary.choose(path, tmp_path / "fresh")
    own = redis_binary.choose(path, data_of(tmp_path / "own", REDIS_8))
    valkeys = redis_binary.choose(path, data_of(tmp_path / "valkey", VALKEY_9))

    assert [fresh.family, own.family, valkeys.family] == [Family.REDIS, Family.REDIS, Family.VALKEY]


def test_the_packaged_server_loads_what_a_newer_redis_wrote(tmp_path: Path) -> None:
    skip_without_package()
    data = data_of(tmp_path, REDIS_8 + EMPTY_END, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$6\r\nbefore\r\n")
    server = redis_binary.choose("", data)

    with (
        redis_server("--dir", str(data), "--appendonly", "yes", *server.words) as url,
        Redis.from_url(url) as client,
    ):
        assert client.get("k") == b"before"


def test_data_that_no_server_here_can_read_is_one_sentence_and_stays(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_binary, "PACKAGE", "not_installed_here")
    base = data_of(bench.home / "redis", VALKEY_9) / "appendonlydir" / "appendonly.aof.1.base.rdb"

    with pytest.raises(
        StackError, match=r"written by Valkey 9\.1\.2, which Redis 8\.2 .* cannot read"
    ) as refused:
        bench.up(PATH=redis_of(tmp_path / "bin", "8.2.3"))

    assert "\n" not in str(refused.value)
    assert base.read_bytes() == VALKEY_9
    assert bench.everything() == []


def test_the_procfiles_redis_refuses_such_data_too(tmp_path: Path) -> None:
    path = redis_of(tmp_path / "bin", "6.2.0")
    # Nothing on this machine is that new.
    data = data_of(tmp_path / "data", b"VALKEY099\xfa\x0avalkey-ver\x0699.9.9\xfa\x0aredis-bits\xc0@")
    words = [
        sys.executable,
        "-P",
        "-m",
        "batchling_worker.stack.redis_server",
        "redis.conf",
        "--dir",
        str(data),
    ]

    refused = subprocess.run(words, env={**os.environ, "PATH": path}, capture_output=True, text=True)

    assert refused.returncode == 1
    assert re.fullmatch(r".*written by Valkey 99\.9\.9, which .* cannot read: .*\n", refused.stderr)


async def test_a_redis_that_cannot_load_its_data_is_quoted_and_given_up(bench: Bench) -> None:
    skip_without_package()
    # No server knows this kind: the packaged server is started to try, and stops there.
    base = data_of(bench.home / "redis", REDIS_8 + UNKNOWN_KIND) / "appendonlydir"

    with pytest.raises(StackError, match=r"does not start, as its Redis ends with '.*'"):
        bench.up(PATH="")

    assert (base / "appendonly.aof.1.base.rdb").read_bytes() == REDIS_8 + UNKNOWN_KIND
    await wait_until(lambda: bench.everything() == [], description="nothing starts it again", within_s=30)
