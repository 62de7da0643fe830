"""LiteLLM: one question to models of several providers; each model gets its own batch.

For real:   pip install "litellm>=1.84"
            OPENAI_API_KEY=... GROQ_API_KEY=... batchling run examples/litellm_models.py:main
Rehearsed:  batchling run --sandbox examples/litellm_models.py:main
"""

import asyncio

import litellm

MODELS = ("openai/gpt-5-mini", "groq/llama-3.1-8b-instant")
QUESTIONS = ("What is a queue?", "What is a lease?", "What is a fencing token?")


async def main() -> None:
    """Leave `num_retries` at 0: batchling retries rows where that helps, and each retry of LiteLLM is a new batch."""
    asked = [(model, question) for model in MODELS for question in QUESTIONS]
    answers = await asyncio.gather(
        *(
            litellm.acompletion(model=model, messages=[{"role": "user", "content": question}])
            for model, question in asked
        ),
        return_exceptions=True,
    )
    for (model, question), answer in zip(asked, answers, strict=True):
        text = answer if isinstance(answer, BaseException) else answer.choices[0].message.content
        print(f"{model}: {question}\n  -> {text}")
