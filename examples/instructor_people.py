"""Instructor: extract typed objects from many texts at once.

For real:   pip install instructor; OPENAI_API_KEY=... batchling run examples/instructor_people.py:main
Rehearsed:  batchling run --sandbox examples/instructor_people.py:main
"""

import asyncio

import instructor
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

TEXTS = (
    "Ada Lovelace wrote to Babbage when she was twenty-seven.",
    "Grace Hopper found the moth at forty.",
    "At fifty-one, Edsger Dijkstra still had no television.",
)


class Person(BaseModel):
    """The person that a text is about."""

    name: str
    age: int = Field(ge=0, le=150)


async def main() -> None:
    """Use `max_retries=0`: an answer that does not fit is then an error at once, instead of one more batch."""
    async with AsyncOpenAI() as sdk:
        client = instructor.from_openai(sdk)
        people = await asyncio.gather(
            *(
                client.create(
                    model="gpt-5-mini",
                    response_model=Person,
                    messages=[{"role": "user", "content": text}],
                    max_retries=0,
                )
                for text in TEXTS
            ),
            return_exceptions=True,
        )
    for text, person in zip(TEXTS, people, strict=True):
        print(f"{text}\n  -> {person!r}")
