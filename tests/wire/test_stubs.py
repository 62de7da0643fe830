"""A stub is what the header of its script declares, or its module cannot be imported."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from batchling_client.wire.account_scripts import AccountScripts, Pause
from batchling_client.wire.keys import BatchId, Keys, LaneId, Mailbox, ProviderBatchId, RequestId
from batchling_client.wire.records.batch import EarlyRead
from batchling_client.wire.scripts import BatchCap, Fenced, RowIn, RowOut, Scripts
from batchling_client.wire.states import RowKind, Verdict
from batchling_client.wire.stubs import HeaderMismatch, Stubs, script

KEYS = Keys("x")
BATCH, LANE = BatchId("b1"), LaneId("l1")


class Sent(Stubs):
    """Keeps what would be sent."""

    call: tuple[str, list[str], list[Any]]
    reply: Any = b"OK"

    async def run(self, name: str, keys: Any, args: Any) -> Any:
        self.call = (name, [key.removeprefix(KEYS.prefix) for key in keys], list(args))
        return self.reply


class SentScripts(Sent, Scripts):
    """Batches."""


class SentAccountScripts(Sent, AccountScripts):
    """Accounts."""


@pytest.fixture
def scripts() -> SentScripts:
    connection: Any = None
    return SentScripts(connection, KEYS)


def test_a_parameter_that_the_header_lacks_is_refused() -> None:
    with pytest.raises(HeaderMismatch, match=r"extend\.lua takes no urgent"):

        @script(Fenced)
        async def extend(self: Stubs, batch_id: str, token: int, lease_ms: int, urgent: bool) -> Fenced:
            return Verdict.OK


def test_a_name_of_the_header_that_the_stub_lacks_is_refused() -> None:
    with pytest.raises(HeaderMismatch, match=r"extend\.lua takes lease_ms"):

        @script(Fenced)
        async def extend(self: Stubs, batch_id: str, token: int) -> Fenced:
            return Verdict.OK


def test_a_key_of_something_that_the_stub_lacks_is_refused() -> None:
    with pytest.raises(HeaderMismatch, match=r"seal\.lua takes lane_id"):

        @script(Fenced)
        async def seal(self: Stubs, batch_id: str, token: int) -> Fenced:
            return Verdict.OK


@pytest.mark.parametrize(
    "verdicts", [Literal[Verdict.OK], Literal[Verdict.OK, Verdict.STALE, Verdict.GONE], None]
)
def test_verdicts_that_are_not_those_of_the_header_are_refused(verdicts: object) -> None:
    with pytest.raises(HeaderMismatch, match=r"extend\.lua answers OK, STALE"):

        @script(verdicts)
        async def extend(self: Stubs, batch_id: str, token: int, lease_ms: int) -> Fenced:
            return Verdict.OK


async def test_arguments_are_sent_in_the_order_of_the_header(scripts: SentScripts) -> None:
    await scripts.release(token=7, batch_id=BATCH, denied=True, delay_s=1.5)
    assert scripts.call == ("release", ["schedule", "batch:b1"], ["b1", 7, 1500, "", 0, 1])

    await scripts.progress(BATCH, 7, "running", 1, 2, 0.25, EarlyRead(cursor="c"), listed=True)
    assert scripts.call[2] == ["b1", 7, "running", 1, 2, 250, b'{"cursor":"c"}', 1, 0, ""]


async def test_a_call_without_an_argument_or_with_another_is_refused(scripts: SentScripts) -> None:
    extend: Any = scripts.extend
    with pytest.raises(TypeError, match="takes batch_id, token, lease_ms"):
        await extend(BATCH, token=7)
    with pytest.raises(TypeError, match="takes batch_id, token, lease_ms"):
        await extend(BATCH, 7, 5, urgent=True)
    assert not hasattr(scripts, "call")


async def test_the_items_of_a_sequence_follow_as_the_header_says(scripts: SentScripts) -> None:
    scripts.reply = [b"OK", 1, 2, 3, 4]
    row = RowOut(request_id=RequestId("r1"), kind=RowKind.SUCCESS, packed=b"p", about="429 busy")
    delivered = await scripts.deliver(
        BATCH, 7, [row], max_attempts=3, keep_ms=5, mail_ms=6, minute_ms=7, mailboxes=[Mailbox("m1")]
    )
    assert (delivered.n_answered, delivered.n_retry, delivered.n_unknown) == (1, 2, 3)
    assert delivered.n_answer_bytes == 4
    assert scripts.call[1] == [
        *("batch:b1", "unanswered:b1", "failures:b1", "failed_rows:b1"),
        *("mailbox:m1", "request:r1", "result:r1"),
    ]
    assert scripts.call[2] == [7, "b1", 3, 5, 6, KEYS.notice_prefix, 7, 1, "m1", "S", "r1", b"p", "429 busy"]

    scripts.reply = [b"OK", b"1"]
    requeued = await scripts.requeue(
        target=BatchId("b2"),
        lane_id=LANE,
        spec=b"{}",
        source_id=BATCH,
        token=7,
        cap=BatchCap(rows=1, bytes=2, linger_ms=3, longest_ms=4),
        sent_again="lost",
        keep_ms=5,
        minute_ms=6,
        rows=[RowIn(request_id=RequestId("r1"), packed=b"p", size=6, attempt=2)],
    )
    assert requeued.n_taken == 1
    assert scripts.call[1][2:] == ["batch:b2", "rows:b2", "batches", "lanes", "batch:b1", "request:r1"]
    assert scripts.call[2] == ["b2", "l1", b"{}", "b1", 7, 3, 4, 1, 2, 5, "lost", 6, 1, b"p", 2, 6]


async def test_the_reply_is_read_as_the_stub_says(scripts: SentScripts) -> None:
    scripts.reply = [b"STALE", b"batch_1"]
    assert await scripts.submitted(BATCH, 7, ProviderBatchId("batch_2"), 0) == (Verdict.STALE, "batch_1")

    connection: Any = None
    accounts = SentAccountScripts(connection, KEYS)
    accounts.reply = 250
    pause = Pause(first_ms=1, longest_ms=2, shortest_ms=3, draw=0.5, wish_ms=4)
    assert await accounts.trip(circuit="a", opens_after=3, pause=pause, why="no", forget_ms=9) == 250
    assert accounts.call == ("trip", ["circuit:a"], [3, 1, 2, 3, 500_000, 4, "no", 9])
