"""The doctor tells of each SDK what becomes of its calls, as today's releases send them."""

import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from batchling_client.intercept import switch
from batchling_client.operate import installed_sdks, sdk_coverage
from batchling_client.wire.deployment.finding import Finding, Health

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution's metadata into an environment of its own, which has no other."""
    monkeypatch.setattr("sys.path", [str(tmp_path)])

    def put(name: str, version: str, *requirements: str) -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
        (folder / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")

    return put


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The modules that can be imported, as far as the SDKs look."""
    there: set[str] = set()
    monkeypatch.setattr(
        installed_sdks, "find_spec", lambda name: ModuleSpec(name, None) if name in there else None
    )
    return there


def finding(library: str, health: Health = Health.OK) -> Finding:
    mend = "" if health is Health.OK else f"mend {library}"
    return Finding(check=library, health=health, says="", mend=mend)


CAUGHT = [library.name for library in switch.libraries() if library.probe is not None]
ALL_COVERED = {name: finding(name) for name in CAUGHT}


def fate(name: str, libraries: dict[str, Finding] | None = None) -> Finding:
    [sdk] = [sdk for sdk in installed_sdks.installed() if sdk.name == name]
    return sdk_coverage.of_sdk(sdk, ALL_COVERED if libraries is None else libraries)


@pytest.mark.parametrize(
    ("requirement", "library"), [("httpx2<3,>=2.12.0", "httpx2"), ("httpx<1,>=0.23.0", "httpx")]
)
def test_an_sdk_sends_over_what_its_release_requires(
    requirement: str, library: str, install: Install
) -> None:
    install("openai", "3.57.0", "anyio<5", requirement, "aiohttp>=3; extra == 'aiohttp'")
    found = fate("openai")
    assert (found.health, found.says) == (Health.OK, f"3.57.0, over {library}: covered")


def test_google_s_async_calls_go_over_aiohttp_where_it_can_be_imported(
    install: Install, importable: set[str]
) -> None:
    install("google-genai", "3.6.1", "httpx2<3", "requests<3", 'aiohttp<4; extra == "aiohttp"')
    assert fate("google-genai").says == "3.6.1, over httpx2: covered"
    importable.add("aiohttp")
    assert fate("google-genai").says == "3.6.1, blocking over httpx2: covered; async over aiohttp: covered"
    missing = {name: one for name, one in ALL_COVERED.items() if name != "aiohttp"}
    seen = fate("google-genai", missing)
    assert seen.health is Health.NOTE
    assert "async over aiohttp: not seen" in seen.says


@pytest.mark.parametrize(
    ("name", "requirements", "library", "way"),
    [
        ("xai-sdk", ("aiohttp<4", "grpcio<2", "requests<3"), "grpc", "https://api.x.ai/v1"),
        ("boto3", ("botocore (<1.45.0,>=1.44.8)",), "urllib3", "AsyncAnthropicBedrock"),
    ],
)
def test_an_sdk_over_a_watched_library_is_a_note_that_names_the_way(
    name: str, requirements: tuple[str, ...], library: str, way: str, install: Install
) -> None:
    install(name, "1.0", *requirements)
    found = fate(name)
    assert (found.health, found.says) == (Health.NOTE, f"1.0, over {library}: not batched, with a warning")
    assert way in found.mend


def test_frameworks_send_through_the_sdks_that_are_installed(install: Install) -> None:
    install("openai", "3", "httpx2")
    install("anthropic", "2", "httpx2", "boto3; extra == 'bedrock'")
    install("boto3", "1", "botocore")
    install("litellm", "1.110", "httpx[http2]<1.0", "openai<4.0.0", "anthropic[vertex]; extra == 'proxy'")
    install(
        "pydantic_ai_slim", "2", "httpx; extra == 'x'", "openai; extra == 'openai'", "groq; extra == 'groq'"
    )
    install("dspy", "3.3", "openai", "litellm>=1.64")
    install("instructor", "1", "aiohttp<4", "requests<3", "openai<4", "anthropic; extra == 'anthropic'")
    install("langchain-aws", "1", "boto3>=1.40")
    install("langchain-mistralai", "1", "httpx<1", "httpx-sse")
    assert fate("anthropic").says == "2, over httpx2: covered"
    assert fate("litellm").says == "1.110, over httpx: covered; through openai: see there"
    assert fate("pydantic-ai-slim").says == "2, through openai: see there"
    assert fate("dspy").says == "3.3, through openai, litellm: see there"
    assert fate("instructor").says == "1, through openai, anthropic: see there"
    assert fate("langchain-mistralai").says == "1, over httpx: covered"
    assert fate("langchain-aws").says == "1, through boto3: see there"


def test_dspy_sends_over_the_library_that_its_release_carries(install: Install, tmp_path: Path) -> None:
    install("openai", "3", "httpx2")
    install("dspy", "3.4", "openai")
    (tmp_path / "dspy" / "_vendor" / "lm15").mkdir(parents=True)
    assert fate("dspy").says == "3.4, over lm15: covered; through openai: see there"


def test_an_sdk_over_no_known_library_is_a_note(install: Install) -> None:
    install("together", "9", "niquests")
    found = fate("together")
    assert found.health is Health.NOTE
    assert "may not be intercepted" in found.says
    assert found.mend


def test_a_library_that_slips_past_fails_the_sdks_that_send_over_it(install: Install) -> None:
    install("groq", "1", "httpx<1")
    found = fate("groq", {"httpx": finding("httpx", Health.FAILURE)})
    assert (found.health, found.says) == (Health.FAILURE, "1, over httpx: not covered, see httpx")
    assert found.mend == "mend httpx"


async def test_this_environment_s_sdks_are_covered() -> None:
    found = {one.check: one for one in await sdk_coverage.interception()}
    for name in ("httpx", "httpx2", "aiohttp", "requests", "openai", "groq", "anthropic"):
        assert found[name].health is Health.OK, found[name]
    assert "openai" in found["httpx2"].says
    assert "groq" in found["httpx"].says
    assert set(found) <= {*CAUGHT, *installed_sdks.SDKS, *installed_sdks.FRAMEWORKS}
    assert importlib.util.find_spec("boto3") or "boto3" not in found
