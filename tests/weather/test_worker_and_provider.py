"""Between a worker and a provider: whichever call is cut, each request is answered once and billed once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world.faults import SlowDownload
from tests.deployment import CANARY, Deployment
from tests.proxy import How, Proxy, Rule, Way
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

UPLOAD = b"POST /groq/openai/v1/files"
CREATE = b"POST /groq/openai/v1/batches"
LOOK = b"GET /groq/openai/v1/batches"
DOWNLOAD = b"/content HTTP/1.1"

CUTS: dict[str, Rule] = {
    "upload, head": Rule(how=How.RST, way=Way.UP, at=60, after=UPLOAD),
    "upload, form": Rule(how=How.FIN, way=Way.UP, at=500, after=UPLOAD),
    "upload, file": Rule(how=How.RST, way=Way.UP, at=4_000, after=UPLOAD),
    "upload, answer": Rule(how=How.RST, way=Way.DOWN, at=0, after=UPLOAD, times=2),
    "upload, silence": Rule(how=How.SILENCE, way=Way.UP, at=4_000, after=UPLOAD),
    "create, request": Rule(how=How.RST, way=Way.UP, at=250, after=CREATE),
    "create, answer": Rule(how=How.RST, way=Way.DOWN, at=0, after=CREATE),
    "create, answer's head": Rule(how=How.FIN, way=Way.DOWN, at=50, after=CREATE),
    "create, answer's body": Rule(how=How.RST, way=Way.DOWN, at=400, after=CREATE),
    "create, silence": Rule(how=How.SILENCE, way=Way.DOWN, at=100, after=CREATE),
    "create, garbage": Rule(how=How.GARBLE, way=Way.DOWN, at=300, after=CREATE),
    "look": Rule(how=How.RST, way=Way.DOWN, at=100, after=LOOK, times=3),
    "look, silence": Rule(how=How.SILENCE, way=Way.DOWN, at=0, after=LOOK, times=2),
    "download, head": Rule(how=How.FIN, way=Way.DOWN, at=30, after=DOWNLOAD),
    "download, body": Rule(how=How.RST, way=Way.DOWN, at=9_000, after=DOWNLOAD, times=3),
    "download, silence": Rule(how=How.SILENCE, way=Way.DOWN, at=9_000, after=DOWNLOAD),
}


@pytest.fixture
def provider(deployment: Deployment, sandbox: Sandbox) -> Iterator[Proxy]:
    """Run a proxy between workers and the provider."""
    with Proxy(sandbox.base_url("groq")) as proxy:
        deployment.env["BATCHLING_PROVIDERS__GROQ__BASE_URL"] = proxy.url
        deployment.env["BATCHLING_HTTP_SILENCE_SECONDS"] = "1"
        yield proxy


async def test_every_cut_at_once_is_answered_once_and_billed_once(
    deployment: Deployment, provider: Proxy
) -> None:
    cuts = [provider.add(rule) for rule in CUTS.values()]
    deployment.worker()
    ids = await deployment.ask(400, rows=20)

    # Each cut in a row makes the next pause longer, and there are thirty cuts.
    results = await deployment.answered(ids, within_s=120, hurried=True)

    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert [cut.rule for cut in cuts if not cut.spent] == []
    assert deployment.billed() == dict.fromkeys(ids, 1)
    assert CANARY.removeprefix("gsk-") not in deployment.worker_logs()
    assert provider.most_open <= 30


@pytest.mark.weather
async def test_each_cut_alone_is_answered_once_and_billed_once(
    deployment: Deployment, provider: Proxy
) -> None:
    deployment.worker()
    for words, rule in CUTS.items():
        cut = provider.add(rule)
        ids = await deployment.ask(40)

        results = await deployment.answered(ids)

        assert {result.status for result in results} == {200}, words
        await deployment.settled()
        assert cut.spent, words
        provider.heal()
    billed = deployment.billed()
    assert len(billed) == 40 * len(CUTS)
    assert set(billed.values()) == {1}


async def test_a_provider_that_is_away_for_a_while_is_waited_for(
    deployment: Deployment, provider: Proxy
) -> None:
    provider.refuse()
    deployment.worker()
    ids = await deployment.ask(10)

    async def stumbled() -> bool:
        return sum(batch.n_stumbles for batch in await deployment.batches()) >= 2

    await wait_until(stumbled, description="the closed port is met twice", within_s=40)
    provider.heal()

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys(ids, 1)
    assert CANARY.removeprefix("gsk-") not in deployment.worker_logs()


async def test_a_download_slower_than_the_lease_is_read_once(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    # Three seconds, so that a worker that is delayed for a moment does not lose its lease.
    deployment.env["BATCHLING_LEASE_SECONDS"] = "3"
    sandbox.faults.add(SlowDownload(bytes_per_second=5_000))
    deployment.worker()
    deployment.worker()
    ids = await deployment.ask(50)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys(ids, 1)
    assert deployment.worker_logs().count("batch_collected") == 1
    assert "step_stale" not in deployment.worker_logs()
