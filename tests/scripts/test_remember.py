"""Remember: the requests of a submitted file are stored in order, even if sent twice, and expire."""

from __future__ import annotations

import pytest

from batchling_client.wire.records import submitted_file
from batchling_client.wire.records.row_and_result import CorruptRecord
from batchling_client.wire.states import Verdict

from .byhand import KEEP_MS, ByHand, ids


async def test_chunks_stand_under_their_numbers_and_expire(byhand: ByHand) -> None:
    chunks = [[submitted_file.Asked(f"mine {one}", one) for one in ids(3)] for _ in range(2)]
    for number in (1, 0, 1):
        verdict = await byhand.scripts.remember(
            run_id=byhand.run_id,
            number=number,
            packed=submitted_file.pack(chunks[number]),
            n_requests=6,
            keep_ms=KEEP_MS,
        )
        assert verdict is Verdict.OK

    key = byhand.keys.run_requests(byhand.run_id)
    stored: dict[bytes, bytes] = dict(await byhand.redis.hgetall(key))  # type: ignore[arg-type]
    assert stored.pop(b"n") == b"6"
    assert [submitted_file.unpack(stored[name]) for name in sorted(stored)] == chunks
    assert 0 < await byhand.redis.execute_command("PTTL", key) <= KEEP_MS


@pytest.mark.parametrize("damaged", [b"", b"nonsense", b"\x92\x01\x02"])
def test_a_damaged_chunk_is_refused(damaged: bytes) -> None:
    with pytest.raises(CorruptRecord):
        submitted_file.unpack(damaged)
