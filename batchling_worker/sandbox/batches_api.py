"""The Batches API: create, look, list, cancel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgspec
from aiohttp import web

from .book import BatchBook
from .dialect import FileDialect, Refusal
from .gate import Gate, json_reply
from .records import Batch, BatchView, CreateAsk, StoredFile
from .scan import LineError
from .shelf import FileShelf
from .timing import shown_ask
from .weather import Weather
from .world import World

_TERMINAL = ("completed", "failed", "expired", "cancelled")


class BatchesApi:
    """The `/batches` routes of one provider."""

    def __init__(self, world: World, dialect: FileDialect, shelf: FileShelf, book: BatchBook) -> None:
        self._world = world
        self._dialect = dialect
        self._shelf = shelf
        self._book = book
        self._weather = Weather(world, dialect.traits.name)

    def routes(self, gate: Gate) -> Iterator[web.RouteDef]:
        """Return the routes, behind `gate`."""
        yield gate.route("POST", "/batches", self._create)
        yield gate.route("GET", "/batches", self._list)
        yield gate.route("GET", "/batches/{batch_id}", self._show)
        yield gate.route("POST", "/batches/{batch_id}/cancel", self._cancel)

    async def _create(self, request: web.Request, owner: str) -> web.StreamResponse:
        ask = _decode(await request.read())
        input_file = self._shelf.find(ask.input_file_id, owner)
        model = input_file.model if input_file else None
        lost = self._weather.before_create(request, model)
        if lost is not None:
            return lost
        window_s = self._dialect.window_seconds(ask)
        source: StoredFile | LineError
        if input_file is None or input_file.purpose != "batch":
            source = LineError("invalid_request", self._dialect.missing_input(ask), "file_id")
        else:
            source = input_file
        self._book.check_rate(owner)
        tokens = await self._book.check_quota(ask, owner, source) if isinstance(source, StoredFile) else 0
        batch = self._book.create(ask, owner, window_s, source, tokens)
        if self._weather.doubles(model):
            batch = self._book.create(ask, owner, window_s, source, tokens)

        async def reply() -> web.Response:
            shown = self._dialect.batch_object(await self._book.show(batch))
            return json_reply(shown, self._dialect.traits.created_status)

        return await self._weather.after_create(request, model, reply)

    async def _show(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self._find(request, owner)
        lost = self._weather.before_look(request, batch.model)
        return lost or json_reply(self._dialect.batch_object(await self._book.show(batch)))

    async def _list(self, request: web.Request, owner: str) -> web.StreamResponse:
        lost = self._weather.before_look(request, None)
        if lost is not None:
            return lost
        page = self._dialect.page(request.query, self._book.newest_first(owner), self._world.limits)
        shown = [self._dialect.batch_object(await self._listed(batch)) for batch in page.batches]
        return json_reply({"object": "list", "data": shown, **page.envelope})

    async def _listed(self, batch: Batch) -> BatchView:
        view = await self._book.show(batch)
        if not batch.plan.bare_in_lists:
            return view
        return replace(view, ask=shown_ask(view.ask, metadata=False, input_file=False))

    async def _cancel(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self._find(request, owner)
        self._weather.before_cancel(batch.model)
        view = await self._book.show(batch)
        if view.status in _TERMINAL:
            raise self._dialect.not_cancellable(view)
        self._book.cancel(batch)
        return json_reply(self._dialect.batch_object(await self._book.show(batch)))

    def _find(self, request: web.Request, owner: str) -> Batch:
        batch_id = request.match_info["batch_id"]
        batch = self._book.find(batch_id, owner)
        if batch is None:
            raise Refusal(404, f"No batch found with id '{batch_id}'.")
        return batch


def _decode(body: bytes) -> CreateAsk:
    try:
        return msgspec.json.decode(body, type=CreateAsk)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"The request body is invalid: {error}.") from error
