"""An object store: the part of S3 with which its official client stores, lists and reads files."""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape, unescape

from aiohttp import web

from ..batches.dialect import Refusal
from ..world.world import World
from .call_faults import CallFaults
from .gate import MOVED, redirect

_CHUNK = 1 << 18
_PAGE = 1000
_CODES = {400: "InvalidRequest", 403: "AccessDenied", 404: "NoSuchKey", 416: "InvalidRange", 503: "SlowDown"}
_KEY = re.compile(r"<Key>([^<]*)</Key>")
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class ObjectStore:
    """Buckets with files on disk; they need not be created, and anybody who knows a name may read and write it."""

    def __init__(self, world: World, provider: str, call_faults: CallFaults) -> None:
        self._world = world
        self._call_faults = call_faults
        self._provider = provider
        self._numbers = itertools.count()
        self._objects: dict[str, Path] = {}
        self._models: dict[str, str | None] = {}
        self._parts: dict[str, dict[int, Path]] = {}

    def routes(self) -> Iterator[web.RouteDef]:
        """Return every route of the store, below `/PROVIDER/s3`."""
        root = f"/{self._provider}/{MOVED}s3/{{bucket}}"
        yield web.get(root, self._list)
        yield web.get(f"{root}/{{key:.+}}", self._read)
        yield web.put(f"{root}/{{key:.+}}", self._write)
        yield web.post(f"{root}/{{key:.+}}", self._many_parts)
        yield web.delete(f"{root}/{{key:.+}}", self._delete)
        yield web.post(root, self._delete_many)

    def find(self, url: str) -> Path | None:
        """Return the file of an object, named as s3://BUCKET/KEY."""
        return self._objects.get(url.removeprefix("s3://"))

    def new_path(self) -> Path:
        """Return a path for a file that is being written."""
        return self._world.directory / f"{self._provider}-object-{next(self._numbers)}"

    def put(self, url: str, path: Path, model: str | None = None) -> None:
        """Make a written file an object; `model` is the model of its results."""
        old = self._objects.get(name := url.removeprefix("s3://"))
        self._objects[name] = path
        self._models[name] = model
        if old is not None:
            old.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget every object."""
        for path in self._objects.values():
            path.unlink(missing_ok=True)
        self._objects.clear()
        self._models.clear()
        self._parts.clear()

    async def _write(self, request: web.Request) -> web.Response:
        try:
            self._call_faults.before_upload(request)
        except Refusal as refusal:
            await request.read()
            return self._refused(request, refusal)
        path = await self._receive(request)
        upload_id = request.query.get("uploadId")
        if upload_id is None:
            self.put(_name(request), path)
        elif upload_id in self._parts:
            self._parts[upload_id][int(request.query["partNumber"])] = path
        else:
            return _error(404, "NoSuchUpload", "The specified upload does not exist.")
        return await self._call_faults.after_upload(request) or web.Response(headers={"ETag": _tag(path)})

    async def _receive(self, request: web.Request) -> Path:
        path = self.new_path()
        with path.open("wb", buffering=_CHUNK) as file:
            while chunk := await request.content.readany():
                file.write(chunk)
        return path

    async def _many_parts(self, request: web.Request) -> web.Response:
        if "uploads" in request.query:
            upload_id = f"upload{next(self._numbers)}"
            self._parts[upload_id] = {}
            return _xml("InitiateMultipartUploadResult", f"<UploadId>{upload_id}</UploadId>")
        await request.read()
        parts = self._parts.pop(request.query.get("uploadId", ""), None)
        if parts is None:
            return _error(404, "NoSuchUpload", "The specified upload does not exist.")
        path = self.new_path()
        with path.open("wb", buffering=_CHUNK) as whole:
            for _, part in sorted(parts.items()):
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, whole, _CHUNK)
                part.unlink()
        self.put(_name(request), path)
        return _xml("CompleteMultipartUploadResult", f"<ETag>{escape(_tag(path))}</ETag>")

    async def _delete(self, request: web.Request) -> web.Response:
        self._remove(_name(request))
        return web.Response(status=204)

    async def _delete_many(self, request: web.Request) -> web.Response:
        if "delete" not in request.query:
            return _error(400, "InvalidRequest", "Only deletes are posted to a bucket.")
        keys = [unescape(key) for key in _KEY.findall(await request.text())]
        for key in keys:
            self._remove(f"{request.match_info['bucket']}/{key}")
        told = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        return _xml("DeleteResult", told)

    def _remove(self, name: str) -> None:
        path = self._objects.pop(name, None)
        self._models.pop(name, None)
        if path is not None:
            path.unlink(missing_ok=True)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        path = self._objects.get(_name(request))
        if path is None:
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        headers = {"ETag": _tag(path), "Accept-Ranges": "bytes"}
        model = self._models.get(_name(request))
        try:
            return await self._call_faults.send_range(request, path, model, path.stat().st_size, headers)
        except Refusal as refusal:
            return self._refused(request, refusal)

    def _refused(self, request: web.Request, refusal: Refusal) -> web.Response:
        return redirect(request, self._provider) if refusal.moved else _refused(refusal)

    async def _list(self, request: web.Request) -> web.Response:
        bucket = request.match_info["bucket"]
        prefix, after = request.query.get("prefix", ""), request.query.get("continuation-token", "")
        keys = sorted(
            name.removeprefix(f"{bucket}/") for name in self._objects if name.startswith(f"{bucket}/")
        )
        keys = [key for key in keys if key.startswith(prefix) and key > after]
        page = keys[:_PAGE]
        more = len(keys) > len(page)
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{self._objects[f'{bucket}/{key}'].stat().st_size}</Size></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return _xml(
            "ListBucketResult",
            f"<Name>{escape(bucket)}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{contents}{token}",
        )


def _name(request: web.Request) -> str:
    return f"{request.match_info['bucket']}/{request.match_info['key']}"


def _tag(path: Path) -> str:
    return f'"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}"'


def _xml(root: str, content: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><{root} {_NAMESPACE}>{content}</{root}>'
    return web.Response(text=text, content_type="application/xml")


def _refused(refusal: Refusal) -> web.Response:
    response = _error(refusal.status, _CODES.get(refusal.status, "InternalError"), refusal.message)
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = refusal.retry_after
    return response


def _error(status: int, code: str, message: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return web.Response(status=status, text=text, content_type="application/xml")
