"""Mistakes on the command line end in one sentence and exit code 2; nothing is started for them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import batchling as batchling_module
from batchling_client.cli.main import main
from batchling_client.cli.run_function import load, split
from batchling_client.wire import sealing
from batchling_client.wire.deployment.installing import install

from .command import batchling, clean_environment, contents


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["frobnicate"], "There is no command 'frobnicate'"),
        (["show"], "Missing argument 'ID'"),
        (["batches", "--limit", "many"], "is not a valid integer"),
        (["batches", "--redis-url", "http://127.0.0.1"], "must start with redis://"),
        (["run"], "Missing argument 'TARGET"),
        (["run", "-m"], "-m needs a module"),
        (["run", "-m", "no_such_module.part"], "There is no module no_such_module.part"),
        (["run", "-m", "batchling_client"], "is a package without a __main__"),
        (["run", "script.py"], "There is no file script.py"),
        (["run", "no_such_script"], "There is no file no_such_script"),
        (["run", "tests"], "tests is a folder"),
        (["run", "ls"], "is not a Python program"),
        (["script.py"], "There is no file script.py"),
        (
            ["tests/conftest.py"],
            "type `batchling tests/conftest.py:pytest_collection_modifyitems`",
        ),
        (["script:main"], "is not FILE.py:FUNC, such as script.py:main"),
        (["tests.conftest:main"], "is not FILE.py:FUNC, such as tests/conftest.py:main"),
        (["./script"], "There is no file ./script"),
        (["run", "script.py:"], "is not FILE.py:FUNC"),
        (["tests/forks.py::absent"], "is not FILE.py:FUNC, such as tests/forks.py:"),
        (
            ["tests/conftest.py:pytest_collection_modifyitems:x"],
            "such as tests/conftest.py:pytest_collection_m",
        ),
        (["tests/conftest.py:Path"], "Path in tests/conftest.py is a class"),
        (["tests:main"], "is not FILE.py:FUNC"),
        (["run", ""], "There is no file ''"),
        (["run", "-m", "tests/conftest.py"], "is a file: `batchling run tests/conftest.py`"),
        (["-m", "tests"], "-m is an option of `run`: type `batchling run -m tests`."),
        (["run", "-m", "tests.conftest:main"], "names a function: `batchling run FILE.py:FUNC`"),
        (["tests.conftest.main"], "type `batchling run tests/conftest.py:main`"),
        (["run", "tests.conftest.main"], "type `batchling run tests/conftest.py:main`"),
        (["run", "script:main"], "is not FILE.py:FUNC"),
        (["absent.py:main"], "There is no file absent.py"),
        (["run", "--on-deadline", "cry", "absent.py:main"], "is not one of 'error', 'realtime'"),
        (["run", "--sandbox", "--redis-url", "redis://h", "absent.py:main"], "has a Redis of its own"),
        (["sandbox", "--seconds", "slow"], "is not MODEL=SECONDS"),
        (["sandbox", "--port", "99999"], "99999 is not in the range 0<=x<=65535"),
        (["sandbox", "--port", "-1"], "-1 is not in the range 0<=x<=65535"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(words: list[str], told: str) -> None:
    result = invoke(*words)

    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.startswith("batchling: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("absent", "has no function absent: it has ask, answers, words"),
        ("yields", "yields"),
        ("NUMBER", "is not a function"),
        ("command", "is a command that reads its own arguments: `batchling run"),
    ],
)
def test_a_target_that_is_not_a_function_is_not_run(script: Path, function: str, told: str) -> None:
    result = invoke("run", f"{script}:{function}")

    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("x = 1\ny = 1 / 0\n", "ZeroDivisionError in line 2"),
        ("async def main(:\n", "in line 1"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_sentence(tmp_path: Path, source: str, told: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source, encoding="utf-8")

    result = invoke("run", f"{file}:main")

    assert result.exit_code == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert "broken" not in sys.modules


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--sideways", "1"], "unexpected keyword argument 'sideways'."),
        (["a", "b"], "too many positional arguments."),
        (["--sandbox"], "To give --sandbox to batchling, type it before FILE.py:FUNC."),
        (["--on-deadline", "error"], "To give --on-deadline to batchling, type it before FILE.py:FUNC."),
    ],
)
def test_arguments_that_do_not_fit_are_named_before_anything_starts(
    script: Path, words: list[str], why: str
) -> None:
    result = invoke("run", f"{script}:answers", *words)

    assert result.exit_code == 2
    assert result.stderr.strip().endswith(why)
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_setting_that_cannot_work_is_one_sentence(script: Path) -> None:
    result = invoke("run", f"{script}:answers", "--completion-window", "900h")

    assert result.exit_code == 2
    assert "'900h'" in result.stderr


def test_words_become_positions_and_names() -> None:
    assert split(["a", "--one-thing", "b", "-5", "--other=c=d", ""]) == (
        ["a", "-5", ""],
        {"one_thing": "b", "other": "c=d"},
    )
    assert split(["--flag", "--count", "3", "--last"]) == ([], {"flag": True, "count": "3", "last": True})
    assert split(["--flag", "--", "a", "--", "--b"]) == (["a", "--"], {"flag": True, "b": True})


def test_a_script_finds_its_neighbours_and_keeps_loaded_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "neighbour_of_json.py").write_text("WORD = 'hello'\n", encoding="utf-8")
    file = tmp_path / "json.py"
    file.write_text("from neighbour_of_json import WORD\nasync def main(): return WORD\n", encoding="utf-8")
    loaded = sys.modules["json"]

    target = load(f"{file}:main", [])

    assert target.function.__module__ != "json"
    assert sys.modules["json"] is loaded


def test_a_fresh_pair_of_keys_fits() -> None:
    result = invoke("keys", "new")

    printed = dict(line.split("=", 1) for line in result.stdout.strip().splitlines())
    assert result.exit_code == 0
    assert [*printed] == [
        "BATCHLING_SEAL_PUBLIC_KEY",
        "BATCHLING_SEAL_PRIVATE_KEY",
        "BATCHLING_ACCOUNT_SECRET",
    ]
    assert sealing.public_half(printed["BATCHLING_SEAL_PRIVATE_KEY"]) == printed["BATCHLING_SEAL_PUBLIC_KEY"]
    assert len(printed["BATCHLING_ACCOUNT_SECRET"]) >= 40


def test_help_names_every_command_and_exits_0() -> None:
    result = invoke()

    assert result.exit_code == 0
    for name in ("run", "batches", "runs", "lanes", "show", "cancel", "doctor", "keys"):
        assert name in result.stdout
    for name in ("up", "down", "status", "sandbox", "demo"):
        assert name in result.stdout


@pytest.mark.parametrize("command", ["up", "down", "sandbox", "demo"])
async def test_a_worker_command_without_the_worker_says_what_to_install(command: str) -> None:
    gone = await batchling(
        command, env=clean_environment(), prelude="import sys; sys.modules['batchling_worker'] = None; "
    )

    assert gone.code == 2
    assert install() in gone.sentence


async def test_a_part_without_its_library_says_what_to_install() -> None:
    gone = await batchling(
        "sandbox", env=clean_environment(), prelude="import sys; sys.modules['aiohttp'] = None; "
    )

    assert gone.code == 2
    assert "aiohttp" in gone.sentence


@pytest.mark.parametrize(
    "words", [["demo"], ["up"], ["sandbox", "--", "true"], ["run", "--sandbox", "{script}:words"]]
)
@pytest.mark.parametrize("name", ["BATCHLING_LEASE_SECONDS", "BATCHLING_MAX_ATTEMPTS", "BATCHLING_PROVIDERS"])
async def test_a_wrong_setting_of_the_worker_is_one_sentence(
    script: Path, short_home: Path, words: list[str], name: str
) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home), name: "abc"}

    wrong = await batchling(*(word.format(script=script) for word in words), env=env)

    assert wrong.code == 2
    assert wrong.sentence.startswith(f"batchling: {name} ")
    assert "--help" not in wrong.sentence, "the command was typed as it should be"
    assert contents(short_home) == []


LIKE_ANYBODY = """
import ctypes, os

if os.getuid() == 0:
    # Modes bind root too, and what it starts, without CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2).
    libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert not libc.prctl(24, 1) and not libc.prctl(24, 2) and not libc.capget(header, sets)
    sets[0], sets[1] = sets[0] & ~6, sets[1] & ~6
    assert not libc.capset(header, sets)

"""


@pytest.fixture
def closed_home(short_home: Path) -> Iterator[Path]:
    """A BATCHLING_HOME that is not for us."""
    (short_home / "run").mkdir()
    short_home.chmod(0)
    yield short_home
    short_home.chmod(0o700)


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["status", "--json"],
        ["down"],
        ["up"],
        ["batches"],
        ["demo"],
        ["run", "--sandbox", "{script}:words"],
    ],
)
async def test_a_home_of_another_user_is_one_sentence(
    closed_home: Path, script: Path, words: list[str]
) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(closed_home)}

    seen = await batchling(*(word.format(script=script) for word in words), env=env, prelude=LIKE_ANYBODY)

    assert seen.code == 3, seen.err
    assert seen.sentence.endswith("(Permission denied): set BATCHLING_HOME to a directory of your own.")
    assert "is down" not in seen.out


async def test_a_block_with_a_wrong_setting_of_the_worker_is_one_sentence_and_starts_no_stack(
    short_home: Path, script: Path
) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home), "BATCHLING_LEASE_SECONDS": "abc"}
    wrong = await batchling("run", f"{script}:answers", env=env)

    assert wrong.code == 2
    assert "BATCHLING_LEASE_SECONDS must be " in wrong.sentence
    assert contents(short_home) == []


@pytest.mark.parametrize("command", [["batches"], ["runs"], ["lanes"], ["show", "b1"], ["cancel", "b1"]])
async def test_looking_starts_no_stack_and_exits_3(short_home: Path, command: list[str]) -> None:
    seen = await batchling(*command, env={**clean_environment(), "BATCHLING_HOME": str(short_home)})

    assert seen.code == 3
    assert "`batchling up`" in seen.sentence
    assert contents(short_home) == []


async def test_a_redis_that_is_away_exits_3_and_keeps_the_password(script: Path) -> None:
    url = "redis://:hunter2@127.0.0.1:1/0"
    env = {**clean_environment(), "BATCHLING_REDIS_URL": url}

    for words in (["batches"], ["run", f"{script}:answers"]):
        seen = await batchling(*words, env=env)
        assert seen.code == 3
        assert "127.0.0.1:1 cannot be reached" in seen.sentence
        assert "hunter2" not in seen.err


def test_the_client_imports_neither_rich_nor_http_libraries_nor_the_worker() -> None:
    heavy = ("rich", "celery", "httpx", "httpx2", "aiohttp", "requests", "batchling_worker")
    program = f"import batchling_client, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["lane"], "`batchling lanes`"),
        (["sandbx"], "`batchling sandbox`"),
        (["cancle", "x"], "`batchling cancel`"),
        (["doctor", "--jsn"], "'--json'"),
        (["--verison"], "'--version'"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_one_that_was_meant(words: list[str], meant: str) -> None:
    result = invoke(*words)

    assert result.exit_code == 2
    assert re.search(f"[Dd]id you mean {meant}", result.stderr)


def test_a_word_like_no_command_is_one_sentence() -> None:
    result = invoke("xyzzy")

    assert result.exit_code == 2
    assert result.stderr.startswith("batchling: There is no command 'xyzzy': see `")


@pytest.mark.parametrize(
    ("source", "typed"),
    [
        ("def tidy(): ...\nasync def label(): ...\n", "label"),
        ("async def ask(): ...\nasync def main(): ...\n", "main"),
        ("async def _hidden(): ...\n", "FUNC"),
        ("this is not Python", "FUNC"),
    ],
)
def test_a_script_without_a_function_says_what_to_type(tmp_path: Path, source: str, typed: str) -> None:
    script = tmp_path / "label.py"
    script.write_text(source)

    result = invoke(str(script))

    assert result.exit_code == 2
    instead = f"type `batchling {script}:{typed}`, or `batchling run {script}` to run it as a program"
    assert result.stderr == f"batchling: {script} names no function: {instead}.\n"


async def test_a_rehearsal_on_a_plain_install_names_the_missing_extras(script: Path) -> None:
    words = ("run", "--sandbox", f"{script}:answers")
    gone = "import sys; sys.modules.update(dict.fromkeys(({}), None)); "

    plain = await batchling(
        *words, env=clean_environment(), prelude=gone.format("'aiohttp', 'celery', 'psutil'")
    )
    one = await batchling(*words, env=clean_environment(), prelude=gone.format("'aiohttp', 'multidict'"))

    assert plain.code == one.code == 2
    assert "the extras worker, embedded and sandbox of" in plain.sentence
    assert "the extra sandbox of batchling" in one.sentence


def test_a_cache_file_of_the_original_is_named_as_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BATCHLING_CACHE_PATH", "cache.db")
    for _ in range(2):
        batchling_module.batchify()

    assert caplog.text.count("BATCHLING_CACHE_PATH is not used") == 1


def test_the_module_is_the_command() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "batchling", "--version"], capture_output=True, text=True, check=True
    )

    assert told.stdout == f"batchling {batchling_module.__version__}\n"
