"""A user's program: unchanged SDK code inside `batchify()`, in rounds, until the stop file exists.

`python -m tests.chaos.client SEED CLIENT N HOME`; the keys are in the environment and are never written.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import groq
import openai

from batchling_client import batchify, errors

from . import history, plan
from .history import History
from .plan import Question, Round

KEYS: Final = "CHAOS_KEYS"
LINGER_S: Final = 0.3
BATCH_SIZE: Final = 40
N_THREADS: Final = 24
PAUSE_S: Final = 0.3
SDKS: Final[dict[str, Any]] = {"groq": groq, "openai": openai}
STATUS_ERRORS: Final = (groq.APIStatusError, openai.APIStatusError)
CLASSES: Final = {"groq": ("Groq", "AsyncGroq"), "openai": ("OpenAI", "AsyncOpenAI")}


class Asker:
    """Asks the questions of a round and records the outcome of each."""

    def __init__(self, notes: History, keys: list[str]) -> None:
        self._notes = notes
        self._keys = keys

    def clients(self, *, blocking: bool) -> dict[tuple[str, int], Any]:
        """Create an SDK client for each provider and key."""
        return {
            (name, key): getattr(sdk, CLASSES[name][0 if blocking else 1])(api_key=secret)
            for name, sdk in SDKS.items()
            for key, secret in enumerate(self._keys)
        }

    async def ask_round(self, asked: Round) -> None:
        """Ask all questions at once, on one event loop."""
        clients = self.clients(blocking=False)
        async with batchify(**_terms(asked)):
            tasks = []
            for question in asked.questions:
                task = asyncio.create_task(self._ask(clients[question.provider, question.key], question))
                if question.cancel_after_s is not None:
                    asyncio.get_running_loop().call_later(question.cancel_after_s, task.cancel)
                tasks.append(task)
            await asyncio.gather(*tasks, return_exceptions=True)

    def ask_round_in_threads(self, asked: Round) -> None:
        """Ask the questions from a pool of threads, through the blocking SDKs."""
        clients = self.clients(blocking=True)
        with batchify(**_terms(asked)), ThreadPoolExecutor(N_THREADS) as pool:
            for question in asked.questions:
                pool.submit(self._ask_blocking, clients[question.provider, question.key], question)

    async def _ask(self, client: Any, question: Question) -> None:
        self._notes.note("asked", call=question.call)
        try:
            raw = await client.chat.completions.with_raw_response.create(**_words(question))
        except asyncio.CancelledError:
            self._notes.note("cancelled", call=question.call)
            raise
        except Exception as error:  # noqa: BLE001 - whatever a caller gets is what the checker wants to see
            self._failed(question, error)
        else:
            parsed = raw.parse()
            self._answered(question, raw, await parsed if inspect.isawaitable(parsed) else parsed)

    def _ask_blocking(self, client: Any, question: Question) -> None:
        self._notes.note("asked", call=question.call)
        try:
            raw = client.chat.completions.with_raw_response.create(**_words(question))
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(question, error)
        else:
            self._answered(question, raw, raw.parse())

    def _answered(self, question: Question, raw: Any, completion: Any) -> None:
        text = completion.choices[0].message.content or ""
        run = raw.headers.get("x-request-id", "")
        self._notes.note("answered", call=question.call, status=200, text=text, run=run)

    def _failed(self, question: Question, error: Exception) -> None:
        status = getattr(error, "status_code", 0)
        code = error.response.headers.get(errors.HEADER, "") if isinstance(error, STATUS_ERRORS) else ""
        words = f"{type(error).__name__} {code} {error}"
        self._notes.note("failed", call=question.call, status=status, text=words[:500])


def _words(question: Question) -> dict[str, Any]:
    return {"model": question.model, "messages": [{"role": "user", "content": question.prompt}]}


def _terms(asked: Round) -> dict[str, Any]:
    return {
        "name": asked.name,
        "cache": asked.cached,
        "batch_window_seconds": LINGER_S,
        "batch_size": BATCH_SIZE,
        "live_display": False,
    }


def main(seed: int, client: int, n: int, home: Path) -> None:
    """Ask rounds until the stop file exists; repeat a round whose block could not be entered."""
    path = home / f"client{client}.jsonl"
    place = history.place(history.read(path))
    number, life = place.first_round, place.life
    notes = History(path, life)
    asker = Asker(notes, os.environ.pop(KEYS).split(","))
    while True:
        asked = plan.the_round(seed, client, number, n)
        notes.note("opened", number=number)
        try:
            if asked.threads:
                asker.ask_round_in_threads(asked)
            else:
                asyncio.run(asker.ask_round(asked))
        except errors.QueueUnreachable:
            # Redis was unreachable at the start of the block: a user would run the program again.
            asyncio.run(asyncio.sleep(PAUSE_S))
            continue
        except Exception as error:
            notes.note("broken", number=number, text=f"{type(error).__name__}: {error}"[:500])
            raise
        notes.note("closed", number=number)
        if number >= place.torn_round and (home / "stop").exists():
            return
        number += 1


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
