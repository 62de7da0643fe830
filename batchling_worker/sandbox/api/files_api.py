"""The Files API: streamed upload to disk, list, look, read, delete."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from ..batches import file_quota
from ..batches.batch_book import BatchBook
from ..batches.dialect import FileDialect, Refusal
from ..batches.file_store import FileShelf
from ..batches.records import StoredFile
from ..batches.scan import peek_model
from ..world.lies import RefuseErrorFile
from ..world.world import World
from .call_faults import CallFaults
from .gate import Gate, json_reply, refusal_of
from .multipart_form import Form, FormError

_CHUNK = 1 << 18
_MAX_FILES = 10_000


def refuse_error_file(fault: RefuseErrorFile | None, ended_at: float, now: float) -> None:
    """Raise Refusal while a fault keeps the error file of a batch from being read."""
    if fault is not None and (fault.seconds is None or now < ended_at + fault.seconds):
        raise refusal_of(fault)


class FilesApi:
    """The `/files` routes of one provider; a subclass adds its own checks."""

    def __init__(self, world: World, dialect: FileDialect, shelf: FileShelf, book: BatchBook) -> None:
        self._world = world
        self._dialect = dialect
        self._shelf = shelf
        self._book = book
        self._call_faults = CallFaults(world, dialect.traits)

    def routes(self, gate: Gate) -> Iterator[web.RouteDef]:
        """Return the routes, behind `gate`."""
        yield gate.route("POST", self._dialect.traits.uploads, self._upload)
        yield gate.route("GET", "/files", self._list)
        yield gate.route("GET", "/files/{file_id}", self._show)
        yield gate.route("DELETE", "/files/{file_id}", self._delete)
        yield gate.route("GET", "/files/{file_id}/content", self.content)

    async def check_lines(self, path: Path, purpose: str) -> None:
        """Raise Refusal if an uploaded file holds a line that the provider does not accept."""

    def listing(self, query: MultiMapping[str], files: list[StoredFile]) -> dict[str, Any]:
        """Return the JSON of the page asked for, given all files."""
        if query.get("order") == "asc":
            files.reverse()
        limit = query.get("limit", str(_MAX_FILES))
        if not limit.isdigit() or not 1 <= int(limit) <= _MAX_FILES:
            raise Refusal(400, f"'limit' must be from 1 to {_MAX_FILES}.", param="limit")
        after = query.get("after")
        places = [place for place, file in enumerate(files) if file.id == after]
        start = places[0] + 1 if places else 0
        page = files[start : start + int(limit)]
        return {
            "object": "list",
            "data": [self._dialect.file_object(file) for file in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": len(files) > start + len(page),
        }

    async def _upload(self, request: web.Request, owner: str) -> web.StreamResponse:
        self._call_faults.before_upload(request)
        path = self._shelf.scratch()
        try:
            fields, filename = await self._receive(request, path)
            file = await self.keep(path, fields, filename, owner)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        lost = await self._call_faults.after_upload(request)
        return lost or json_reply(self._dialect.file_object(file), self._dialect.traits.created_status)

    async def keep(self, path: Path, fields: dict[str, str], filename: str, owner: str) -> StoredFile:
        """Check an upload and add it to the owner's files, or raise Refusal."""
        purpose = self.check(fields, filename)
        retention_s = self.retention_s(fields)
        await self.check_lines(path, purpose)
        lasting = not fields.keys() & {"expires_after[seconds]", "expiry"}
        self.check_room(owner, _size(path), lasting=lasting)
        file = self._shelf.add(
            path,
            owner=owner,
            filename=filename,
            purpose=purpose,
            retention_s=retention_s,
            model=peek_model(path),
            hidden_s=self._call_faults.hides_file(),
            pending_s=self._call_faults.holds_file_pending(),
        )
        file.lasting = lasting
        return file

    async def _receive(self, request: web.Request, path: Path) -> tuple[dict[str, str], str]:
        fields: dict[str, str] = {}
        filename: str | None = None
        try:
            form = Form(request)
            async for part in form.parts():
                if part.name == "file":
                    filename = part.filename or "file"
                    await self._store(form, path)
                else:
                    fields[part.name] = await form.text()
        except FormError as error:
            raise Refusal(400, str(error)) from error
        if filename is None:
            raise Refusal(400, "Missing required parameter: 'file'.", param="file")
        return fields, filename

    async def _store(self, form: Form, path: Path) -> None:
        n_bytes, most = 0, self._dialect.traits.byte_limit(self._world.limits)
        with path.open("wb", buffering=_CHUNK) as file:
            async for chunk in form.chunks():
                n_bytes += len(chunk)
                if n_bytes > most:
                    message = f"The file is too large. The limit is {most} bytes."
                    raise Refusal(400, message, param="file")
                file.write(chunk)

    def check_room(self, owner: str, n_bytes: int, *, lasting: bool = True) -> None:
        """Raise Refusal if the upload exceeds its owner's limits on files."""
        files = self._shelf.newest_first(owner)
        file_quota.check_room(self._dialect.traits, self._world.limits, files, n_bytes, lasting=lasting)

    def check(self, fields: dict[str, str], filename: str) -> str:
        """Return the purpose of an upload, or raise Refusal."""
        purpose = fields.get("purpose")
        if purpose is None:
            raise Refusal(400, "Missing required parameter: 'purpose'.", param="purpose")
        if purpose not in self._dialect.traits.purposes:
            raise Refusal(400, f"'{purpose}' is not one of the purposes of a file.", param="purpose")
        if purpose in self._dialect.traits.batch_purposes and not filename.endswith(".jsonl"):
            raise self._dialect.wrong_file_name()
        return purpose

    def retention_s(self, fields: dict[str, str]) -> float:
        """Return how long an upload is kept, or raise Refusal."""
        allowed = self._dialect.traits.retention_s
        anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
        if anchor is None and seconds is None:
            return self._dialect.traits.input_retention_s
        if anchor != "created_at" or seconds is None or not seconds.isdigit() or int(seconds) not in allowed:
            message = (
                f"'expires_after' needs the anchor 'created_at' and {allowed[0]} to {allowed[-1]} seconds."
            )
            raise Refusal(400, message, param="expires_after")
        return float(seconds)

    async def _list(self, request: web.Request, owner: str) -> web.StreamResponse:
        query = request.query
        files = [f for f in self._shelf.newest_first(owner) if query.get("purpose") in (None, f.purpose)]
        return json_reply(self.listing(query, files))

    async def _show(self, request: web.Request, owner: str) -> web.StreamResponse:
        return json_reply(self._dialect.file_object(self.find(request, owner)))

    async def _delete(self, request: web.Request, owner: str) -> web.StreamResponse:
        file = self.find(request, owner)
        self._shelf.remove(file)
        return json_reply({"id": file.id, "object": "file", "deleted": True})

    async def content(self, request: web.Request, owner: str) -> web.StreamResponse:
        """Send the content of a file."""
        file = self.find(request, owner)
        refuse_error_file(file.refusing, file.created_at, self._world.clock.now())
        return await self._call_faults.send(request, file.path, file.model, file.n_bytes)

    def find(self, request: web.Request, owner: str) -> StoredFile:
        """Return the file that a call names, or raise Refusal."""
        file_id = request.match_info["file_id"]
        file = self._shelf.find(file_id, owner)
        if file is None:
            raise Refusal(404, f"No such File object: {file_id}", param="id")
        return file


def _size(path: Path) -> int:
    return path.stat().st_size
