"""TLS to Redis: each part takes the right certificate, and refuses another name's and an unknown authority's."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from batchling_client.operate.connect import unreachable
from batchling_client.wire.deployment import redis_health
from batchling_client.wire.deployment.connection import UNREACHABLE, connect
from batchling_worker.runtime.broker import broker_url, transport_options
from batchling_worker.sandbox import Sandbox
from tests.certificates import HOST, Authority, TlsFront
from tests.cli.command import batchling
from tests.deployment import CANARY, MODEL, Deployment
from tests.pages.browser import Browser, running_flower
from tests.redis_server import redis_server
from tests.roles.test_paths import called
from tests.waiting import wait_until

# Connections that a part under test has dropped are closed when the garbage collector finds them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

QUICK: Final = {"socket_timeout": 5, "socket_connect_timeout": 5}
TRUSTED: Final = "trusted"
REFUSED: Final = ("another name", "unknown authority", "no authority named", "no client certificate")
CASES: Final = (TRUSTED, *REFUSED)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


def front(case: str, upstream: str, authority: Authority) -> TlsFront:
    """Return the server of a case: all ask for a client's certificate."""
    name = "redis.example" if case == "another name" else HOST
    return TlsFront(upstream, authority.server(name), clients_of=authority)


def options(case: str, authority: Authority, stranger: Authority) -> dict[str, object]:
    """Return what a client of a case adds to its URL."""
    own = authority.client("caller")
    trusted = stranger if case == "unknown authority" else authority
    found: dict[str, object] = {"ssl_certfile": own.certificate, "ssl_keyfile": own.key}
    if case == "no client certificate":
        found = {}
    return found if case == "no authority named" else {**found, "ssl_ca_certs": trusted.file}


async def pinged(url: str) -> str:
    redis = connect(url)
    try:
        await redis.ping()
    except UNREACHABLE as error:
        return str(unreachable(url, error))
    finally:
        await redis.aclose()
    return ""


def broker_answers(url: str) -> bool:
    given = transport_options(url, "default")
    with closing(Connection(broker_url(url), transport_options=given)) as broker:
        try:
            broker.ensure_connection(max_retries=1, interval_start=0, timeout=5)
            channel: Any = broker.default_channel
            channel.client.ping()
        except (OperationalError, OSError, RedisError):
            return False
    return True


@pytest.mark.parametrize("case", CASES)
async def test_store_and_broker_take_the_right_certificate_alone(
    case: str, redis_url: str, authority: Authority, stranger: Authority
) -> None:
    with front(case, redis_url, authority) as server:
        url = server.url(**options(case, authority, stranger), **QUICK)
        said = await pinged(url)
        answered = await asyncio.to_thread(broker_answers, url)

    assert (said == "") is (case == TRUSTED), said
    assert answered is (case == TRUSTED)
    if case in ("unknown authority", "no authority named", "another name"):
        assert "certificate that is not trusted" in said
        assert "?ssl_ca_certs=FILE" in said


@pytest.mark.parametrize(
    ("query", "noted"),
    [
        ("", False),
        ("?ssl_cert_reqs=none", True),
        ("?ssl_check_hostname=false&x=1", True),
        ("?ssl_cert_reqs=required", False),
    ],
)
def test_the_doctor_notes_a_certificate_that_is_not_checked(query: str, noted: bool) -> None:
    found = redis_health.of_access(f"rediss://redis.example:6380/0{query}", None, None)

    assert [one.check for one in found] == (["tls"] if noted else [])


@pytest.fixture
async def deployment() -> AsyncIterator[Deployment]:
    with Sandbox(speeds={"*": 0.1}) as sandbox, tempfile.TemporaryDirectory(prefix="bl-") as home:
        async with Deployment(home=Path(home), sandbox=sandbox) as running:
            yield running


def logged(process: subprocess.Popen[bytes], log: Path, word: str) -> Callable[[], bool]:
    def found() -> bool:
        assert process.poll() is None, log.read_text()
        return word in log.read_text()

    return found


@pytest.mark.long
async def test_callers_workers_commands_and_flower_work_over_tls_alone(
    deployment: Deployment, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    with front(TRUSTED, deployment.url, authority) as server:
        url = server.url(**options(TRUSTED, authority, stranger))
        env = {**deployment.env, "BATCHLING_REDIS_URL": url}
        deployment.worker(redis_url=url)
        done = await called(env, "tls", MODEL, "60")
        assert done.out.split() == ["200", "200", "200"], (done, deployment.worker_logs())
        for words in (("batches",), ("show", "tls"), ("check",)):
            done = await batchling(*words, env=env)
            assert done.code == 0, done
        doctor = await batchling("doctor", "--json", env=env)
        assert "unencrypted" not in doctor.out
        with running_flower(url, "default", tmp_path) as port:
            browser = Browser(port)
            assert browser.get("/batchling").status == 200
            await wait_until(
                lambda: "w0@test" in browser.get("/workers").text, description="Flower sees the worker"
            )


@pytest.mark.long
@pytest.mark.parametrize("case", ["another name", "unknown authority"])
async def test_every_part_refuses_a_certificate_that_it_cannot_trust(
    case: str, deployment: Deployment, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    with front(case, deployment.url, authority) as server:
        url = server.url(**options(case, authority, stranger))
        env = {**deployment.env, "BATCHLING_REDIS_URL": url, "GROQ_API_KEY": CANARY}
        done = await called(env, "tls", MODEL, "20")
        assert done.code == 1
        assert "certificate that is not trusted" in done.err
        for words in (("batches",), ("doctor",)):
            done = await batchling(*words, env=env)
            assert "certificate that is not trusted" in done.out + done.err
        deployment.worker(redis_url=url)
        log = deployment.home / "w0.log"
        await wait_until(
            logged(deployment.workers[0], log, "event=store_away"),
            description="the worker says so",
            within_s=60,
        )
        assert "certificate that is not trusted" in log.read_text()
        with running_flower(url, "default", tmp_path) as port:
            page = Browser(port).get("/batchling")
            assert page.status == 503
            assert "certificate that is not trusted" in page.text
        assert server.n_handshakes == 0
    assert await deployment.redis.dbsize() == 0
