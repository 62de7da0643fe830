"""Two models, two batches: each answer is printed as soon as its batch is done.

For real:   GROQ_API_KEY=... python examples/streaming_batches.py
Rehearsed:  batchling run --sandbox examples/streaming_batches.py:compare
"""

import asyncio

from groq import AsyncGroq

from batchling import batchify

MODELS = ("openai/gpt-oss-20b", "llama-3.1-8b-instant")


async def compare(question: str = "Name one thing that gets better when it is done later.") -> None:
    """Ask both models, in ordinary SDK code without batches."""
    async with AsyncGroq() as client:
        asked = [
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
            for model in MODELS
        ]
        for answer in asyncio.as_completed(asked):
            completion = await answer
            print(f"{completion.model}: {completion.choices[0].message.content}", flush=True)


async def main() -> None:
    """Run the same code in a block: it is answered from batches."""
    async with batchify(name="compare"):
        await compare()


if __name__ == "__main__":
    asyncio.run(main())
