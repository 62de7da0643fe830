"""Pydantic AI: many runs of one agent at once, with a tool and a typed output; each round of the runs is one batch.

For real:   pip install "pydantic-ai-slim[openai]"; OPENAI_API_KEY=... batchling run examples/pydantic_ai_agents.py:main
Rehearsed:  batchling run --sandbox examples/pydantic_ai_agents.py:main
"""

import asyncio

from pydantic import BaseModel
from pydantic_ai import Agent

RATES = {"EUR": 1.16, "GBP": 1.33}
INVOICES = (
    "Two kettles at 40 EUR each, carriage paid.",
    "Repair of a lamp, 55 GBP, due in March.",
    "Ten chairs, 900 EUR, less a tenth.",
)


class Invoice(BaseModel):
    """The facts of an invoice."""

    subject: str
    dollars: float


def dollars_for(currency: str) -> float:
    """Return the value of one unit of a currency in dollars."""
    return RATES.get(currency, 1.0)


async def main() -> None:
    """Run all agents at once: a run with a tool call waits for two batches, one before the call and one after it."""
    agent = Agent("openai-chat:gpt-5-mini", output_type=Invoice, tools=[dollars_for])
    runs = await asyncio.gather(*(agent.run(text) for text in INVOICES), return_exceptions=True)
    for text, run in zip(INVOICES, runs, strict=True):
        print(f"{text}\n  -> {run if isinstance(run, BaseException) else run.output!r}")
