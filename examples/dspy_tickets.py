"""DSPy: a typed signature over many inputs at once.

For real:   pip install dspy; OPENAI_API_KEY=... batchling run examples/dspy_tickets.py:main
Rehearsed:  batchling run --sandbox examples/dspy_tickets.py:main
"""

import asyncio
from typing import Literal

import dspy

TICKETS = (
    "My invoice shows the same kettle twice.",
    "The lamp flickers since yesterday.",
    "Do you sell chairs for children?",
)


class Triage(dspy.Signature):
    """Say who answers a ticket, and how soon."""

    ticket: str = dspy.InputField()
    team: Literal["billing", "repairs", "sales"] = dspy.OutputField()
    hours: int = dspy.OutputField()


async def main() -> None:
    """Ask at once: `acall` has no limit of threads; JSONAdapter and `num_retries=0` send nothing twice."""
    lm = dspy.LM("openai/gpt-5-mini", temperature=1.0, max_tokens=16000, cache=False, num_retries=0)
    triage = dspy.Predict(Triage)
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        found = await asyncio.gather(
            *(triage.acall(ticket=ticket) for ticket in TICKETS), return_exceptions=True
        )
    for ticket, one in zip(TICKETS, found, strict=True):
        print(
            f"{ticket}\n  -> {one if isinstance(one, BaseException) else f'{one.team} within {one.hours} h'}"
        )
