"""The last check of a call before it leaves the process: a rehearsal sends no call to a real provider."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

from .interceptor import PASS_THROUGH, Handler, HttpCall, HttpReply, PassThrough
from .passed import Passed, not_sent


class Gate(Protocol):
    """What a rehearsal does with the calls that no batch answers."""

    def wants(self, method: str, host: str, path: str) -> bool:
        """Say whether such a call would reach a real provider."""
        ...

    def refused(self, call: HttpCall) -> HttpReply | None:
        """Return the error with which such a call is answered; None if it goes to the sandbox."""
        ...

    def guards(self, host: str) -> bool:
        """Say whether every connection to a host is refused, whatever library opens it."""
        ...

    def refusal(self, host: str) -> Exception:
        """Return the error for a call that can be refused and not answered."""
        ...

    async def answer(self, call: HttpCall) -> HttpReply:
        """Answer the call in the place of its provider."""
        ...

    def answer_blocking(self, call: HttpCall) -> HttpReply:
        """Answer the call in the place of its provider, in the caller's thread."""
        ...


_closed: Final[list[Gate]] = []


def close(gate: Gate) -> None:
    """Let no call of this process pass by this gate from now on."""
    _closed[:] = [gate]


def open_again() -> None:
    """Let calls pass again."""
    _closed.clear()


def of_process() -> Gate | None:
    """Return the gate of this process, if it has one."""
    return _closed[0] if _closed else None


def behind(handler: Handler | None) -> Handler | None:
    """Return the block; where there is a gate, it checks the calls that the block lets through."""
    return Gated(handler, _closed[0]) if _closed else handler


def judged(gate: Gate, call: HttpCall) -> AbstractContextManager[None]:
    """Count a call that the gate is about to refuse as refused, where its block would count it as passed."""
    wanted = gate.wants(call.method, call.host, call.path)
    return not_sent() if wanted and gate.refused(call) is not None else nullcontext()


class Gated:
    """A block, or none, in a process whose calls do not reach real providers."""

    def __init__(self, handler: Handler | None, gate: Gate) -> None:
        self._handler = handler
        self._gate = gate

    @property
    def passed(self) -> Passed | None:
        return None if self._handler is None else self._handler.passed

    def wants(self, method: str, host: str, path: str) -> bool:
        return self._is_caught(method, host, path) or self._gate.wants(method, host, path)

    def passes(self, method: str, host: str, path: str) -> bool:
        return self._handler is not None and self._handler.passes(method, host, path)

    def answer(self, call: HttpCall) -> Coroutine[Any, Any, HttpReply | PassThrough]:
        return self._answer(call)

    def answer_blocking(self, call: HttpCall) -> HttpReply | PassThrough:
        with judged(self._gate, call):
            handler = self._caught_by(call)
            reply = PASS_THROUGH if handler is None else handler.answer_blocking(call)
            if not isinstance(reply, PassThrough):
                return reply
        if not self._gate.wants(call.method, call.host, call.path):
            return reply
        with reply:
            return self._gate.answer_blocking(call)

    async def _answer(self, call: HttpCall) -> HttpReply | PassThrough:
        with judged(self._gate, call):
            handler = self._caught_by(call)
            reply = PASS_THROUGH if handler is None else await handler.answer(call)
            if not isinstance(reply, PassThrough):
                return reply
        if not self._gate.wants(call.method, call.host, call.path):
            return reply
        with reply:
            return await self._gate.answer(call)

    def _caught_by(self, call: HttpCall) -> Handler | None:
        """Return the block if it takes the call, else count a call that passes."""
        if self._is_caught(call.method, call.host, call.path):
            return self._handler
        self.passes(call.method, call.host, call.path)
        return None

    def _is_caught(self, method: str, host: str, path: str) -> bool:
        return self._handler is not None and self._handler.wants(method, host, path)
