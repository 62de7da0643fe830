"""A credential of the workers reads and writes below the staging place alone, whatever records and answers name."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker import providers
from batchling_worker.dialects import aws
from batchling_worker.dialects.google import cloud_storage
from batchling_worker.dialects.google.vertex_job import Job
from batchling_worker.errors import PermanentError
from batchling_worker.provider import Account, Ended, Ending, Source, SpentFiles, Submission
from batchling_worker.providers import bedrock, vertex
from tests.form import form_of

from .desk import submission

OWN = "ours/batches"
OUTSIDE = (
    "payroll/2026",
    "ours/payroll",
    "ours",
    "ours/batches-of-others/x",
    "ours/batches/../payroll",
    "ours/batches/..",
    "ours/batches/./../../payroll",
    "ours@payroll/batches/x",
    "OURS/batches/x",
)
INSIDE = ("ours/batches/batchling-a/output", "ours/batches/batchling-a/output/", "ours/batches")
SCHEMES = {"vertex": "gs", "bedrock": "s3"}


class Touched:
    """Whatever either library is asked to touch; a list shows one object of ours and one of somebody else."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self.listed: tuple[str, ...] = ()


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> Touched:
    seen = Touched()

    class Objects:
        def __init__(self, *_: object) -> None: ...

        async def below(self, place: cloud_storage.Place) -> list[cloud_storage.Found]:
            seen.places.append(f"{place.bucket}/{place.name}")
            return [
                cloud_storage.Found(bucket=place.bucket, name=one, generation=1, size=1)
                for one in seen.listed
            ]

        async def pieces(self, found: cloud_storage.Found) -> AsyncIterator[bytes]:
            seen.places.append(f"{found.bucket}/{found.name}")
            yield b""

        async def upload(self, place: cloud_storage.Place, *_: object) -> None:
            seen.places.append(f"{place.bucket}/{place.name}")

        async def delete(self, place: cloud_storage.Place) -> None:
            seen.places.append(f"{place.bucket}/{place.name}")

    def keys_below(_: object, place: aws.Place) -> list[str]:
        seen.places.append(f"{place.bucket}/{place.key}")
        return list(seen.listed)

    async def pieces(
        account: object, call_info: object, s3: object, bucket: str, key: str
    ) -> AsyncIterator[bytes]:
        seen.places.append(f"{bucket}/{key}")
        yield b""

    async def store(account: object, call_info: object, s3: object, place: aws.Place, file: object) -> None:
        seen.places.append(f"{place.bucket}/{place.key}")

    def delete(_: object, place: aws.Place) -> None:
        seen.places.append(f"{place.bucket}/{place.key}")

    monkeypatch.setattr(vertex, "Objects", Objects)
    for name, put in (("keys_below", keys_below), ("pieces", pieces), ("store", store), ("delete", delete)):
        monkeypatch.setattr(aws, name, put)
    monkeypatch.setattr(vertex._own, "token", lambda: "ya29.THE-WORKERS-OWN")
    return seen


@pytest.fixture
def account(name: str) -> Account:
    def nothing_is_called(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"{request.url} was called")

    return Account(
        base_url="https://provider.test",
        headers={},
        http=httpx.AsyncClient(transport=httpx.MockTransport(nothing_is_called)),
        digest="d",
        own_credential=True,
        staging=f"{SCHEMES[name]}://{OWN}",
        role_arn="arn:aws:iam::1:role/r",
    )


def asked(name: str, label: str = "batchling-a") -> Submission:
    return submission(label, 1, form_of(name))


def spent(name: str, **files: tuple[str, ...]) -> SpentFiles:
    return SpentFiles(
        endpoint=form_of(name).endpoint, label="batchling-a", provider_batch_id=ProviderBatchId("b"), **files
    )


pytestmark = pytest.mark.parametrize("name", sorted(SCHEMES))


@pytest.mark.parametrize("place", OUTSIDE)
async def test_nothing_outside_of_the_staging_place_is_listed_read_deleted_or_handed_to_a_job(
    touched: Touched, account: Account, name: str, place: str
) -> None:
    provider, url = providers.load(name), f"{SCHEMES[name]}://{place}"
    with pytest.raises(PermanentError, match="nothing else is read"):
        _ = [one async for one in provider.results(account, Ending(results=(url,)))]
    for files in ({"inputs": (url,)}, {"results": (url,)}):
        with pytest.raises(PermanentError, match="nothing else is read"):
            await provider.delete(account, spent(name, **files))
    with pytest.raises(PermanentError, match="nothing else is read"):
        await provider.create(account, asked(name), Source(file_id=url))
    assert touched.places == []


@pytest.mark.parametrize("label", ["../payroll", "a/../../../payroll", ".."])
async def test_no_label_leads_a_write_outside_of_the_staging_place(
    touched: Touched, account: Account, name: str, label: str
) -> None:
    provider, within = providers.load(name), f"{SCHEMES[name]}://{OWN}/f"
    with pytest.raises(PermanentError, match="nothing else is read"):
        await provider.upload(account, asked(name, label), io.BytesIO(b"{}\n"))
    with pytest.raises(PermanentError, match="nothing else is read"):
        await provider.create(account, asked(name, label), Source(file_id=within))
    assert touched.places == []


@pytest.mark.parametrize("place", INSIDE)
async def test_of_what_a_list_shows_only_objects_below_the_place_are_read_or_deleted(
    touched: Touched, account: Account, name: str, place: str
) -> None:
    provider, url = providers.load(name), f"{SCHEMES[name]}://{place}"
    folder = place.rstrip("/").partition("/")[2]
    ending = "predictions.jsonl.out"
    touched.listed = (
        f"payroll/{ending}",
        f"{folder}-2/{ending}",
        f"{folder}/../{ending}",
        f"{folder}/{ending}",
    )
    _ = [one async for one in provider.results(account, Ending(results=(url,)))]
    await provider.delete(account, spent(name, results=(url,)))
    assert set(touched.places) <= {f"ours/{folder}", f"ours/{folder}/{ending}"}
    assert f"ours/{folder}/{ending}" in touched.places


@pytest.mark.parametrize("staging", ["", "ours/batches/"])
async def test_a_staging_place_may_be_a_bucket_or_end_with_a_slash(
    touched: Touched, account: Account, name: str, staging: str
) -> None:
    account = replace(account, staging=f"{SCHEMES[name]}://{staging or 'ours'}")
    stored = await providers.load(name).upload(account, asked(name), io.BytesIO(b"{}\n"))
    assert stored.startswith(f"{SCHEMES[name]}://{staging or 'ours/'}batchling-a/")


async def test_the_place_that_an_answer_names_is_as_foreign_as_a_records(
    touched: Touched, account: Account, name: str
) -> None:
    shown: Any = (
        Job(
            name="projects/p/locations/l/batchPredictionJobs/1",
            state="JOB_STATE_SUCCEEDED",
            outputInfo={"gcsOutputDirectory": "gs://payroll/2026"},
        ).look()
        if name == "vertex"
        else bedrock._told(
            {
                "status": "Completed",
                "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://payroll/2026"}},
            }
        )
    )
    assert isinstance(shown, Ended)
    assert shown.ending.results
    with pytest.raises(PermanentError, match="nothing else is read"):
        _ = [one async for one in providers.load(name).results(account, shown.ending)]
    assert touched.places == []
