"""The port says which errors its methods raise; `port.py` holds every adapter to it in all tests of this folder."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import batchling_worker
from batchling_worker import errors
from batchling_worker.providers import xai

from .port import METHODS, documented, hold_to_the_port

PACKAGE = Path(batchling_worker.__file__).parent


def raised_in(folder: str) -> set[str]:
    """Return the worker's errors that the modules of a folder of adapters' code make."""
    made = {
        node.func.id
        for path in (PACKAGE / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return made & set(vars(errors))


@pytest.mark.parametrize("folder", ["providers", "dialects"])
def test_adapters_make_no_error_that_the_port_does_not_name(folder: str) -> None:
    named = set().union(*documented().values())
    assert raised_in(folder) <= named
    assert all(issubclass(getattr(errors, name), errors.WorkerError) for name in named)


def test_each_method_may_refuse_and_be_out_of_order() -> None:
    table = documented()
    assert all(table[method] >= {"PermanentError", "TemporaryError"} for method in METHODS)
    assert "MaybeDone" in table["create"]
    assert "MaybeDone" not in table["look"]


async def test_an_adapter_that_raises_another_error_fails_its_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def cancel(*args: object) -> None:
        raise errors.QuotaFull("no")

    monkeypatch.setattr(xai.Xai, "cancel", cancel)
    hold_to_the_port(monkeypatch)
    with pytest.raises(AssertionError, match="QuotaFull is not among"):
        await xai.PROVIDER.cancel(None, "b")  # type: ignore[arg-type]
