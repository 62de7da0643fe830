"""The Uploads API: a file is sent in parts, which are joined when the upload is completed."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from ..batches.dialect import FileDialect, Refusal
from ..batches.file_store import FileShelf
from ..batches.records import StoredFile
from ..world.world import World
from .files_api import FilesApi
from .gate import Gate, json_reply
from .multipart_form import Form, FormError

_HOUR_S: Final = 3600
_MOST_BYTES: Final = 8 << 30
_MOST_IN_PART: Final = 64 << 20


class _Create(msgspec.Struct, frozen=True):
    bytes: int
    filename: str
    mime_type: str
    purpose: str
    expires_after: dict[str, Any] | None = None


class _Complete(msgspec.Struct, frozen=True):
    part_ids: list[str]
    md5: str | None = None


@dataclass(slots=True, kw_only=True)
class _Upload:
    id: str
    owner: str
    ask: _Create
    created_at: float
    status: str = "pending"
    parts: dict[str, Path] = field(default_factory=dict)
    file: StoredFile | None = None

    @property
    def expires_at(self) -> int:
        return int(self.created_at) + _HOUR_S


class UploadsApi:
    """The `/uploads` routes of one provider; a completed upload becomes one of its files."""

    def __init__(self, world: World, dialect: FileDialect, shelf: FileShelf, files: FilesApi) -> None:
        self._world = world
        self._dialect = dialect
        self._shelf = shelf
        self._files = files
        self._uploads: dict[str, _Upload] = {}

    def routes(self, gate: Gate) -> Iterator[web.RouteDef]:
        """Return the routes, behind `gate`."""
        yield gate.route("POST", "/uploads", self._create)
        yield gate.route("POST", "/uploads/{upload_id}/parts", self._add)
        yield gate.route("POST", "/uploads/{upload_id}/complete", self._complete)
        yield gate.route("POST", "/uploads/{upload_id}/cancel", self._cancel)

    def clear(self) -> None:
        """Forget uploads and their parts."""
        for upload in self._uploads.values():
            self._drop(upload)
        self._uploads.clear()

    async def _create(self, request: web.Request, owner: str) -> web.StreamResponse:
        ask = _decoded(await request.read(), _Create)
        if not 0 < ask.bytes <= _MOST_BYTES:
            raise Refusal(400, f"'bytes' must be from 1 to {_MOST_BYTES}.", param="bytes")
        self._files.check({"purpose": ask.purpose}, ask.filename)
        self._files.retention_s(_expiry(ask))
        upload = _Upload(
            id=f"upload_{secrets.token_hex(16)}", owner=owner, ask=ask, created_at=self._world.clock.now()
        )
        self._uploads[upload.id] = upload
        return json_reply(self._object(upload))

    async def _add(self, request: web.Request, owner: str) -> web.StreamResponse:
        upload = self._find(request, owner)
        self._check_pending(upload)
        part_id, path = f"part_{secrets.token_hex(16)}", self._shelf.scratch()
        try:
            await self._receive(request, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        upload.parts[part_id] = path
        now = int(self._world.clock.now())
        return json_reply({"id": part_id, "object": "upload.part", "created_at": now, "upload_id": upload.id})

    async def _receive(self, request: web.Request, path: Path) -> None:
        found = False
        try:
            form = Form(request)
            async for part in form.parts():
                if part.name != "data":
                    continue
                found, n_bytes = True, 0
                with path.open("wb") as file:
                    async for chunk in form.chunks():
                        n_bytes += len(chunk)
                        if n_bytes > _MOST_IN_PART:
                            raise Refusal(400, f"A part may have {_MOST_IN_PART} bytes.", param="data")
                        file.write(chunk)
        except FormError as error:
            raise Refusal(400, str(error)) from error
        if not found:
            raise Refusal(400, "Missing required parameter: 'data'.", param="data")

    async def _complete(self, request: web.Request, owner: str) -> web.StreamResponse:
        upload = self._find(request, owner)
        self._check_pending(upload)
        ask = _decoded(await request.read(), _Complete)
        unknown = [one for one in ask.part_ids if one not in upload.parts]
        if unknown:
            raise Refusal(400, f"No such part of this upload: {unknown[0]}.", param="part_ids")
        path = self._shelf.scratch()
        try:
            n_bytes, digest = await asyncio.to_thread(
                _join, [upload.parts[one] for one in ask.part_ids], path
            )
            _check(upload.ask, ask, n_bytes, digest)
            fields = {"purpose": upload.ask.purpose, **_expiry(upload.ask)}
            upload.file = await self._files.keep(path, fields, upload.ask.filename, owner)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        upload.status = "completed"
        self._drop(upload)
        return json_reply(self._object(upload))

    async def _cancel(self, request: web.Request, owner: str) -> web.StreamResponse:
        upload = self._find(request, owner)
        self._check_pending(upload)
        upload.status = "cancelled"
        self._drop(upload)
        return json_reply(self._object(upload))

    def _find(self, request: web.Request, owner: str) -> _Upload:
        upload_id = request.match_info["upload_id"]
        upload = self._uploads.get(upload_id)
        if upload is None or upload.owner != owner:
            raise Refusal(404, f"No such Upload object: {upload_id}", param="upload_id")
        if upload.status == "pending" and self._world.clock.now() >= upload.expires_at:
            upload.status = "expired"
            self._drop(upload)
        return upload

    def _check_pending(self, upload: _Upload) -> None:
        if upload.status != "pending":
            raise Refusal(400, f"Upload {upload.id} is {upload.status}.", param="upload_id")

    def _drop(self, upload: _Upload) -> None:
        for path in upload.parts.values():
            path.unlink(missing_ok=True)
        upload.parts.clear()

    def _object(self, upload: _Upload) -> dict[str, object]:
        file = None if upload.file is None else self._dialect.file_object(upload.file)
        return {
            "id": upload.id,
            "object": "upload",
            "bytes": upload.ask.bytes,
            "created_at": int(upload.created_at),
            "expires_at": upload.expires_at,
            "filename": upload.ask.filename,
            "purpose": upload.ask.purpose,
            "status": upload.status,
            "file": file,
        }


def _decoded(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"The request body is invalid: {error}.") from error


def _expiry(ask: _Create) -> dict[str, str]:
    return {f"expires_after[{name}]": str(value) for name, value in (ask.expires_after or {}).items()}


def _check(announced: _Create, ask: _Complete, n_bytes: int, digest: str) -> None:
    if n_bytes != announced.bytes:
        message = f"The parts have {n_bytes} bytes, and {announced.bytes} were announced."
        raise Refusal(400, message, param="part_ids")
    if ask.md5 is not None and ask.md5 != digest:
        raise Refusal(400, "The MD5 checksum does not fit the parts.", param="md5")


def _join(parts: list[Path], path: Path) -> tuple[int, str]:
    """Write the parts as one file and return its length and its MD5 checksum."""
    with path.open("wb") as whole:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, whole)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return path.stat().st_size, digest
