"""The matrix is accurate: its versions are installed, and every registered provider has an SDK."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from batchling_client.wire.routes import ROUTES

from .caller import callers
from .matrix import columns, sdks

HERE = columns()[Path(sys.prefix).name]
UNCAUGHT = {"bedrock"}
"""Providers whose SDKs use a transport that is not intercepted, and warn about it."""


@pytest.mark.parametrize("package", HERE.packages)
def test_the_version_that_the_matrix_names_is_installed(package: str) -> None:
    assert importlib.metadata.version(package) == HERE.packages[package]


def test_every_provider_is_called_by_an_sdk() -> None:
    assert {caller.provider for caller in callers()} | UNCAUGHT >= {route.provider for route in ROUTES}


def test_each_sdk_is_pointed_at_the_providers_that_the_matrix_names() -> None:
    registered = {route.provider for route in ROUTES}
    pointed_at = {(caller.sdk, caller.provider) for caller in callers()}

    assert pointed_at == {
        (sdk, provider) for sdk, named in sdks().items() for provider in named if provider in registered
    }
