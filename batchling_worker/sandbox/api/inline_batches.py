"""The emulator of a provider that takes the requests with the create, given its dialect."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from ..batches import empty_pages
from ..batches.batch_book import BatchBook
from ..batches.file_store import FileShelf
from ..batches.inline_dialect import InlineDialect, Told
from ..batches.inline_rows import convert, receive
from ..batches.records import Batch, BatchView, CreateAsk, StoredFile
from ..batches.scan import peek_model
from ..world.world import World
from .call_faults import CallFaults
from .gate import Gate, Handler, json_reply
from .realtime import RealtimeApi

_DAY_S = 86_400.0
_TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})


class Results(NamedTuple):
    """The files that hold the results of a batch."""

    path: Path
    n_bytes: int


class InlineBatches:
    """Batches and realtime calls of one provider."""

    def __init__(self, world: World, dialect: InlineDialect) -> None:
        self.name = dialect.traits.name
        self.traits = dialect.traits
        self._world = world
        self._dialect = dialect
        self._gate = Gate(world, dialect)
        self._call_faults = CallFaults(world, dialect.traits)
        numbers = itertools.count()
        self._shelf = FileShelf(world, self.name, lambda: f"{self.name}-file-{next(numbers)}")
        self._book = BatchBook(world, dialect, self._shelf)
        self._realtime = RealtimeApi(world, dialect)
        self._n_rows: dict[str, int] = {}
        self._results: dict[str, asyncio.Task[Results]] = {}

    def routes(self) -> Iterator[web.RouteDef]:
        """Return every route of the provider."""
        path = self._dialect.batches
        yield self.route("POST", path, self._create)
        yield self.route("GET", path, self._list)
        yield self.route("GET", f"{path}/{{batch_id}}", self._show)
        yield self.route("DELETE", f"{path}/{{batch_id}}", self._delete)
        yield self.route("POST", f"{path}/{{batch_id}}/cancel", self._cancel)
        yield self.route("GET", f"{path}/{{batch_id}}{self._dialect.results}", self._read)
        yield from self._realtime.routes(self._gate)
        yield self._gate.unknown_route()

    async def batches(self) -> list[Mapping[str, object]]:
        """Move every batch on to now and return them as JSON, oldest first."""
        return [self._object(batch, view, "") for batch, view in await self._book.shown()]

    async def clear(self) -> None:
        """Forget batches and their results."""
        await self._book.clear()
        await asyncio.gather(*self._results.values(), return_exceptions=True)
        self._results.clear()
        self._n_rows.clear()
        self._shelf.clear()

    def route(self, method: str, path: str, handler: Handler) -> web.RouteDef:
        """Return a route below the provider's root, behind its gate."""

        async def checked(request: web.Request, owner: str) -> web.StreamResponse:
            self._dialect.check_call(request.headers)
            return await handler(request, owner)

        return self._gate.route(method, path, checked)

    async def _create(self, request: web.Request, owner: str) -> web.StreamResponse:
        path = self._shelf.scratch()
        try:
            traits, limits = self._dialect.traits, self._world.limits
            n_rows = await receive(
                self._dialect,
                self._dialect.traits.endpoint_of(self._dialect.row_endpoint, request.headers),
                request.content.iter_any(),
                path,
                most_rows=traits.row_limit(limits),
                most_bytes=traits.byte_limit(limits),
            )
            model = peek_model(path)
            lost = self._call_faults.before_create(request, model)
            if lost is not None:
                path.unlink()
                return lost
            file = self._shelf.add(
                path, owner=owner, filename="requests.jsonl", purpose="batch", retention_s=_DAY_S, model=model
            )
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        try:
            batch = await self._make(file, owner, n_rows)
        finally:
            # The batch keeps its input under a name of its own.
            self._shelf.remove(file)

        async def reply() -> web.Response:
            shown = await self.shown(batch, request)
            return json_reply(shown, self._dialect.created_status)

        return await self._call_faults.after_create(request, model, reply)

    async def _make(self, file: StoredFile, owner: str, n_rows: int) -> Batch:
        ask = CreateAsk(input_file_id=file.id, endpoint=self._dialect.endpoint, completion_window="24h")
        self._book.check_rate(owner)
        tokens = await self._book.check_quota(ask, owner, file)
        for _ in range(2 if self._call_faults.doubles(file.model) else 1):
            batch = self._book.create(ask, owner, self._dialect.window_s, file, tokens)
            self._n_rows[batch.id] = n_rows
        return batch

    async def _show(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self.find(request, owner)
        lost = self._call_faults.before_look(request, batch.model)
        if lost is not None:
            return lost
        return json_reply(await self.shown(batch, request))

    async def _list(self, request: web.Request, owner: str) -> web.StreamResponse:
        lost = self._call_faults.before_look(request, None)
        if lost is not None:
            return lost
        traits, query = self._dialect.traits, request.query
        newest_first = self._book.newest_first(owner)
        page = self._dialect.page(empty_pages.honest(traits, query), newest_first, self._world.limits)
        empty = self._call_faults.empties_page()
        if empty is not None:
            beside = empty_pages.beside(traits, query, page.envelope, empty)
            return json_reply({self._dialect.list_name: [], **beside})
        views = [(batch, await self._book.listed(batch)) for batch in page.batches]
        shown = [self._object(batch, view, _origin(request)) for batch, view in views]
        return json_reply({self._dialect.list_name: shown, **page.envelope})

    async def _cancel(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self.find(request, owner)
        self._call_faults.before_cancel(batch.model)
        view = await self._book.show(batch)
        if view.status in _TERMINAL:
            raise self._dialect.not_cancellable(view)
        self._book.cancel(batch)
        return json_reply(await self.shown(batch, request))

    async def _delete(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self.find(request, owner)
        answer = self._dialect.deleted(await self._book.show(batch))
        self._book.remove(batch)
        return json_reply(answer)

    async def _read(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self.find(request, owner)
        results = await self.results_of(batch)
        return await self._call_faults.send(
            request, results.path, batch.model, results.n_bytes, self._dialect.results_type
        )

    async def results_of(self, batch: Batch) -> Results:
        """Return the results of a batch in the provider's shape; raise Refusal if they cannot be read."""
        files = self._files(batch, await self._book.show(batch))
        if files is None:
            raise self._dialect.no_results(batch)
        making = self._results.get(batch.id)
        if making is None:
            making = self._results[batch.id] = asyncio.create_task(self._convert(files))
        return await asyncio.shield(making)

    async def shown(self, batch: Batch, request: web.Request) -> dict[str, object]:
        """Move a batch on to now and return it as JSON."""
        return self._object(batch, await self._book.show(batch), _origin(request))

    async def _convert(self, files: list[StoredFile]) -> Results:
        path = self._shelf.scratch()
        sources = [file.path for file in files]
        loop = asyncio.get_running_loop()
        n_bytes = await loop.run_in_executor(self._world.pool, convert, self._dialect, sources, path)
        return Results(path, n_bytes)

    def _files(self, batch: Batch, view: BatchView) -> list[StoredFile] | None:
        """Return the files that hold the results; None if they cannot be read at the moment."""
        if view.status not in _TERMINAL or batch.outcome is None:
            return None
        pairs = (
            (batch.outcome.output_file_id, view.output_file_id),
            (batch.outcome.error_file_id, view.error_file_id),
        )
        files = []
        for made, told in pairs:
            if not made or not isinstance(made, str):
                continue
            file = self._shelf.find(made, batch.owner) if told == made or view.files != "own" else None
            if file is None:
                return None
            files.append(file)
        return files

    def _object(self, batch: Batch, view: BatchView, origin: str) -> dict[str, object]:
        url = None
        if view.files != "none" and self._files(batch, view) is not None:
            name = batch.id if view.files == "own" else f"{batch.id[:-4]}0000"
            below = f"{self._dialect.batches}/{name}{self._dialect.results}"
            url = f"{origin}/{self.name}{self._dialect.traits.root}{below}"
        n_rows = self._n_rows[batch.id]
        told = _told(batch, n_rows) if view.status in _TERMINAL else None
        shown = self._dialect.batch_object(batch, view, n_rows, told, url)
        return empty_pages.reworded(self._dialect.traits, shown, view.word)

    def find(self, request: web.Request, owner: str) -> Batch:
        """Return the batch that a call names, or raise Refusal."""
        batch_id = request.match_info["batch_id"]
        batch = self._book.find(batch_id, owner)
        if batch is None:
            raise self._dialect.not_found(batch_id)
        return batch


def _told(batch: Batch, n_rows: int) -> Told | None:
    outcome = batch.outcome
    if outcome is None:
        return None
    n_failed = n_rows if outcome.status == "failed" else outcome.n_failed - outcome.n_undone
    return Told(outcome.n_completed, n_failed, n_rows - outcome.n_completed - n_failed)


def _origin(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}"
