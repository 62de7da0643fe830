"""`batchling sandbox -- CMD`: any program before the sandbox, with its exit code, its signals and no real key."""

import signal
import sys
from pathlib import Path

import pytest

from batchling_worker.rehearsal.stage import ignores_environment
from tests.waiting import wait_until

from .command import batchling, clean_environment, contents, ended, start

PROGRAM = """
import os, subprocess, sys
import openai
from batchling import batchify

assert "CANARY" not in str(dict(os.environ))

def ask(client, **more):
    messages = [{"role": "user", "content": "q"}]
    return client.chat.completions.create(model="gpt-4o-mini", messages=messages, **more)

plain = openai.OpenAI(base_url="https://api.openai.com/v1", api_key="sk-CANARY", max_retries=0)
with batchify(batch_window_seconds=0.1, live_display=False) as run:
    ask(openai.OpenAI())
    ask(plain)
    assert len(list(ask(plain, stream=True))) > 2
assert run.progress.n_succeeded == 2, run.summary()
assert run.progress.n_passed == 1, run.summary()
ask(plain)
try:
    ask(openai.OpenAI(base_url="https://llm.invalid/v1", api_key="sk-CANARY", max_retries=0))
except openai.PermissionDeniedError as error:
    print("refused:", "llm.invalid" in str(error))
# A child knows nothing of batchling, and names a real host and key.
child = "import openai; c = openai.OpenAI(base_url='https://api.openai.com/v1', api_key='sk-CANARY')"
child += "; print(c.models.list().data[0].id)"
print("child:", subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout.strip())
sys.exit(int(sys.argv[1]))
"""


async def test_a_program_reaches_no_real_provider_and_its_exit_code_is_passed_on(
    short_home: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home), "OPENAI_API_KEY": "sk-CANARY"}

    done = await batchling(
        *("sandbox", "--provider", "openai", "--seconds", "*=0.2"),
        *("--", sys.executable, str(program), "7"),
        env=env,
        within_s=120,
    )

    assert done.code == 7, done.err
    assert done.out == "refused: True\nchild: llama-3.1-8b-instant\n"
    assert "CANARY" not in done.err
    assert contents(short_home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_program_and_then_the_sandbox(
    short_home: Path, tmp_path: Path, number: signal.Signals
) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home), "STARTED": str(tmp_path / "started")}
    program = "import os, time; open(os.environ['STARTED'], 'w').close(); time.sleep(600)"
    running = await start("sandbox", "--", sys.executable, "-c", program, env=env)

    await wait_until((tmp_path / "started").exists, description="the program runs", within_s=60)
    running.send_signal(number)
    done = await ended(running)

    # Python ends itself by the signal after its traceback.
    assert done.code == 128 + number
    assert contents(short_home) == []


async def test_an_option_that_keeps_python_out_of_the_rehearsal_is_warned_of(short_home: Path) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home)}
    done = await batchling("sandbox", "--", sys.executable, "-I", "-c", "print(1)", env=env, within_s=120)
    assert (done.code, done.out) == (0, "1\n")
    assert "-I, -E or -S" in done.sentence


@pytest.mark.parametrize(
    ("command", "ignores"),
    [
        ("python -I x.py", True),
        ("/usr/bin/python3.12 -u -sE -m pytest", True),
        ("python3 -W error -S x.py", True),
        ("python x.py -I", False),
        ("python -m pytest -E", False),
        ("python -c -I", False),
        ("pytest -S", False),
    ],
)
def test_options_of_python_are_read_up_to_its_program(command: str, ignores: bool) -> None:
    assert ignores_environment(command.split()) is ignores


async def test_a_command_that_is_not_there_is_one_sentence(short_home: Path) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home)}
    for words, said in (
        (["sandbox", "--", "no-such-command"], "no-such-command"),
        (["sandbox", "--provider", "acme", "--", "true"], "--provider acme"),
    ):
        wrong = await batchling(*words, env=env)
        assert wrong.code == 2
        assert said in wrong.sentence
