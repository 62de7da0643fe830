"""No stack is started with settings that its worker cannot run with."""

from __future__ import annotations

from pathlib import Path

import pytest

from .bench import Bench

SECRET = "CANARY-7c1e"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCHLING_LEASE_SECONDS", "abc"),
        ("BATCHLING_MAX_ATTEMPTS", "0"),
        ("BATCHLING_NAMESPACE", "a{b}"),
        ("BATCHLING_PROVIDERS", SECRET),
        ("BATCHLING_PROVIDERS__GROQ__API_KEYS", SECRET),
        ("BATCHLING_SEAL_PRIVATE_KEY", SECRET),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_starts_nothing(bench: Bench, name: str, value: str) -> None:
    answer = bench.run("up", **{name: value})

    assert answer.returncode == 2
    assert answer.stderr.startswith((f"{name} ", "BATCHLING_PROVIDERS__GROQ has no setting API_KEYS: "))
    assert answer.stderr.count("\n") == 1
    assert SECRET not in answer.stderr
    assert bench.everything() == []
    assert not bench.home.exists()


@pytest.mark.parametrize(
    "name", ["BATCHLING_LEASE_SECONDS", "BATCHLING_NAMESPACE", "BATCHLING_SEAL_PRIVATE_KEY"]
)
def test_an_empty_setting_is_none(bench: Bench, name: str) -> None:
    before = bench.run("up", **{name: ""})
    after = bench.run("up")

    assert (before.returncode, before.stderr) == (0, "")
    assert (after.stdout, after.stderr) == (before.stdout, "")
    assert bench.run("up", **{name: ""}).stderr == ""


def test_a_stack_is_up_as_soon_as_the_setting_is_mended(bench: Bench) -> None:
    bench.run("up", BATCHLING_LEASE_SECONDS="abc")

    assert bench.run("up").returncode == 0
    assert len(bench.everything()) == 3


def test_a_start_names_variables_that_nobody_reads(bench: Bench) -> None:
    first = bench.run("up", BATCHLING_REDIS=SECRET, BATCHLING_LEASE_SECOND="3")
    later = bench.run("up", BATCHLING_REDIS=SECRET)

    assert first.returncode == later.returncode == 0
    assert first.stderr == (
        "Nothing reads BATCHLING_LEASE_SECOND: did you mean BATCHLING_LEASE_SECONDS? "
        "Nothing reads BATCHLING_REDIS: did you mean BATCHLING_REDIS_URL?\n"
    )
    assert later.stderr == ""


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BATCHLING_LEASE_SECONDS", SECRET, "BATCHLING_LEASE_SECONDS must be a number. "),
        ("BATCHLING_SEAL_PRIVATE_KEY", SECRET, "BATCHLING_SEAL_PRIVATE_KEY "),
        ("BATCHLING_LEASE_SECOND", "3", "Nothing reads BATCHLING_LEASE_SECOND: "),
    ],
)
def test_a_look_and_a_stop_name_a_wrong_setting_and_are_carried_out(
    bench: Bench, name: str, value: str, said: str
) -> None:
    bench.up()

    looked = bench.run("status", **{name: value})
    stopped = bench.run("down", **{name: value})

    assert looked.returncode == stopped.returncode == 0
    assert "Redis unix://" in looked.stdout
    assert bench.everything() == []
    for answer in (looked, stopped):
        assert answer.stderr.startswith(said)
        assert answer.stderr.count("\n") == 1
        assert SECRET not in answer.stderr


@pytest.mark.parametrize("command", ["status", "down"])
@pytest.mark.parametrize("below", [".", "deeper", "deeper/still"])
def test_a_home_that_a_file_is_in_the_way_of_is_not_called_down(
    bench: Bench, command: str, below: str
) -> None:
    file = bench.home / below
    bench.home.parent.mkdir(parents=True, exist_ok=True)
    bench.home.write_text("a file")

    answer = Bench(file, bench.environment).run(command)

    assert answer.returncode == 3
    assert (answer.stdout, answer.stderr) == (
        "",
        f"{file} cannot be looked into (Not a directory): set BATCHLING_HOME to a directory of your own.\n",
    )


def test_the_worker_of_a_stack_uses_the_stacks_own_redis_whatever_file_names_another(
    bench: Bench, tmp_path: Path
) -> None:
    file = tmp_path / "redis_url"
    file.write_text("redis://127.0.0.1:1/0", encoding="ascii")

    up = bench.run("up", BATCHLING_REDIS_URL_FILE=str(file))
    wrong = bench.run("up", BATCHLING_SEAL_PRIVATE_KEY_FILE=str(tmp_path / "absent"))

    assert (up.returncode, up.stderr) == (0, "")
    assert len(bench.everything()) == 3
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("BATCHLING_SEAL_PRIVATE_KEY_FILE ")
