"""Label a list of texts, in order; a text that fails does not affect the others.

For real:   pip install openai; OPENAI_API_KEY=... python examples/gather.py
Rehearsed:  batchling run --sandbox examples/gather.py:label
"""

import asyncio

from openai import APIStatusError, AsyncOpenAI

from batchling import batchify
from batchling_client import errors

REVIEWS = (
    "Arrived a day early and works as described.",
    "The second one broke within a week.",
    "It is a kettle. It boils water.",
)


async def label() -> None:
    """Send all requests at once and wait for all answers."""
    async with AsyncOpenAI() as client:
        labels = await asyncio.gather(*(label_of(client, review) for review in REVIEWS))
    for review, found in zip(REVIEWS, labels, strict=True):
        print(f"{review}\n  -> {found}")


async def label_of(client: AsyncOpenAI, review: str) -> str:
    """Return the label, or the reason why there is none."""
    prompt = f"Is this review good, bad or neither? One word.\n\n{review}"
    try:
        completion = await client.chat.completions.create(
            model="gpt-5-mini", messages=[{"role": "user", "content": prompt}]
        )
    except APIStatusError as error:
        # The provider's own error, or an error of the batch, such as its expiry.
        ours = errors.of(error)
        return f"no label: {ours or error.message}"
    return completion.choices[0].message.content or ""


async def main() -> None:
    """Run the same code in a block: it is answered from one batch."""
    async with batchify(name="labels") as run:
        await label()
        print(run.summary())


if __name__ == "__main__":
    asyncio.run(main())
