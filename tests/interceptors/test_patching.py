"""Patches come and go with their users, on either library, and leave foreign patches alone."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from batchling_client.intercept import scope, switch

from .fakes import PATH, FakeHandler, Upstream, process_block, sends, task_block, who
from .test_scope import run_script


def ask(library: Any, upstream: Upstream) -> str:
    with library.Client(verify=False) as client:
        return who(client.post(upstream.url + PATH, json={"model": "m"}).content)


async def ask_async(library: Any, upstream: Upstream) -> str:
    async with library.AsyncClient(verify=False) as client:
        return who((await client.post(upstream.url + PATH, json={"model": "m"})).content)


def foreign(original: Callable[..., Any], log: list[str]) -> Callable[..., Any]:
    @functools.wraps(original)
    def send(self: Any, *args: Any, **options: Any) -> Any:
        log.append("foreign")
        return original(self, *args, **options)

    return send


def test_the_last_of_several_users_restores_exactly(library: Any) -> None:
    before = sends(library)
    switch.install()
    patched = sends(library)
    assert all(new is not old for new, old in zip(patched, before, strict=True))
    switch.install()
    switch.uninstall()
    assert sends(library) == patched
    switch.uninstall()
    assert sends(library) == before
    switch.uninstall()
    switch.install()
    switch.uninstall()
    assert sends(library) == before


def test_many_threads_that_switch_at_once_end_with_what_was_there(library: Any) -> None:
    before = sends(library)

    def churn() -> None:
        for _ in range(50):
            switch.install()
            assert sends(library) != before
            switch.uninstall()

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sends(library) == before


def test_a_foreign_patch_below_ours_is_asked_and_hides_no_call(library: Any, upstream: Upstream) -> None:
    log: list[str] = []
    original = library.Client.send
    below = library.Client.send = foreign(original, log)
    with process_block(FakeHandler()):
        assert ask(library, upstream) == "batch"
        assert log == ["foreign"]
    assert library.Client.send is below
    assert ask(library, upstream) == "upstream"
    assert log == ["foreign"] * 2
    library.Client.send = original


def test_a_foreign_patch_on_ours_stays_and_ours_falls_silent_below_it(
    library: Any, upstream: Upstream
) -> None:
    log: list[str] = []
    original = library.Client.send
    with process_block(FakeHandler()):
        ours = library.Client.send
        above = library.Client.send = foreign(ours, log)
        assert ask(library, upstream) == "batch"
    assert library.Client.send is above
    open_without_us = FakeHandler()
    scope.enter_process(open_without_us)
    assert ask(library, upstream) == "upstream"
    scope.leave_process(open_without_us)
    with process_block(FakeHandler("second")):
        assert ask(library, upstream) == "second"
    assert library.Client.send is above
    library.Client.send = ours
    assert ask(library, upstream) == "upstream"
    with process_block(FakeHandler("third")):
        assert ask(library, upstream) == "third"
    # What is left of us goes once the foreign patch does not keep it there.
    library.Client.send = original


class Counting(FakeHandler):
    """Wants no call, and counts the calls that pass."""

    n_passed = 0

    def passes(self, method: str, host: str, path: str) -> bool:
        self.n_passed += 1
        return False


async def test_a_foreign_patch_on_ours_lets_a_passed_call_be_counted_once(
    library: Any, upstream: Upstream
) -> None:
    original = library.AsyncClient.send
    with process_block(FakeHandler()):
        library.AsyncClient.send = foreign(library.AsyncClient.send, [])
    handler = Counting(wanting=False)
    with task_block(handler):
        assert await ask_async(library, upstream) == "upstream"
    assert handler.n_passed == 1
    library.AsyncClient.send = original


def test_a_wrapper_object_in_place_of_send_still_gets_its_instance(library: Any, upstream: Upstream) -> None:
    seen: list[object] = []
    original = library.Client.send

    class Wrapper:
        def __get__(self, instance: Any, owner: type) -> Callable[..., Any]:
            seen.append(instance)
            return functools.partial(original, instance)

    library.Client.send = Wrapper()
    with process_block(FakeHandler()), library.Client(verify=False) as client:
        client.post(upstream.url + "/other")
    assert seen == [client]
    library.Client.send = original


def test_a_patch_that_somebody_took_away_comes_back_with_the_next_block(
    library: Any, upstream: Upstream
) -> None:
    original = library.Client.send
    with process_block(FakeHandler("outer")):
        library.Client.send = original
        # Until then the transport catches what the client no longer does.
        assert ask(library, upstream) == "outer"
        with process_block(FakeHandler("inner")):
            assert ask(library, upstream) == "inner"


LATER = """
import sys
from batchling_client.intercept import scope, switch
from batchling_client.intercept.interceptor import HttpReply

assert not {"httpx", "httpx2", "aiohttp", "requests"} & set(sys.modules), "imported with the package"


class Handler:
    passed = None

    def wants(self, method, host, path):
        return True

    def answer_blocking(self, call):
        return HttpReply(status=200, headers={}, body=b"batch")


def ask(library):
    return library.Client(verify=False).post("http://127.0.0.1:9/", json={}).text


switch.install()
assert not {"httpx", "httpx2"} & set(sys.modules), "imported by install"
scope.enter_process(Handler())
"""


@pytest.mark.parametrize(
    "steps",
    [
        "import {0} as lib; assert ask(lib) == 'batch'",
        "import threading; t = threading.Thread(target=__import__, args=['{0}']); t.start(); t.join(); "
        "import {0} as lib; assert ask(lib) == 'batch'",
        "switch.uninstall(); import {0} as lib; assert not hasattr(lib.Client.send, '__wrapped__'); "
        "switch.install(); assert ask(lib) == 'batch'",
        "import {0} as lib; send = lib.Client.send; switch.install(); assert lib.Client.send is send; "
        "switch.uninstall(); switch.uninstall(); "
        "assert lib.Client.send is send.__wrapped__; assert not hasattr(lib.AsyncClient.send, '__wrapped__')",
        "import types; fake = sys.modules['{0}'] = types.ModuleType('{0}'); switch.install()",
    ],
    ids=["later", "later in a thread", "while switched off", "counted", "stand-in"],
)
def test_a_library_imported_after_install_is_patched_then(library: Any, steps: str) -> None:
    run_script(LATER + steps.format(library.__name__))


@pytest.mark.parametrize("first", ["switch.install()", "httpx2.alias_httpx()"])
def test_httpx_that_is_an_alias_of_httpx2_is_patched_once(first: str) -> None:
    run_script(
        LATER
        + f"""
switch.uninstall()
import httpx2
{first}
httpx2.alias_httpx()
switch.install()
import httpx
assert httpx is httpx2
assert not hasattr(httpx.Client.send.__wrapped__, "__wrapped__")
assert ask(httpx) == "batch"
switch.uninstall()
switch.uninstall()
assert not hasattr(httpx.Client.send, "__wrapped__")
"""
    )
