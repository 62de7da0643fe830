"""LangChain: one chain with structured output over a whole list, two prompts per review, all at once.

For real:   pip install langchain-openai; OPENAI_API_KEY=... batchling run examples/langchain_reviews.py:main
Rehearsed:  batchling run --sandbox examples/langchain_reviews.py:main
"""

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

REVIEWS = (
    "The kettle arrived a day early and boils in two minutes.",
    "The second lamp flickers, and nobody answers my letters.",
    "It is a chair. One can sit on it.",
    "Blunt after a week, but the handle is a joy to hold.",
)


class Review(BaseModel):
    """The facts of a review."""

    product: str
    stars: int
    complaint: str | None


async def main() -> None:
    """Use `abatch` without `max_concurrency`: it sends all reviews at once, and each step of a chain is one batch."""
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Read this review as its shop would."), ("human", "{review}")]
    )
    chain = prompt | ChatOpenAI(model="gpt-5-mini").with_structured_output(Review)
    found = await chain.abatch([{"review": review} for review in REVIEWS], return_exceptions=True)
    for review, read in zip(REVIEWS, found, strict=True):
        print(f"{review}\n  -> {read!r}")
