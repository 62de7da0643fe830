"""What the Lua scripts of accounts take and answer: a stub each for their circuits and quotas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from .keys import CIRCUIT, IN_FLIGHT, BatchId, LaneId
from .states import Verdict
from .stubs import Stubs, script

AdmitVerdict: TypeAlias = Literal[Verdict.OK, Verdict.HELD, Verdict.LARGE, Verdict.STALE]
EnterVerdict: TypeAlias = Literal[Verdict.OK, Verdict.OPEN, Verdict.PARKED]
Done: TypeAlias = Literal[Verdict.OK]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Answer of `admit`; the fields beside the verdict are set if the batch has to wait or is too large."""

    verdict: AdmitVerdict
    n_others: int = 0
    tokens_in_flight: int = 0
    limit: int = 0
    held_until_ms: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Answer of `enter`; `told` = the caller must report the end of its call."""

    verdict: EnterVerdict
    told: bool = False
    wait_ms: int = 0
    why: str = ""
    status: int = 0
    body: bytes = b""
    n_refused: int = 0
    refused_for_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """How long a circuit opens, in ms: a draw (0 to 1) from 0 to a ceiling that doubles each time."""

    first_ms: int
    longest_ms: int
    shortest_ms: int
    draw: float
    wish_ms: int
    """What the provider asks for; never less."""

    @property
    def millionths(self) -> int:
        """The draw in millionths."""
        return int(self.draw * 1_000_000)


def _admission(verdict: AdmitVerdict, *rest: Any) -> Admission:
    match verdict:
        case Verdict.HELD:
            n_others, tokens, limit, until_ms, why = rest
            return Admission(
                verdict=verdict,
                n_others=n_others,
                tokens_in_flight=tokens,
                limit=limit,
                held_until_ms=until_ms,
                why=why.decode(),
            )
        case Verdict.LARGE:
            return Admission(verdict=verdict, limit=rest[0])
        case Verdict.OK | Verdict.STALE:
            return Admission(verdict=verdict)


def _entry(verdict: EnterVerdict, *rest: Any) -> Entry:
    match verdict:
        case Verdict.OK:
            return Entry(verdict=verdict, told=rest[0] == b"1")
        case Verdict.OPEN:
            return Entry(verdict=verdict, wait_ms=rest[0], why=rest[1].decode())
        case Verdict.PARKED:
            wait_ms, why, status, body, n_refused, refused_for_ms = rest
            return Entry(
                verdict=verdict,
                wait_ms=wait_ms,
                why=why.decode(),
                status=int(status),
                body=body,
                n_refused=n_refused,
                refused_for_ms=refused_for_ms,
            )


class AccountScripts(Stubs):
    """The moves of accounts. A stub's name is that of its script's file."""

    @script(AdmitVerdict, read=_admission)
    async def admit(
        self,
        *,
        quota_id: str,
        batch_id: BatchId,
        token: int,
        lane_id: LaneId,
        tokens: int,
        divisible: bool,
        account: str,
        turn_ms: int,
        step_ms: int,
        others: Sequence[BatchId],
        keep_ms: int = IN_FLIGHT.ms,
    ) -> Admission:
        """Admit a sealed batch to its quota."""

    @script(read=tuple)
    async def teach(
        self,
        *,
        quota_id: str,
        batch_id: BatchId,
        limit: int,
        alone: bool,
        hold_ms: int,
        trusted_ms: int,
        row_ms: int,
        why: str,
        keep_ms: int = IN_FLIGHT.ms,
    ) -> tuple[int, int]:
        """Store what a refusal taught; return (refusals in a row alone, ms since the first)."""

    @script(EnterVerdict, read=_entry)
    async def enter(self, *, circuits: Sequence[str], trial_ms: int, longest_ms: int) -> Entry:
        """Ask whether an account may be called."""

    @script(read=int)
    async def trip(
        self, *, circuit: str, opens_after: int, pause: Pause, why: str, forget_ms: int = CIRCUIT.ms
    ) -> int:
        """Count a failed call; return for how long the circuit is open, in ms."""

    @script(Done)
    async def park(
        self,
        *,
        circuit: str,
        pause_ms: int,
        status: int,
        body: bytes,
        why: str,
        forget_ms: int = CIRCUIT.ms,
    ) -> Done:
        """Park an account or a lane whose key was refused."""

    @script(Done)
    async def leave(self, *, circuits: Sequence[str], answered: bool) -> Done:
        """End a call that `enter` let in, if it did not fail."""
