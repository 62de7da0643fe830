"""Checks that the body of a successful row is an answer of its endpoint."""

from __future__ import annotations

from dataclasses import replace

from batchling_client.wire import answer_shape

from ..provider import Answer


def checked(answer: Answer, endpoint: str) -> Answer:
    """Return the answer, or a failure if its body states an error or holds no answer."""
    if answer.origin != "provider" or not 200 <= answer.status < 300:
        return answer
    body = answer_shape.unpacked(answer.body)
    unfit = answer_shape.unfit(endpoint, body)
    if unfit is None:
        return answer if body is answer.body else replace(answer, body=body)
    origin = "provider" if unfit.own else answer_shape.UNFIT
    return replace(answer, status=unfit.status, body=unfit.body, origin=origin)
