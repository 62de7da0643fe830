"""The Batches API: create, retrieve, list, cancel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
from aiohttp import web

from ..batches import empty_pages
from ..batches.batch_book import BatchBook
from ..batches.dialect import FileDialect, Refusal
from ..batches.file_store import FileShelf
from ..batches.records import Batch, BatchView, CreateAsk, StoredFile
from ..batches.scan import LineError
from ..world.world import World
from .call_faults import CallFaults
from .gate import Gate, json_reply

A = TypeVar("A", bound=CreateAsk)

_CHUNK = 1 << 18
TERMINAL = ("completed", "failed", "expired", "cancelled")


class BatchesApi:
    """The routes of one provider's batches; a subclass may word calls and answers differently."""

    def __init__(self, world: World, dialect: FileDialect, shelf: FileShelf, book: BatchBook) -> None:
        self._world = world
        self._dialect = dialect
        self._shelf = shelf
        self._book = book
        self._call_faults = CallFaults(world, dialect.traits)

    def routes(self, gate: Gate) -> Iterator[web.RouteDef]:
        """Return the routes, behind `gate`."""
        batches = self._dialect.traits.batches
        yield gate.route("POST", batches, self._create)
        yield gate.route("GET", batches, self._list)
        yield gate.route("GET", batches + "/{batch_id}", self._show)
        yield gate.route("POST", batches + "/{batch_id}/cancel", self._cancel)

    def asked(self, body: bytes) -> CreateAsk:
        """Decode the body of a create call; raise Refusal if it is invalid."""
        return decode_ask(body, CreateAsk)

    def model(self, ask: CreateAsk, owner: str) -> str | None:
        """Return the model that a create call is for."""
        input_file = self._shelf.find(ask.input_file_id, owner)
        return input_file.model if input_file else None

    @contextlib.asynccontextmanager
    async def source(self, ask: CreateAsk, owner: str) -> AsyncIterator[StoredFile | LineError]:
        """Yield the input of a batch, with its lines in OpenAI's shape, or the error that the batch must fail with."""
        input_file = self._shelf.find(ask.input_file_id, owner)
        if input_file is None or input_file.purpose not in self._dialect.traits.batch_purposes:
            yield LineError("invalid_request", self._dialect.missing_input(ask), "file_id")
        else:
            yield input_file

    @contextlib.asynccontextmanager
    async def written(self, write: Callable[[BinaryIO], None]) -> AsyncIterator[Path]:
        """Yield a file that `write` has filled; delete it afterwards."""
        path = self._shelf.scratch()

        def fill() -> None:
            with path.open("wb", buffering=_CHUNK) as lines:
                write(lines)

        try:
            await asyncio.get_running_loop().run_in_executor(self._world.pool, fill)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def created(self, batch: object) -> web.Response:
        """Return the answer to a create call, given the batch as JSON."""
        return json_reply(batch, self._dialect.traits.created_status)

    def listing(self, batches: list[dict[str, Any]], envelope: Mapping[str, Any]) -> object:
        """Return the JSON of a page of the list."""
        return {"object": "list", "data": batches, **envelope}

    async def _create(self, request: web.Request, owner: str) -> web.StreamResponse:
        ask = self.asked(await request.read())
        model = self.model(ask, owner)
        lost = self._call_faults.before_create(request, model)
        if lost is not None:
            return lost
        window_s = self._dialect.window_seconds(ask)
        async with self.source(ask, owner) as source:
            self._book.check_rate(owner)
            tokens = await self._book.check_quota(ask, owner, source) if isinstance(source, StoredFile) else 0
            batch = self._book.create(ask, owner, window_s, source, tokens)
            if self._call_faults.doubles(model):
                batch = self._book.create(ask, owner, window_s, source, tokens)

        async def reply() -> web.Response:
            return self.created(self._dialect.batch_object(await self._book.show(batch)))

        return await self._call_faults.after_create(request, model, reply)

    async def _show(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self._find(request, owner)
        lost = self._call_faults.before_look(request, batch.model)
        return lost or json_reply(await self.told(request, batch))

    async def told(self, request: web.Request, batch: Batch) -> dict[str, Any]:
        """Move a batch on to now and return the JSON that a retrieve call gets."""
        return self._object(await self._book.show(batch))

    async def _list(self, request: web.Request, owner: str) -> web.StreamResponse:
        lost = self._call_faults.before_look(request, None)
        if lost is not None:
            return lost
        traits, query = self._dialect.traits, request.query
        newest_first = self._book.newest_first(owner)
        page = self._dialect.page(empty_pages.honest(traits, query), newest_first, self._world.limits)
        empty = self._call_faults.empties_page()
        if empty is not None:
            return json_reply(self.listing([], empty_pages.beside(traits, query, page.envelope, empty)))
        shown = [self._object(await self._book.listed(batch)) for batch in page.batches]
        return json_reply(self.listing(shown, page.envelope))

    def _object(self, view: BatchView) -> dict[str, Any]:
        return empty_pages.reworded(self._dialect.traits, self._dialect.batch_object(view), view.word)

    async def _cancel(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self._find(request, owner)
        self._call_faults.before_cancel(batch.model)
        view = await self._book.show(batch)
        if view.status in TERMINAL:
            raise self._dialect.not_cancellable(view)
        self._book.cancel(batch)
        return json_reply(self._object(await self._book.show(batch)))

    def _find(self, request: web.Request, owner: str) -> Batch:
        batch_id = request.match_info["batch_id"]
        batch = self._book.find(batch_id, owner)
        if batch is None:
            raise Refusal(404, f"No batch found with id '{batch_id}'.")
        return batch


def decode_ask(body: bytes, shape: type[A]) -> A:
    """Decode the body of a create call; raise Refusal if it has another shape."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"The request body is invalid: {error}.") from error
