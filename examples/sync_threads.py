"""A synchronous SDK client in a thread pool: each call blocks its own thread until its batch is done.

For real:   GROQ_API_KEY=... python examples/sync_threads.py
Rehearsed:  see "Rehearsing" in docs/commands.md

Each request waits in its own thread, so a batch holds at most as many requests as there are threads: for thousands of
requests use the asynchronous client.
"""

from concurrent.futures import ThreadPoolExecutor

from groq import Groq

from batchling import batchify

WORDS = ("batch", "queue", "lease", "token", "lane", "seal")


def translate(client: Groq, word: str) -> str:
    """Translate a text with one blocking call."""
    completion = client.chat.completions.create(
        model="llama-3.1-8b-instant",
        messages=[{"role": "user", "content": f"Translate into French, one word: {word}"}],
    )
    return completion.choices[0].message.content or ""


def main() -> None:
    """Use plain `with`: while the block is open, it covers every thread of the process."""
    with Groq() as client, batchify(name="translate"), ThreadPoolExecutor(len(WORDS)) as pool:
        answers = pool.map(lambda word: translate(client, word), WORDS)
        for word, answer in zip(WORDS, answers, strict=True):
            print(f"{word}: {answer}")


if __name__ == "__main__":
    main()
