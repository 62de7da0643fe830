"""Applies the armed faults to a provider's calls; every emulator calls these hooks at the same moments."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from aiohttp import web

from ..batches.dialect import Refusal, Traits
from ..world import faults
from ..world.lies import Call
from ..world.world import World
from .garbled import garbled
from .gate import REQUEST_ID, cut_short, hang_up, new_request_id, refusal_of

_CHUNK = 1 << 18
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class CallFaults:
    """The faults of one provider's calls; an answer that a hook returns replaces the provider's own."""

    def __init__(self, world: World, traits: Traits) -> None:
        self._world = world
        self._traits = traits
        self._provider = traits.name

    def before_upload(self, request: web.Request) -> None:
        """Raise Refusal if a fault refuses the upload."""
        self._of_call(request, "upload", None)
        refuse = self._world.faults.take(faults.RefuseUpload, self._provider)
        if refuse is not None:
            raise refusal_of(refuse)

    def hides_file(self) -> float:
        """Return for how many seconds a stored file cannot be seen."""
        hide = self._world.faults.take(faults.HideFile, self._provider)
        return hide.seconds if hide else 0.0

    def holds_file_pending(self) -> float:
        """Return for how many seconds a stored file cannot be used for a batch."""
        hold = self._world.faults.take(faults.HoldFilePending, self._provider)
        return hold.seconds if hold else 0.0

    async def after_upload(self, request: web.Request) -> web.Response | None:
        """Delay or drop the answer to an upload."""
        slow = self._world.faults.take(faults.SlowUpload, self._provider)
        if slow is not None:
            await asyncio.sleep(slow.seconds)
        if self._world.faults.take(faults.DropUploadAnswer, self._provider) is not None:
            return hang_up(request)
        return None

    def before_create(self, request: web.Request, model: str | None) -> web.Response | None:
        """Drop or refuse a create before anything is made."""
        if self._world.faults.take(faults.DropCreateRequest, self._provider, model) is not None:
            return hang_up(request)
        self._of_call(request, "create", model)
        refuse = self._world.faults.take(faults.RefuseCreate, self._provider, model)
        if refuse is not None:
            raise refusal_of(refuse)
        return None

    def doubles(self, model: str | None) -> bool:
        """Return whether a fault doubles this create."""
        return self._world.faults.take(faults.DoubleCreate, self._provider, model) is not None

    async def after_create(
        self, request: web.Request, model: str | None, reply: Callable[[], Awaitable[web.Response]]
    ) -> web.StreamResponse:
        """Answer a create that has made its batch: late, in part or not at all if a fault says so."""
        slow = self._world.faults.take(faults.SlowCreate, self._provider, model)
        if slow is not None:
            await asyncio.sleep(slow.seconds)
        if self._world.faults.take(faults.DropCreateAnswer, self._provider, model) is not None:
            return hang_up(request)
        fail = self._world.faults.take(faults.FailCreateAnswer, self._provider, model)
        if fail is not None:
            raise refusal_of(fail)
        answer = await reply()
        if self._world.faults.take(faults.CutCreateAnswer, self._provider, model) is not None:
            return await cut_short(request, answer)
        return answer

    def before_look(self, request: web.Request, model: str | None) -> web.Response | None:
        """Refuse or drop a call that retrieves a batch or lists batches."""
        self._of_call(request, "look", model)
        refuse = self._world.faults.take(faults.RefusePoll, self._provider, model)
        if refuse is not None:
            raise refusal_of(refuse)
        if self._world.faults.take(faults.DropPollAnswer, self._provider, model) is not None:
            return hang_up(request)
        return None

    def _of_call(self, request: web.Request, call: Call, model: str | None) -> None:
        """Raise Refusal if a fault redirects the call or says that the account has no money."""
        table = self._world.faults
        if not request.match_info.get("moved") and table.take(
            faults.RedirectCall, self._provider, model, call=call
        ):
            raise Refusal(307, "The call is answered elsewhere.", moved=True)
        if table.take(faults.OutOfMoney, self._provider, model, call=call) is not None:
            status, code, message = self._traits.no_money
            raise Refusal(status, message, code=code)

    def empties_page(self) -> faults.EmptyPage | None:
        """Return the fault that empties a page of a list although there is more."""
        return self._world.faults.take(faults.EmptyPage, self._provider)

    def before_cancel(self, model: str | None) -> None:
        """Raise Refusal if a fault refuses the cancel."""
        refuse = self._world.faults.take(faults.RefuseCancel, self._provider, model)
        if refuse is not None:
            raise refusal_of(refuse)

    async def send(
        self,
        request: web.Request,
        path: Path,
        model: str | None,
        n_bytes: int,
        content_type: str = "application/octet-stream",
        *,
        start: int = 0,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> web.StreamResponse:
        """Send `n_bytes` of a file from `start` on; a fault may refuse, slow down, cut off or replace them."""
        self._of_call(request, "download", model)
        garble = self._world.faults.take(faults.GarbleDownload, self._provider, model)
        if garble is not None:
            return await garbled(request, garble.what, path, start, n_bytes, content_type)
        refuse = self._world.faults.take(faults.RefuseDownload, self._provider, model)
        if refuse is not None:
            raise refusal_of(refuse)
        truncate = self._world.faults.take(faults.TruncateDownload, self._provider, model)
        slow = self._world.faults.take(faults.SlowDownload, self._provider, model)
        left = int(n_bytes * truncate.sent) if truncate else n_bytes
        response = web.StreamResponse(
            status=status, headers={REQUEST_ID: new_request_id(), **(headers or {})}
        )
        response.content_type = content_type
        response.content_length = n_bytes
        await response.prepare(request)
        step = min(_CHUNK, slow.bytes_per_second // 10 + 1) if slow else _CHUNK
        # The client may be killed while it reads.
        with path.open("rb") as content, contextlib.suppress(ConnectionError):
            content.seek(start)
            while left > 0 and (chunk := content.read(min(step, left))):
                if slow is not None:
                    await asyncio.sleep(len(chunk) / slow.bytes_per_second)
                await response.write(chunk)
                left -= len(chunk)
            if truncate is not None:
                return _cut(request, response)
            await response.write_eof()
        return response

    async def send_range(
        self, request: web.Request, path: Path, model: str | None, n_bytes: int, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Send the part of a file that the call's Range asks for, or all of it, with the same faults."""
        asked = _RANGE.fullmatch(request.headers.get("Range", ""))
        if asked is None:
            return await self.send(request, path, model, n_bytes, headers=headers)
        first, last = int(asked[1]), min(int(asked[2] or n_bytes), n_bytes - 1)
        if first >= n_bytes:
            raise Refusal(416, "The requested range cannot be satisfied.")
        part = {"Content-Range": f"bytes {first}-{last}/{n_bytes}", **headers}
        return await self.send(request, path, model, last - first + 1, start=first, status=206, headers=part)


def _cut(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    # `close` lets what was written reach the client first; `abort` would throw it away.
    if request.transport is not None:
        request.transport.close()
    return response
