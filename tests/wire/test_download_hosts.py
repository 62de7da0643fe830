"""Which hosts the settings let result files come from: read as people write them, refused where they cannot be."""

from __future__ import annotations

import pytest

from batchling_client import settings as client_settings
from batchling_client.errors import WrongSettings
from batchling_client.wire.deployment.download_hosts import MOST_HOSTS, allowed, usable
from batchling_worker import settings as worker_settings

SETTING = "BATCHLING_PROVIDERS__ACME__DOWNLOAD_HOSTS"
BASE_URL = {"BATCHLING_PROVIDERS__ACME__BASE_URL": "https://llm.acme.example/v1"}

SPELT = [
    ("bucket.s3.amazonaws.com", ("bucket.s3.amazonaws.com",)),
    (
        " Bucket.S3.amazonaws.com. , *.r2.cloudflarestorage.com",
        ("bucket.s3.amazonaws.com", "*.r2.cloudflarestorage.com"),
    ),
    ('["a.example", "A.example:443", "https://a.example/"]', ("a.example",)),
    ("https://files.acme.example:8443", ("files.acme.example:8443",)),
    ("https://files.acme.example:443/", ("files.acme.example",)),
    ("http://127.0.0.1:9000,localhost", ("127.0.0.1:9000", "localhost")),
    ('["[::1]:9000"]', ("[::1]:9000",)),
    ("http://minio:9000, http://store.internal:80/", ("http://minio:9000", "http://store.internal")),
    ("bücher.example", ("xn--bcher-kva.example",)),
]


@pytest.mark.parametrize(("spelt", "hosts"), SPELT)
def test_hosts_are_read_as_people_write_them(spelt: str, hosts: tuple[str, ...]) -> None:
    settings = worker_settings.load({**BASE_URL, SETTING: spelt})
    assert settings.providers["acme"].download_hosts == hosts


WRONG = [
    "*",
    "*.com",
    "*.10.0.0.1",
    "s3.*.amazonaws.com",
    "https://bucket.s3.amazonaws.com/results",
    "bucket.s3.amazonaws.com?X-Amz-Signature=CANARY",
    "user:CANARY@files.example",
    "ftp://files.example",
    "files.example:0",
    "files.example:port",
    "files.example:70000",
    "files example",
    "<your bucket>",
    "-.example",
    "a..example",
    ",".join(f"{n}.example" for n in range(MOST_HOSTS + 1)),
    "[not json",
]


@pytest.mark.parametrize("spelt", WRONG, ids=lambda one: one[:30])
def test_what_cannot_be_right_is_refused_by_workers_and_callers(
    monkeypatch: pytest.MonkeyPatch, spelt: str
) -> None:
    with pytest.raises(worker_settings.WrongSetting, match=f"^{SETTING} ") as wrong:
        worker_settings.load({**BASE_URL, SETTING: spelt})
    assert "CANARY" not in str(wrong.value)
    for name, value in {**BASE_URL, SETTING: spelt}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WrongSettings, match=f"^{SETTING} "):
        client_settings.load()


@pytest.mark.parametrize(
    ("scheme", "name", "port", "expected"),
    [
        ("https", "bucket.s3.amazonaws.com", None, True),
        ("https", "BUCKET.s3.amazonaws.com.", None, True),
        ("https", "bucket.s3.amazonaws.com", 8443, False),
        ("http", "bucket.s3.amazonaws.com", None, False),
        ("https", "other.s3.amazonaws.com", None, False),
        ("https", "evil-bucket.s3.amazonaws.com", None, False),
        ("https", "x.r2.cloudflarestorage.com", None, True),
        ("https", "x.y.r2.cloudflarestorage.com", None, True),
        ("https", "r2.cloudflarestorage.com", None, False),
        ("https", "evilr2.cloudflarestorage.com", None, False),
        ("https", "x.r2.cloudflarestorage.com.evil.example", None, False),
        ("https", "x.r2.cloudflarestorage.com", 8443, False),
        ("http", "127.0.0.1", 9000, True),
        ("http", "127.0.0.1", 9001, False),
        ("http", "minio", 9000, True),
        ("http", "minio", None, False),
        ("https", "minio", 9000, False),
        ("http", "x.store.internal", None, True),
        ("https", "10.0.0.1", None, False),
        ("https", "169.254.169.254", None, False),
        ("file", "127.0.0.1", 9000, False),
    ],
)
def test_only_a_listed_host_is_allowed_over_https_unless_listed_with_http(
    scheme: str, name: str, port: int | None, *, expected: bool
) -> None:
    listed = ("bucket.s3.amazonaws.com", "*.r2.cloudflarestorage.com", "127.0.0.1:9000")
    hosts = usable((*listed, "http://minio:9000", "http://*.store.internal"))
    assert allowed(hosts, scheme, name, port) is expected
    assert not allowed((), scheme, name, port)
