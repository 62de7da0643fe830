"""The questions of the clients, as a pure function of the seed: a killed client asks the same again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, TypeAlias

LANES: Final = (
    ("groq", "llama-3.1-8b-instant"),
    ("groq", "openai/gpt-oss-20b"),
    ("openai", "gpt-5-nano"),
    ("openai", "gpt-5"),
)
"""Provider and model: a fast and a slow model of each provider."""
N_KEYS: Final = 2
N_COMMON: Final = 4
UNCACHED_EVERY: Final = 5
THREADS_EVERY: Final = 3
LONGEST_CANCEL_S: Final = 1.5
TOPICS: Final = ("tides", "lighthouses", "the taste of rain", "maps", "a very long story " * 120)

MARKERS: Final = (
    ("fault:400", 400, 0),
    ("fault:500x1", 200, 0),
    ("fault:429x1", 200, 0),
    ("fault:twice", 200, 0),
    ("fault:missingx1", 200, 1),
    ("fault:zerox1", 200, 1),
    ("fault:brokenx1", 200, 1),
)
"""Marker, the status for the caller, and how often the provider bills and then loses the row, which is run again."""

Content: TypeAlias = tuple[str, int, str, str]
"""Provider, key, model and prompt: requests that agree in these differ only in their occurrence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One call of one client, and its possible outcomes."""

    call: str
    provider: str
    key: int
    model: str
    prompt: str
    cached: bool = True
    cancel_after_s: float | None = None
    status: int = 200
    n_lost: int = 0
    """How many runs the provider may bill and then lose."""

    @property
    def content(self) -> Content:
        return (self.provider, self.key, self.model, self.prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The questions of a client in one block."""

    name: str
    cached: bool
    threads: bool
    questions: tuple[Question, ...]


def the_round(seed: int, client: int, number: int, n: int) -> Round:
    """Return the client's round of that number, with about n questions."""
    rng = random.Random(f"{seed}:{client}:{number}")
    cached = (number + client) % UNCACHED_EVERY != UNCACHED_EVERY - 1
    threads = (number + client) % THREADS_EVERY == THREADS_EVERY - 1
    name = f"c{client}r{number}"
    lanes = [(provider, key, model) for provider, model in LANES for key in range(N_KEYS)]
    rng.shuffle(lanes)
    lanes = lanes[: len(lanes) // 2]
    questions: list[Question] = []

    def ask(prompt: str, **more: object) -> None:
        provider, key, model = rng.choice(lanes)
        wanted = {"provider": provider, "key": key, "model": model, **more}
        call = f"{name}q{len(questions)}"
        questions.append(Question(call=call, prompt=prompt, cached=cached, **wanted))  # type: ignore[arg-type]

    for i in range(n):
        draw = rng.random()
        prompt = f"{name} no. {i}: tell me of {rng.choice(TOPICS)}"
        if draw < 0.1:
            marker, status, n_lost = rng.choice(MARKERS)
            ask(f"{marker} {prompt}", status=status, n_lost=n_lost)
        elif draw < 0.2 and not threads:
            ask(prompt, cancel_after_s=rng.uniform(0.0, LONGEST_CANCEL_S))
        elif draw < 0.25:
            provider, key, model = rng.choice(lanes)
            for _ in range(3):
                ask(f"{name} sample {i}", provider=provider, key=key, model=model)
        else:
            ask(prompt)
    if cached:
        questions += common(seed, client, number)
    return Round(name=name, cached=cached, threads=threads, questions=tuple(questions))


def common(seed: int, client: int, number: int) -> list[Question]:
    """Return the questions that every client asks in its round of this number: they share one request in flight."""
    rng = random.Random(f"{seed}:common:{number}")
    asked = []
    for i in range(N_COMMON):
        provider, model = rng.choice(LANES)
        key = rng.randrange(N_KEYS)
        prompt = f"all of us in round {number} no. {i}"
        call = f"c{client}r{number}common{i}"
        asked.append(Question(call=call, provider=provider, key=key, model=model, prompt=prompt))
    return asked


def round_of(call: str) -> int:
    """Return the number of the round that a call belongs to."""
    return int(call.partition("r")[2].partition("common")[0].partition("q")[0])
