"""AWS through its official library: clients by credential and place, errors as ours, objects of S3 as streams."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, TypeVar
from urllib.parse import urlsplit

import boto3
import httpx
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
)
from urllib3.exceptions import HTTPError

from batchling_client.wire import error_words

from ..call_outcome import Underway
from ..decisions import money
from ..errors import Limited, MaybeDone, PermanentError, TemporaryError, WorkerError
from ..provider import Account
from . import http_errors
from .blocking import TooSlowError, in_thread
from .http_errors import CallInfo, wish_of
from .slow_answers import SILENCES

T = TypeVar("T")

CONNECT_S: Final = 10
PIECE: Final = 1 << 16
STORE_PATIENCE: Final = 2.5
"""How many times longer than usual S3 may chew on a file."""
USUAL_SILENCE_S: Final = 120.0
RESUMED_AT_MOST: Final = 50
# One part at a time: memory is that of a part, and s3transfer's own threads would multiply it.
UPLOAD: Final = TransferConfig(use_threads=False)
NOTHING_SENT: Final = (
    ConnectTimeoutError,
    EndpointConnectionError,
    ProxyConnectionError,
    httpx.PoolTimeout,
)
NO_CREDENTIAL: Final = (NoCredentialsError, PartialCredentialsError)
THROTTLED: Final = frozenset(
    {"ThrottlingException", "TooManyRequestsException", "SlowDown", "RequestLimitExceeded"}
)
FULL: Final = frozenset({"ServiceQuotaExceededException"})
"""Told with a 400 of too many jobs in progress, which passes, and of an input that is too much for one, which stays."""
UNKNOWN_KEY: Final = frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
    | {"ExpiredTokenException", "ExpiredToken", "InvalidSignatureException", "IncompleteSignature"}
)

_OF_THE_INPUT: Final = re.compile(r"\b(?:records?|size|input|files?)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """An AWS access key; if every field is '', the worker uses the credential of its own environment."""

    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""

    def __repr__(self) -> str:
        return f"Keys({self.access_key_id!r})"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text may hold."""
        return _fit_to_be_left_out(self.secret_access_key, self.session_token)

    @classmethod
    def read(cls, said: str) -> Keys:
        """Read ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]; raises `PermanentError`."""
        parts = said.split(":", 2)
        if len(parts) < 2 or not all(parts):
            raise PermanentError(
                "The AWS credential is not ACCESS_KEY_ID:SECRET_ACCESS_KEY or that and :SESSION_TOKEN.",
                status=401,
            )
        return cls(access_key_id=parts[0], secret_access_key=parts[1], session_token="".join(parts[2:]))


@functools.cache
def _session() -> Any:
    """Return a session with the descriptions of the services loaded, which takes 0.1 s; it holds no key."""
    return boto3.session.Session()


def client(
    service: str,
    region: str,
    endpoint: str,
    keys: Keys,
    silence_s: float,
    *,
    fips: bool = False,
    dual_stack: bool = False,
) -> Any:
    """Return a client of a service; '' = the service's own endpoint. It makes each call once: the step retries.

    Raises `PermanentError` where the settings of AWS that the worker's environment has make none.
    """
    config = _Config(endpoint=endpoint, silence_s=silence_s, fips=fips, dual_stack=dual_stack)
    try:
        if keys == Keys():
            return _own_client(service, region, config)
        return _client(service, region, config, keys)
    except (BotoCoreError, ValueError) as error:
        name = type(error).__name__
    raise PermanentError(
        f"The worker's AWS settings make no client of {service} ({name}): check its AWS_ variables, above all "
        "AWS_PROFILE, its AWS configuration files, and the region and the URLs that it was given.",
        status=401,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Config:
    """How a client is to reach its service; `endpoint` '' = where the service's own endpoint of that kind is."""

    endpoint: str
    silence_s: float
    fips: bool
    dual_stack: bool

    def of_botocore(self) -> Config:
        own = not self.endpoint
        return Config(
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_S,
            read_timeout=self.silence_s,
            max_pool_connections=20,
            request_checksum_calculation="when_required",
            s3=None if own else {"addressing_style": "path"},
            # Unset and False differ: the first leaves it to the AWS settings of the worker's environment.
            use_fips_endpoint=True if own and self.fips else None,
            use_dualstack_endpoint=True if own and self.dual_stack else None,
        )


def _client(service: str, region: str, config: _Config, keys: Keys) -> Any:
    return _session().client(
        service,
        region_name=region,
        endpoint_url=config.endpoint or None,
        config=config.of_botocore(),
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
        aws_session_token=keys.session_token or None,
    )


@functools.lru_cache(maxsize=32)
def _own_client(service: str, region: str, config: _Config) -> Any:
    return _session().client(
        service, region_name=region, endpoint_url=config.endpoint or None, config=config.of_botocore()
    )


async def call(
    account: Account, call_info: CallInfo, work: Callable[[], T], break_off: Callable[[], None] = lambda: None
) -> T:
    """Make a blocking call of the library in a thread and return its answer; raises the worker's errors.

    A call that takes too long is interrupted with `break_off`.
    """
    account.calls.asked()
    return await _made(account, call_info, lambda _: work(), break_off)


async def store(account: Account, call_info: CallInfo, s3: Any, place: Place, file: BinaryIO) -> None:
    """Store a file in S3; raises the worker's errors. Silence tells nothing while it is sent."""
    await _made(
        account,
        call_info,
        lambda underway: upload(s3, place, underway.watched(file)),
        patience=STORE_PATIENCE,
    )


async def _made(
    account: Account,
    call_info: CallInfo,
    work: Callable[[Underway], T],
    break_off: Callable[[], None] = lambda: None,
    *,
    patience: float = 1.0,
) -> T:
    failure: WorkerError
    try:
        with account.calls.call(call_info.provider, call_info.does, patience) as underway:
            longest_s = SILENCES * (account.http.timeout.read or USUAL_SILENCE_S)
            async with account.turn():
                answer = await in_thread(lambda: work(underway), underway, longest_s, break_off)
    except ClientError as error:
        secrets = call_info.secrets or await asyncio.to_thread(_own_secrets)
        failure = _of_answer(dataclasses.replace(call_info, secrets=secrets), error)
    except NO_CREDENTIAL:
        failure = PermanentError(
            f"The worker has no AWS credential to {call_info.does} with: give it one as the AWS SDK finds it, or in "
            f"BATCHLING_PROVIDERS__{call_info.provider.upper()}__API_KEY.",
            status=401,
        )
    # urllib3's own come where a body breaks off in a way that botocore does not translate.
    except (BotoCoreError, HTTPError, OSError, httpx.PoolTimeout) as error:
        failure = _of_silence(call_info, error)
    else:
        account.calls.saw(None)
        return answer
    account.calls.saw(failure)
    raise failure


def _of_answer(call_info: CallInfo, error: ClientError) -> WorkerError:
    said: Any = error.response
    code, message = str(said.get("Error", {}).get("Code", "")), str(said.get("Error", {}).get("Message", ""))
    status = int(said.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
    wish_s = wish_of(call_info, said.get("ResponseMetadata", {}).get("HTTPHeaders", {}))
    # To a signature that does not fit AWS quotes the whole call, session token included.
    words = http_errors.redacted(call_info, f"{code} {message}".encode(errors="replace")).decode(
        errors="replace"
    )
    words = words[: http_errors.LONGEST_REASON]
    reason = f"{call_info.provider} answered {status} when asked to {call_info.does}: {words}".rstrip()
    failure = _of_words(call_info, status, code, message, words, reason, wish_s)
    if http_errors.may_quote(call_info, status, words) and code not in UNKNOWN_KEY:
        failure.recorded = http_errors.without_words(call_info, status, error_words.codes_in({"code": code}))
    return failure


def _of_words(
    call_info: CallInfo, status: int, code: str, message: str, words: str, reason: str, wish_s: float | None
) -> TemporaryError | PermanentError:
    if money.is_lacking(status, words):
        return PermanentError(reason, status=status)
    if code in THROTTLED or status == 429:
        return (Limited if call_info.paid else TemporaryError)(reason, delay_s=wish_s)
    if code in UNKNOWN_KEY:
        return PermanentError(reason, status=401)
    if call_info.paid and code in FULL and not _OF_THE_INPUT.search(message):
        return TemporaryError(reason, delay_s=wish_s)
    if 400 <= status < 500:
        return PermanentError(reason, status=status)
    return MaybeDone(reason, delay_s=wish_s) if call_info.paid else TemporaryError(reason, delay_s=wish_s)


def _own_secrets() -> tuple[str, ...]:
    """Return the secrets of the credential in the worker's own environment; blocks."""
    try:
        found = _session().get_credentials()
        own = found and found.get_frozen_credentials()
    except BotoCoreError:
        return ()
    return _fit_to_be_left_out(own.secret_key, own.token) if own else ()


def _fit_to_be_left_out(*secrets: str | None) -> tuple[str, ...]:
    return tuple(one for one in secrets if one and len(one) >= http_errors.SHORTEST_SECRET)


class _TooSlow(TemporaryError):
    """An answer comes so slowly that to ask for the rest of it would take as long."""


def _of_silence(call_info: CallInfo, error: Exception) -> WorkerError:
    name = type(error).__name__
    if isinstance(error, TooSlowError) and not call_info.paid:
        return _TooSlow(
            f"{call_info.provider} was asked to {call_info.does}, and next to nothing came for too long"
        )
    if isinstance(error, NOTHING_SENT):
        return TemporaryError(f"{call_info.provider} could not be reached to {call_info.does}: {name}")
    words = f"{call_info.provider} was asked to {call_info.does} and the answer was lost ({name})"
    return MaybeDone(words) if call_info.paid else TemporaryError(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A bucket and a key, or the beginning of keys, of S3."""

    bucket: str
    key: str

    @classmethod
    def read(cls, url: str) -> Place:
        """Read s3://BUCKET/KEY; raises `PermanentError`."""
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise PermanentError(f"{url!r} is not an S3 URL of the form s3://BUCKET/PREFIX.")
        return cls(bucket=parts.netloc, key=parts.path.strip("/"))

    def below(self, *names: str) -> Place:
        """Return the place under these names."""
        return Place(bucket=self.bucket, key="/".join((*filter(None, [self.key]), *names)))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def upload(s3: Any, place: Place, file: BinaryIO) -> None:
    """Store a file, read from its current position, with one part of it in memory at a time."""
    s3.upload_fileobj(file, place.bucket, place.key, Config=UPLOAD)


def keys_below(s3: Any, place: Place) -> list[str]:
    """Return the keys below this place."""
    prefix = f"{place.key}/" if place.key else ""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=prefix)
    return [one["Key"] for page in pages for one in page.get("Contents", ())]


def delete(s3: Any, place: Place) -> None:
    """Delete an object; S3 answers the same where there is none."""
    s3.delete_object(Bucket=place.bucket, Key=place.key)


async def pieces(
    account: Account, call_info: CallInfo, s3: Any, bucket: str, key: str
) -> AsyncGenerator[bytes, None]:
    """Yield an object in pieces; if the download breaks off, ask for the rest as long as each try brings more."""
    n_got, tag = 0, ""
    for n_resumed in range(RESUMED_AT_MOST + 1):
        n_before = n_got
        wanted = {"Range": f"bytes={n_got}-", **({"IfMatch": tag} if tag else {})} if n_got else {}
        try:
            ask = functools.partial(s3.get_object, Bucket=bucket, Key=key, **wanted)
            answer = await call(account, call_info, ask)
            tag, body = answer.get("ETag", ""), answer["Body"]
            read, break_off = functools.partial(body.read, PIECE), functools.partial(_break_off, body)
            while piece := await call(account, call_info, read, break_off):
                n_got += len(piece)
                yield piece
            return
        except _TooSlow:
            raise
        except TemporaryError:
            if n_got == n_before or n_resumed == RESUMED_AT_MOST:
                raise


def _break_off(body: Any) -> None:
    """End a reading of a body that another thread waits for, where the library can."""
    with contextlib.suppress(Exception):
        body._raw_stream.shutdown()
