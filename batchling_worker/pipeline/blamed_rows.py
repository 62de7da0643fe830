"""Finds the rows that a failed batch's complaints blame, while the rows are still in the order of the input file."""

from __future__ import annotations

from typing import Final

import msgspec

from batchling_client.wire.keys import RequestId

from ..decisions import blame
from ..dialects import http_errors
from ..errors import PermanentError
from ..provider import Complaint, Ending, error_body
from .step import Step

LONGEST_REFUSAL: Final = 8 * 1024
"""Bytes of a refusal that each request of a batch is answered with; of a longer one only its code and words."""


async def named(step: Step, ending: Ending) -> Ending:
    """Return the ending with the blamed requests and lines in its complaints; an unknown row blames nobody."""
    pointers = [blame.pointer(complaint) for complaint in ending.complaints]
    # Once rows were answered early, the rows that still wait no longer have their line numbers.
    lines = set() if step.batch.n_succeeded else {at.line for at in pointers if at.line is not None}
    spelt = {custom_id for at in pointers for custom_id in at.custom_ids}
    if not lines and not spelt:
        return ending
    by_line: dict[int, RequestId] = {}
    ours: dict[str, int] = {}
    line = 0
    async for rows in step.store.unanswered(step.batch.batch_id):
        for row in rows:
            line += 1
            if line in lines:
                by_line[line] = row.request_id
            if row.request_id in spelt:
                ours[row.request_id] = line

    def blaming(complaint: Complaint, at: blame.Pointer) -> Complaint:
        for custom_id in at.custom_ids:
            if custom_id in ours:
                return msgspec.structs.replace(complaint, request_id=custom_id, line=ours[custom_id])
        if at.line is not None and at.line in by_line:
            return msgspec.structs.replace(complaint, request_id=by_line[at.line], line=at.line)
        return msgspec.structs.replace(complaint, request_id=None)

    complaints = tuple(blaming(*one) for one in zip(ending.complaints, pointers, strict=True))
    return msgspec.structs.replace(ending, complaints=complaints)


async def of_refusal(step: Step, error: PermanentError, body: bytes) -> Ending:
    """Return the ending of a batch that was refused as a whole, with the rows that the refusal blames, if any."""
    if len(body) > LONGEST_REFUSAL:
        body = error_body(http_errors.code_of(body), http_errors.message_of(body))
    ending = Ending(status=error.status, body=body.decode(errors="replace"))
    if error.status not in blame.ROW_STATUSES:
        return ending
    blaming = await named(step, Ending(complaints=_Refusal.read(error.body).complaints(error.body)))
    if all(complaint.request_id is None for complaint in blaming.complaints):
        return ending
    return msgspec.structs.replace(ending, complaints=blaming.complaints)


class _Refusal(msgspec.Struct):
    error: object = None
    detail: object = None
    extra: object = None

    @classmethod
    def read(cls, body: bytes) -> _Refusal:
        try:
            return msgspec.json.decode(body, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return cls()

    def complaints(self, body: bytes) -> tuple[Complaint, ...]:
        """Return a complaint for each entry of a list of validation errors, else one with the body's sentence."""
        flaws = http_errors.flaws_of(self.detail) or http_errors.flaws_of(self.extra)
        if flaws:
            return tuple(Complaint(code=flaw.code, message=flaw.words) for flaw in flaws)
        return (Complaint(code=self.code, message=http_errors.message_of(body), param=self.param),)

    @property
    def code(self) -> str:
        code = self.error.get("code") if isinstance(self.error, dict) else None
        return code if isinstance(code, str) else ""

    @property
    def param(self) -> str | None:
        param = self.error.get("param") if isinstance(self.error, dict) else None
        return param if isinstance(param, str) else None
