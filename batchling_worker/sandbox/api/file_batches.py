"""The emulator of a provider whose batches are uploaded files, given its dialect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aiohttp import web

from ..batches.batch_book import BatchBook
from ..batches.dialect import FileDialect
from ..batches.file_store import FileShelf
from ..world.world import World
from .batches_api import BatchesApi
from .files_api import FilesApi
from .gate import Gate
from .realtime import RealtimeApi
from .uploads_api import UploadsApi


class FileBatches:
    """Files, batches and realtime calls of one provider; `others` serve the same ones under roots of their own."""

    def __init__(
        self,
        world: World,
        dialect: FileDialect,
        *others: FileDialect,
        files: type[FilesApi] = FilesApi,
        batches: type[BatchesApi] = BatchesApi,
    ) -> None:
        self.name = dialect.traits.name
        self.traits = dialect.traits
        self._dialect = dialect
        self._gate = Gate(world, dialect)
        self._shelf = FileShelf(world, self.name, dialect.new_file_id)
        self._book = BatchBook(world, dialect, self._shelf)
        self._apis = [
            (
                Gate(world, one),
                files(world, one, self._shelf, self._book),
                batches(world, one, self._shelf, self._book),
                RealtimeApi(world, one),
            )
            for one in (dialect, *others)
        ]
        self._uploads = [
            (gate, UploadsApi(world, one, self._shelf, api))
            for one, (gate, api, *_) in zip((dialect, *others), self._apis, strict=True)
            if one.traits.takes_parts
        ]

    def routes(self) -> Iterator[web.RouteDef]:
        """Return every route of the provider."""
        for gate, files, batches, realtime in self._apis:
            yield from files.routes(gate)
            yield from batches.routes(gate)
            yield from realtime.routes(gate)
        for gate, uploads in self._uploads:
            yield from uploads.routes(gate)
        yield self._gate.unknown_route()

    async def batches(self) -> list[Mapping[str, object]]:
        """Move every batch on to now and return them as JSON, oldest first."""
        return [self._dialect.batch_object(view) for view in await self._book.catch_up()]

    async def clear(self) -> None:
        """Forget files and batches."""
        await self._book.clear()
        self._shelf.clear()
        for _, uploads in self._uploads:
            uploads.clear()
