"""Cloud Storage: the part of its JSON API with which its official client stores, lists and reads objects."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from ..batches.dialect import Refusal
from ..world.world import World
from .call_faults import CallFaults
from .gate import Gate, json_reply

ROOT = "/gcs"
_BUCKET = "{bucket:[^/]+}"
_PAGE = 1000
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object; writing its name again makes a new generation."""

    bucket: str
    name: str
    generation: int
    path: Path
    n_bytes: int
    md5: str
    model: str | None = None
    """The model whose results the object holds."""


@dataclass(slots=True, kw_only=True)
class _Upload:
    """A resumable upload under way."""

    bucket: str
    name: str
    if_generation: str | None
    path: Path
    n_bytes: int = 0
    digest: Any = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))


class CloudStorage:
    """Buckets with objects on disk; they need not be created, and any key may read and write all of them."""

    def __init__(self, world: World, provider: str, call_faults: CallFaults) -> None:
        self._world = world
        self._call_faults = call_faults
        self._provider = provider
        self._numbers = itertools.count(1)
        self._objects: dict[tuple[str, str], StoredObject] = {}
        self._uploads: dict[str, _Upload] = {}

    def routes(self, gate: Gate) -> Iterator[web.RouteDef]:
        """Return every route of the store, behind `gate`."""
        upload = f"{ROOT}/upload/storage/v1/b/{_BUCKET}/o"
        yield gate.route("POST", upload, self._upload)
        yield gate.route("PUT", upload, self._chunk)
        yield gate.route("GET", f"{ROOT}/storage/v1/b/{_BUCKET}/o", self._list)
        yield gate.route("DELETE", f"{ROOT}/storage/v1/b/{_BUCKET}/o/{{name:.+}}", self._delete)
        for below in ("", "/download"):
            yield gate.route("GET", f"{ROOT}{below}/storage/v1/b/{_BUCKET}/o/{{name:.+}}", self._read)

    def new_path(self) -> Path:
        """Return a path for an object that is being written."""
        return self._world.directory / f"{self._provider}-object-{next(self._numbers)}"

    def find(self, url: str) -> StoredObject | None:
        """Return the object of that gs:// address."""
        bucket, _, name = url.removeprefix("gs://").partition("/")
        return self._objects.get((bucket, name))

    def put(self, url: str, path: Path, model: str | None) -> None:
        """Make a written file an object and replace an object of that name; `model` is the model of its results."""
        bucket, _, name = url.removeprefix("gs://").partition("/")
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False))
        self._keep(bucket, name, path, path.stat().st_size, digest.digest(), model)

    def clear(self) -> None:
        """Forget every object."""
        for one in self._objects.values():
            one.path.unlink(missing_ok=True)
        self._objects.clear()
        self._uploads.clear()

    def _keep(
        self, bucket: str, name: str, path: Path, n_bytes: int, md5: bytes, model: str | None = None
    ) -> StoredObject:
        old = self._objects.get((bucket, name))
        stored = StoredObject(
            bucket=bucket,
            name=name,
            generation=int(self._world.clock.now() * 1e6) * 1000 + next(self._numbers),
            path=path,
            n_bytes=n_bytes,
            md5=base64.b64encode(md5).decode(),
            model=model,
        )
        self._objects[bucket, name] = stored
        if old is not None:
            old.path.unlink(missing_ok=True)
        return stored

    async def _upload(self, request: web.Request, owner: str) -> web.StreamResponse:
        self._call_faults.before_upload(request)
        bucket, kind = request.match_info["bucket"], request.query.get("uploadType")
        if_generation = request.query.get("ifGenerationMatch")
        if kind == "resumable":
            body = await request.read()
            name = request.query.get("name") or msgspec.json.decode(body)["name"]
            self._check(bucket, name, if_generation)
            upload_id = secrets.token_urlsafe(24)
            path = self.new_path()
            path.touch()
            self._uploads[upload_id] = _Upload(
                bucket=bucket, name=name, if_generation=if_generation, path=path
            )
            location = request.url.with_query({"uploadType": "resumable", "upload_id": upload_id})
            return web.Response(headers={"Location": str(location)})
        if kind == "multipart":
            name, content = _two_parts(request.headers.get("Content-Type", ""), await request.read())
        else:
            name, content = request.query.get("name", ""), await request.read()
        self._check(bucket, name, if_generation)
        path = self.new_path()
        path.write_bytes(content)
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        kept = self._keep(bucket, name, path, len(content), digest)
        return await self._call_faults.after_upload(request) or json_reply(_shown(kept))

    async def _chunk(self, request: web.Request, owner: str) -> web.StreamResponse:
        upload_id = request.query.get("upload_id", "")
        upload = self._uploads.get(upload_id)
        said = _CONTENT_RANGE.fullmatch(request.headers.get("Content-Range", ""))
        if upload is None or said is None:
            raise Refusal(404, "The upload is not known, or has ended.")
        if said[1] is not None and int(said[1]) != upload.n_bytes:
            raise Refusal(400, f"The upload continues at byte {upload.n_bytes}.")
        with upload.path.open("ab") as file:
            while piece := await request.content.readany():
                file.write(piece)
                upload.digest.update(piece)
                upload.n_bytes += len(piece)
        if said[3] == "*" or int(said[3]) != upload.n_bytes:
            return web.Response(status=308, headers={"Range": f"bytes=0-{upload.n_bytes - 1}"})
        del self._uploads[upload_id]
        self._check(upload.bucket, upload.name, upload.if_generation)
        kept = self._keep(upload.bucket, upload.name, upload.path, upload.n_bytes, upload.digest.digest())
        return await self._call_faults.after_upload(request) or json_reply(_shown(kept))

    def _check(self, bucket: str, name: str, if_generation: str | None) -> None:
        found = self._objects.get((bucket, name))
        if if_generation is not None and str(found.generation if found else 0) != if_generation:
            raise Refusal(412, "At least one of the pre-conditions you specified did not hold.")

    async def _list(self, request: web.Request, owner: str) -> web.StreamResponse:
        bucket, prefix = request.match_info["bucket"], request.query.get("prefix", "")
        after = request.query.get("pageToken", "")
        names = sorted(
            name
            for place, name in self._objects
            if place == bucket and name.startswith(prefix) and name > after
        )
        size = min(int(request.query.get("maxResults", _PAGE)), _PAGE)
        page = names[:size]
        more = {"nextPageToken": page[-1]} if len(names) > size else {}
        items = [_shown(self._objects[bucket, name]) for name in page]
        return json_reply({"kind": "storage#objects", **({"items": items} if items else {}), **more})

    async def _delete(self, request: web.Request, owner: str) -> web.StreamResponse:
        place = request.match_info["bucket"], request.match_info["name"]
        found = self._objects.pop(place, None)
        if found is None:
            raise Refusal(404, f"No such object: {place[0]}/{place[1]}")
        found.path.unlink(missing_ok=True)
        return web.Response(status=204)

    async def _read(self, request: web.Request, owner: str) -> web.StreamResponse:
        bucket, name = request.match_info["bucket"], request.match_info["name"]
        found = self._objects.get((bucket, name))
        wanted = request.query.get("generation")
        if found is None or (wanted is not None and wanted != str(found.generation)):
            raise Refusal(404, f"No such object: {bucket}/{name}")
        if request.query.get("alt") != "media":
            return json_reply(_shown(found))
        headers = {"x-goog-generation": str(found.generation)}
        return await self._call_faults.send_range(request, found.path, found.model, found.n_bytes, headers)


def _two_parts(content_type: str, body: bytes) -> tuple[str, bytes]:
    """Return name and content of a multipart/related upload: metadata first, then the bytes."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    boundary = BytesParser().parsebytes(head, headersonly=True).get_param("boundary")
    parts = body.split(f"--{boundary}".encode())
    if len(parts) < 4:
        raise Refusal(400, "The upload has not two parts.")
    metadata, content = (part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts[1:3])
    return msgspec.json.decode(metadata)["name"], content


def _shown(one: StoredObject) -> dict[str, object]:
    return {
        "kind": "storage#object",
        "id": f"{one.bucket}/{one.name}/{one.generation}",
        "name": one.name,
        "bucket": one.bucket,
        "generation": str(one.generation),
        "metageneration": "1",
        "contentType": "application/jsonl",
        "size": str(one.n_bytes),
        "md5Hash": one.md5,
    }
