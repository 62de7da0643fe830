"""The control plane, `/_sandbox/...`, for tests and rehearsals in other programs; loopback callers only."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec
from aiohttp import web

from .emulator import Emulator
from .world.fault import Fault
from .world.faults import decode_faults
from .world.world import Limits, World


class _ClockAsk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    advance: float = 0.0
    frozen: bool | None = None
    reset: bool = False


class Control:
    """Inspects and controls one sandbox over HTTP."""

    def __init__(self, world: World, emulators: Sequence[Emulator]) -> None:
        self._world = world
        self._emulators = emulators

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes of the control plane and of every provider."""
        for method, path, handler in (
            ("GET", "ledger", self._ledger),
            ("GET", "batches", self._batches),
            ("GET", "faults", self._faults),
            ("POST", "faults", self._arm),
            ("DELETE", "faults", self._disarm),
            ("GET", "clock", self._clock),
            ("POST", "clock", self._set_clock),
            ("GET", "speeds", self._speeds),
            ("POST", "speeds", self._set_speeds),
            ("GET", "limits", self._limits),
            ("POST", "limits", self._set_limits),
            ("POST", "reset", self._reset),
        ):
            yield web.route(method, f"/_sandbox/{path}", _loopback_only(handler))
        for emulator in self._emulators:
            yield from emulator.routes()
        yield web.route("*", "/{tail:.*}", self._nothing)

    async def catch_up(self) -> list[dict[str, object]]:
        """Move every batch of every provider on to now and return them, with their provider's name."""
        return [
            {"provider": emulator.name, **batch}
            for emulator in self._emulators
            for batch in await emulator.batches()
        ]

    async def clear(self) -> None:
        """Delete files, batches, faults and the ledger, and return to real time; limits and speeds stay."""
        for emulator in self._emulators:
            await emulator.clear()
        self._world.faults.clear()
        self._world.markers.clear()
        self._world.ledger.clear()
        self._world.clock.reset()

    async def _nothing(self, request: web.Request) -> web.Response:
        names = ", ".join(f"/{emulator.name}" for emulator in self._emulators)
        message = f"The batchling sandbox does not emulate {request.method} {request.path}: paths begin with {names}."
        return _json(
            {"error": {"message": message, "type": "invalid_request_error", "code": "unknown_url"}}, 404
        )

    async def _ledger(self, request: web.Request) -> web.Response:
        await self.catch_up()
        page = self._world.ledger.page()
        if request.query.get("rows") in ("0", "false"):
            page = msgspec.structs.replace(page, rows=[])
        return _json(page)

    async def _batches(self, request: web.Request) -> web.Response:
        return _json(await self.catch_up())

    async def _faults(self, request: web.Request) -> web.Response:
        return _json(self._world.faults.armed())

    async def _arm(self, request: web.Request) -> web.Response:
        wanted = decode_faults(await request.read())
        for fault in wanted:
            self._check_able(fault)
        self._world.faults.add(*wanted)
        return _json(self._world.faults.armed())

    def _check_able(self, fault: Fault) -> None:
        """Raise ValueError for a fault that its provider's API cannot show."""
        for emulator in self._emulators:
            reason = emulator.traits.unable.get(type(fault))
            if emulator.name == fault.provider and reason is not None:
                raise ValueError(f"{type(fault).__name__} cannot strike {emulator.name}: {reason}")

    async def _disarm(self, request: web.Request) -> web.Response:
        self._world.faults.clear()
        return _json([])

    async def _clock(self, request: web.Request) -> web.Response:
        clock = self._world.clock
        return _json({"now": clock.now(), "frozen": clock.frozen})

    async def _set_clock(self, request: web.Request) -> web.Response:
        ask = msgspec.json.decode(await request.read(), type=_ClockAsk)
        clock = self._world.clock
        if ask.reset:
            clock.reset()
        if ask.frozen is not None:
            clock.freeze() if ask.frozen else clock.thaw()
        clock.advance(ask.advance)
        return await self._clock(request)

    async def _speeds(self, request: web.Request) -> web.Response:
        return _json(self._world.speeds.named())

    async def _set_speeds(self, request: web.Request) -> web.Response:
        self._world.speeds.set(msgspec.json.decode(await request.read(), type=dict[str, float]))
        return await self._speeds(request)

    async def _limits(self, request: web.Request) -> web.Response:
        return _json(self._world.limits)

    async def _set_limits(self, request: web.Request) -> web.Response:
        changed = msgspec.json.decode(await request.read(), type=dict[str, object])
        self._world.limits = msgspec.convert(
            {**msgspec.structs.asdict(self._world.limits), **changed}, Limits
        )
        return await self._limits(request)

    async def _reset(self, request: web.Request) -> web.Response:
        await self.clear()
        return _json({"reset": True})


def _loopback_only(
    handler: Callable[[web.Request], Awaitable[web.Response]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def guarded(request: web.Request) -> web.Response:
        if request.remote is None or not ipaddress.ip_address(request.remote).is_loopback:
            return _json({"error": "The control plane answers callers on this machine only."}, 403)
        try:
            return await handler(request)
        except (ValueError, msgspec.MsgspecError) as error:
            return _json({"error": str(error)}, 400)

    return guarded


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
