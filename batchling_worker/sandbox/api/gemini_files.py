"""The Files API of the Gemini API: resumable uploads; get, list and delete files."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from ..batches.dialect import Refusal, Traits
from ..batches.file_quota import check_room
from ..batches.file_store import FileShelf
from ..batches.records import StoredFile
from ..world.world import World
from .call_faults import CallFaults
from .gate import Gate, json_reply

PURPOSE = "uploaded"
RETENTION_S = 48 * 3600.0
VERSION = "{version:v1(?:alpha|beta)?}"
_NAME = re.compile(r"files/[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


class _Wish(msgspec.Struct, frozen=True):
    name: str | None = None
    display_name: str | None = None
    displayName: str | None = None  # noqa: N815 - proto-JSON takes both spellings
    mime_type: str | None = None
    mimeType: str | None = None  # noqa: N815


class _Start(msgspec.Struct, frozen=True):
    file: _Wish = _Wish()


@dataclass(slots=True, kw_only=True)
class _Upload:
    """An upload under way."""

    owner: str
    name: str
    display_name: str
    mime_type: str
    size: int
    path: Path
    offset: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class GeminiFiles:
    """The routes of files; a file's id in the file store is its name, `files/...`."""

    def __init__(self, world: World, traits: Traits, shelf: FileShelf) -> None:
        self._world = world
        self._traits = traits
        self._shelf = shelf
        self._call_faults = CallFaults(world, traits)
        self._uploads: dict[str, _Upload] = {}
        self._mime_types: dict[str, str] = {}
        self._hashes: dict[str, str] = {}

    def routes(self, gate: Gate) -> Iterator[web.RouteDef]:
        """Return the routes, behind `gate`."""
        yield gate.route("POST", f"/upload/{VERSION}/files", self._upload, keyless=_is_chunk)
        yield gate.route("GET", f"/{VERSION}/files", self._list)
        yield gate.route("GET", f"/{VERSION}/files/{{name}}", self._show)
        yield gate.route("DELETE", f"/{VERSION}/files/{{name}}", self._delete)

    def clear(self) -> None:
        """Forget uploads that are under way."""
        self._uploads.clear()
        self._mime_types.clear()
        self._hashes.clear()

    async def _upload(self, request: web.Request, owner: str) -> web.StreamResponse:
        return await (self._chunk(request) if _is_chunk(request) else self._start(request, owner))

    async def _start(self, request: web.Request, owner: str) -> web.StreamResponse:
        self._call_faults.before_upload(request)
        if request.headers.get("x-goog-upload-command") != "start":
            raise Refusal(400, "Only resumable uploads are emulated: X-Goog-Upload-Command must be 'start'.")
        size = request.headers.get("x-goog-upload-header-content-length", "")
        most = self._traits.byte_limit(self._world.limits)
        if not size.isdigit() or int(size) > most:
            raise Refusal(400, f"The file is too large. The limit is {most} bytes.")
        files = [file for file in self._shelf.newest_first(owner) if file.purpose == PURPOSE]
        check_room(self._traits, self._world.limits, files, int(size), lasting=False)
        wish = _decode(await request.read())
        name = wish.name or f"files/{secrets.token_hex(6)}"
        name = name if name.startswith("files/") else f"files/{name}"
        if not _NAME.fullmatch(name):
            raise Refusal(400, f"* CreateFileRequest.file.name: '{name}' is not a valid file name.")
        if self._shelf.taken(name):
            raise Refusal(409, f"File {name} already exists.")
        upload_id = secrets.token_urlsafe(24)
        self._uploads[upload_id] = _Upload(
            owner=owner,
            name=name,
            display_name=wish.display_name or wish.displayName or "",
            mime_type=wish.mime_type or wish.mimeType or "application/octet-stream",
            size=int(size),
            path=self._shelf.scratch(),
        )
        self._uploads[upload_id].path.touch()
        url = request.url.with_query({"upload_id": upload_id, "upload_protocol": "resumable"})
        return web.Response(headers={"x-goog-upload-url": str(url), "x-goog-upload-status": "active"})

    async def _chunk(self, request: web.Request) -> web.StreamResponse:
        upload = self._uploads.get(request.query["upload_id"])
        if upload is None:
            raise Refusal(404, "The upload is not known, or has ended.")
        if request.headers.get("x-goog-upload-offset") != str(upload.offset):
            raise Refusal(400, f"The upload continues at byte {upload.offset}.")
        with upload.path.open("ab") as file:
            async for piece in request.content.iter_any():
                file.write(piece)
                upload.digest.update(piece)
                upload.offset += len(piece)
        if "finalize" not in request.headers.get("x-goog-upload-command", ""):
            return web.Response(headers={"x-goog-upload-status": "active"})
        if upload.offset != upload.size:
            raise Refusal(400, f"The upload ends at byte {upload.offset} and was to have {upload.size}.")
        del self._uploads[request.query["upload_id"]]
        file_ = self._keep(upload)
        lost = await self._call_faults.after_upload(request)
        if lost is not None:
            return lost
        shown = json_reply({"file": self._shown(file_)})
        shown.headers["x-goog-upload-status"] = "final"
        return shown

    def _keep(self, upload: _Upload) -> StoredFile:
        self._mime_types[upload.name] = upload.mime_type
        self._hashes[upload.name] = base64.b64encode(upload.digest.hexdigest().encode()).decode()
        return self._shelf.add(
            upload.path,
            owner=upload.owner,
            filename=upload.display_name,
            purpose=PURPOSE,
            retention_s=RETENTION_S,
            hidden_s=self._call_faults.hides_file(),
            file_id=upload.name,
        )

    async def _list(self, request: web.Request, owner: str) -> web.StreamResponse:
        files = [file for file in self._shelf.newest_first(owner) if file.purpose == PURPOSE]
        size, token = request.query.get("pageSize", "10"), request.query.get("pageToken", "0")
        start = int(token) if token.isdigit() else 0
        page = files[start : start + int(size)]
        more = {"nextPageToken": str(start + len(page))} if start + len(page) < len(files) else {}
        return json_reply({"files": [self._shown(file) for file in page], **more})

    async def _show(self, request: web.Request, owner: str) -> web.StreamResponse:
        return json_reply(self._shown(self._find(request, owner)))

    async def _delete(self, request: web.Request, owner: str) -> web.StreamResponse:
        self._shelf.remove(self._find(request, owner))
        return json_reply({})

    def _find(self, request: web.Request, owner: str) -> StoredFile:
        name = f"files/{request.match_info['name']}"
        file = self._shelf.find(name, owner)
        if file is None or file.purpose != PURPOSE:
            # Google gives the same answer for another owner's file as for a missing one.
            raise Refusal(
                403, f"You do not have permission to access the File {name[6:]} or it may not exist."
            )
        return file

    def _shown(self, file: StoredFile) -> dict[str, object]:
        return {
            "name": file.id,
            "displayName": file.filename,
            "mimeType": self._mime_types.get(file.id, "application/octet-stream"),
            "sizeBytes": str(file.n_bytes),
            "createTime": timestamp(file.created_at),
            "updateTime": timestamp(file.created_at),
            "expirationTime": timestamp(file.expires_at or 0.0),
            "sha256Hash": self._hashes.get(file.id, ""),
            "uri": f"https://generativelanguage.googleapis.com/v1beta/{file.id}",
            "state": "ACTIVE",
            "source": "UPLOADED",
        }


def timestamp(at: float) -> str:
    """Return unix seconds as Google writes times."""
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat().replace("+00:00", "Z")


def _is_chunk(request: web.Request) -> bool:
    # The URL of an upload is its credential: calls to it carry no key.
    return "upload_id" in request.query


def _decode(body: bytes) -> _Wish:
    try:
        return msgspec.json.decode(body, type=_Start).file if body else _Wish()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"Invalid JSON payload received. {error}.") from error
