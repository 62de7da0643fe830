"""Cloud Storage through its official library: errors as ours, objects as streams, a chunk in memory at a time."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import google.auth
import httpx
import requests
from google.api_core.exceptions import GoogleAPICallError, PreconditionFailed
from google.auth.credentials import Credentials as AnyCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError
from google.auth.transport.requests import Request
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.oauth2.credentials import Credentials
from urllib3.exceptions import HTTPError

from ...call_outcome import Underway
from ...errors import Denied, PermanentError, TemporaryError, WorkerError
from ...provider import Account
from .. import http_errors
from ..blocking import in_thread
from ..http_errors import CallInfo
from ..slow_answers import SILENCES

T = TypeVar("T")

CONNECT_S: Final = 10.0
CHUNK: Final = 8 * 1024 * 1024
STORE_PATIENCE: Final = 2.5
"""How many times longer than usual Cloud Storage may chew on a file."""
USUAL_SILENCE_S: Final = 120.0
SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
NO_TOKEN: Final = "The Google credential was refused or has run out, which a caller's does within the hour"


class Place(NamedTuple):
    """A bucket and a name, or the beginning of names, of Cloud Storage."""

    bucket: str
    name: str

    @classmethod
    def read(cls, url: str) -> Place:
        """Read gs://BUCKET/NAME; raises `PermanentError`."""
        parts = urlsplit(url)
        if parts.scheme != "gs" or not parts.netloc:
            raise PermanentError(f"{url!r} is not a Cloud Storage URL of the form gs://BUCKET/PREFIX.")
        return cls(parts.netloc, parts.path.strip("/"))

    def below(self, *names: str) -> Place:
        """Return the place under these names."""
        return Place(self.bucket, "/".join((*filter(None, [self.name]), *names)))

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object as a list shows it."""

    bucket: str
    name: str
    generation: int
    size: int


class OwnCredential:
    """The worker's own: Application Default Credentials, found once a process; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: AnyCredentials | None = None

    def token(self) -> str:
        """Return a token that does not expire soon; blocks, and raises google-auth's errors."""
        with self._lock:
            if self._found is None:
                self._found, _ = google.auth.default(scopes=[SCOPE])
            if not self._found.valid:
                self._found.refresh(Request())
            return str(self._found.token)


class Objects:
    """The objects that one account may read and write; each call is made once, in a thread."""

    def __init__(self, account: Account, provider: str, token: str) -> None:
        self._account = account
        self._provider = provider
        self._timeout = (CONNECT_S, account.http.timeout.read or USUAL_SILENCE_S)
        self._secrets = (token,) if token else ()
        # The project is of no use here, and without one the library would search the environment for it.
        self._client = storage.Client(
            project="batchling",
            credentials=Credentials(token=token),
            client_options={"api_endpoint": account.staging_url} if account.staging_url else None,
        )

    async def upload(self, place: Place, file: BinaryIO, size: int) -> None:
        """Store a file, read from its start; an object that already has this name is left as it is."""
        blob = self._client.bucket(place.bucket).blob(place.name, chunk_size=CHUNK)

        def send(underway: Underway) -> None:
            blob.upload_from_file(
                underway.watched(file),
                rewind=True,
                size=size,
                content_type="application/jsonl",
                if_generation_match=0,
                checksum="md5",
                timeout=self._timeout,
                retry=None,
            )

        try:
            await self._call("store a file", send, patience=STORE_PATIENCE)
        except _TakenError:
            return

    async def below(self, place: Place) -> list[Found]:
        """Return the objects whose names begin with this place's name and a slash."""

        def listed(_: Underway) -> list[Found]:
            found = self._client.list_blobs(
                place.bucket, prefix=f"{place.name}/", timeout=self._timeout, retry=None
            )
            return [
                Found(bucket=place.bucket, name=one.name, generation=int(one.generation), size=int(one.size))
                for one in found
            ]

        return await self._call("list result files", listed, short=True)

    async def delete(self, place: Place) -> None:
        """Delete an object; succeed if it no longer exists."""
        blob = self._client.bucket(place.bucket).blob(place.name)

        def delete(_: Underway) -> None:
            blob.delete(timeout=self._timeout, retry=None)

        try:
            await self._call("delete a file", delete, short=True)
        except PermanentError as error:
            if error.status not in (404, 410):
                raise

    async def pieces(self, found: Found) -> AsyncGenerator[bytes, None]:
        """Yield an object in pieces; raises `TemporaryError` if a part of it is gone."""
        for start in range(0, found.size, CHUNK):
            end = min(start + CHUNK, found.size)
            # Made anew, as one out of a list would be read from whatever address the answer named.
            blob = self._client.bucket(found.bucket).blob(found.name, generation=found.generation)
            piece = await self._call("read results", functools.partial(self._part, blob, start, end))
            if len(piece) != end - start:
                raise TemporaryError(f"{self._provider}: a result file in Cloud Storage was cut off")
            yield piece

    def _part(self, blob: storage.Blob, start: int, end: int, underway: Underway) -> bytes:
        """Return a part of an object; blocks."""
        sink = _Sink(underway)
        blob.download_to_file(
            sink,
            start=start,
            end=end - 1,
            raw_download=True,
            checksum=None,
            timeout=self._timeout,
            retry=None,
        )
        return sink.getvalue()

    async def _call(
        self, does: str, work: Callable[[Underway], T], *, short: bool = False, patience: float = 1.0
    ) -> T:
        call_info = CallInfo(provider=self._provider, does=f"{does} in Cloud Storage", secrets=self._secrets)
        return await answered(self._account, call_info, work, short=short, patience=patience)


class _Sink(io.BytesIO):
    """Takes what a download brings, and shows that it brings something."""

    def __init__(self, underway: Underway) -> None:
        super().__init__()
        self._underway = underway

    def write(self, piece: Any, /) -> int:
        self._underway.brought(len(piece))
        return super().write(piece)


class _TakenError(TemporaryError):
    """An object of this name is there already."""


async def answered(
    account: Account,
    call_info: CallInfo,
    work: Callable[[Underway], T],
    *,
    short: bool,
    patience: float = 1.0,
) -> T:
    """Make a blocking call of Google's libraries in a thread and return its answer; raises the worker's errors.

    They are raised outside of the `except` that caught the library's, which hold the request with its headers. Only a
    call that carries little is `short`, so that its silence says something: the library does not tell what it has sent.
    """
    if short:
        account.calls.asked()
    failure: WorkerError
    try:
        with account.calls.call(call_info.provider, call_info.does, patience) as underway:
            longest_s = SILENCES * (account.http.timeout.read or USUAL_SILENCE_S)
            async with account.turn():
                answer = await in_thread(lambda: work(underway), underway, longest_s)
    except PreconditionFailed:
        failure = _TakenError(f"{call_info.provider}: the object is there already")
    except GoogleAPICallError as error:
        failure = _of_answer(call_info, error)
    except DefaultCredentialsError:
        failure = PermanentError(
            f"The worker has no Google credential to {call_info.does} with: give it Application Default Credentials, "
            f"or leave BATCHLING_PROVIDERS__{call_info.provider.upper()}__OWN_CREDENTIAL unset.",
            status=401,
        )
    except RefreshError as error:
        failure = TemporaryError(NO_TOKEN) if error.retryable else PermanentError(f"{NO_TOKEN}.", status=401)
    # urllib3's own come where a raw body breaks off: `requests` reads that without translating them.
    except (
        GoogleAuthError,
        requests.RequestException,
        HTTPError,
        DataCorruption,
        OSError,
        httpx.PoolTimeout,
    ) as error:
        name = type(error).__name__
        failure = TemporaryError(
            f"{call_info.provider} was asked to {call_info.does} and did not answer in full ({name})"
        )
    else:
        account.calls.saw(None)
        return answer
    # A name that is taken or missing says nothing against the account: shards of a running job come and go.
    account.calls.saw(None if isinstance(failure, (_TakenError, Denied)) else failure)
    raise failure


def _of_answer(call_info: CallInfo, error: GoogleAPICallError) -> WorkerError:
    response: Any = error.response
    headers = {} if response is None else {name.lower(): value for name, value in response.headers.items()}
    body = b"" if response is None else bytes(response.content)
    found = http_errors.of_status(
        call_info, int(error.code or 500), headers, body or str(error.message).encode()
    )
    if isinstance(found, PermanentError) and found.status in (404, 410):
        return Denied(str(found)) if call_info.does.startswith(("read", "list")) else found
    return found
