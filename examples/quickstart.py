import asyncio

from openai import AsyncOpenAI

from batchling import batchify

client = AsyncOpenAI()


async def ask(word: str) -> str:
    prompt = f"Explain the word {word!r} in one sentence."
    answer = await client.responses.create(model="gpt-5-mini", input=prompt)
    return answer.output_text


async def main() -> None:
    async with batchify(name="words"):
        answers = await asyncio.gather(*map(ask, ("batch", "queue", "lease")), return_exceptions=True)
    print(*answers, sep="\n")


asyncio.run(main())
