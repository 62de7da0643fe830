"""Pydantic Evals: one batch answers a dataset, and the next one judges the answers.

For real:   pip install "pydantic-ai-slim[openai]" pydantic-evals
            OPENAI_API_KEY=... batchling run examples/pydantic_evals_answers.py:main
Rehearsed:  batchling run --sandbox examples/pydantic_evals_answers.py:main
"""

from pydantic_ai import Agent
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import LLMJudge

MODEL = "openai-chat:gpt-5-mini"
QUESTIONS = {
    "queue": "What is a queue?",
    "lease": "What is a lease?",
    "token": "What is a fencing token?",
}


async def main() -> None:
    """Leave out `max_concurrency` of `evaluate`: it would be the size of every batch."""
    agent = Agent(MODEL)

    async def ask(question: str) -> str:
        return str((await agent.run(question)).output)

    dataset = Dataset(
        name="words",
        cases=[Case(name=name, inputs=question) for name, question in QUESTIONS.items()],
        evaluators=[LLMJudge(rubric="Answers the question, in one sentence.", model=MODEL)],
    )
    report = await dataset.evaluate(ask, progress=False)
    report.print(include_input=True, include_output=True)
