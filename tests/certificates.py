"""A throw-away certificate authority, and a server that ends TLS in front of a Redis that has none."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST: Final = "127.0.0.1"
_PIECE: Final = 64 * 1024
_PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates that live for a day; `file` is what its clients trust."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} of a test")])
        own = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str) -> Certificate:
        """Return the certificate of a server at these addresses or host names."""
        return self._issue("server", names, ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, name: str) -> Certificate:
        """Return the certificate of a client."""
        return self._issue(name, (), ExtendedKeyUsageOID.CLIENT_AUTH)

    def _issue(self, name: str, places: tuple[str, ...], purpose: x509.ObjectIdentifier) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if places:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([*map(_place, places)]), critical=False
            )
        stem = "-".join([self.file.stem, name, *places]).replace("*", "any")
        made = Certificate(certificate=self._folder / f"{stem}.pem", key=self._folder / f"{stem}.key")
        signed = builder.sign(self._key, hashes.SHA256())
        made.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        made.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return made

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        issuer_key = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False
            )
        )


class TlsFront:
    """Ends TLS on a loopback port and passes what it gets to a unix socket or port; a context manager.

    It serves on a thread of its own. `n_handshakes` counts the connections that it was willing to serve.
    """

    def __init__(self, upstream: str, own: Certificate, *, clients_of: Authority | None = None) -> None:
        self._upstream = upstream
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(own.certificate, own.key)
        if clients_of is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(clients_of.file)
        self.port = 0
        self.n_handshakes = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls-front", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, **options: object) -> str:
        """Return the `rediss://` URL of this server, with options of redis-py."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"rediss://{HOST}:{self.port}/0" + (f"?{query}" if query else "")

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, HOST, 0, ssl=self._context), self._loop
        ).result(_PATIENCE_S)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_S)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.n_handshakes += 1
        with contextlib.suppress(OSError, asyncio.CancelledError), _closing(writer):
            up_reader, up_writer = await self._connected()
            with _closing(up_writer):
                both = {
                    asyncio.ensure_future(_pass(reader, up_writer)),
                    asyncio.ensure_future(_pass(up_reader, writer)),
                }
                try:
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for one in both:
                        one.cancel()
                    await asyncio.gather(*both, return_exceptions=True)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._upstream.startswith("unix://"):
            return await asyncio.open_unix_connection(self._upstream.removeprefix("unix://"))
        host, _, port = (
            self._upstream.rpartition("@")[2].removeprefix("redis://").partition("/")[0].partition(":")
        )
        return await asyncio.open_connection(host, int(port))


@contextlib.contextmanager
def _closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()


def _place(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
