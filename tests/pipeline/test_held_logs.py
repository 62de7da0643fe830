"""The log of several workers about one batch that waits."""

from __future__ import annotations

from batchling_worker.sandbox import Limits
from batchling_worker.sandbox.world.faults import StickBatch
from tests.deployment import Deployment
from tests.waiting import wait_until
from tests.worker.test_log_lines import parsed

ROWS = 5
PROMPT = "x" * 400
LOOKS = 12


async def test_a_batch_that_waits_for_room_is_logged_once_by_two_workers(deployment: Deployment) -> None:
    deployment.sandbox.limits = Limits(max_enqueued_tokens=ROWS * 150)
    deployment.sandbox.faults.add(StickBatch(state="in_progress", seconds=3600, done=0.0))
    for _ in range(2):
        deployment.worker()
    await deployment.ask(ROWS, prompts=[PROMPT] * ROWS, rows=ROWS)
    await deployment.room_is_taken()
    await deployment.ask(ROWS, prompts=[PROMPT] * ROWS, rows=ROWS)

    async def looked_at() -> bool:
        """Return whether the waiting batch was looked at several times since it began to wait."""
        await deployment.hurry()
        held = [one for one in await deployment.batches() if "quota" in one.error]
        tokens = [
            int(await deployment.redis.execute_command("HGET", deployment.keys.batch(one.batch_id), "token"))
            for one in held
        ]
        return bool(tokens) and max(tokens) >= LOOKS

    await wait_until(looked_at, description=f"the batch is looked at {LOOKS} times", within_s=50)

    events = [parsed(line) for line in deployment.worker_logs().splitlines() if " event=batch_held " in line]
    reasons = [event["reason"] for event in events]
    assert 1 <= len(reasons) == len(set(reasons)) <= 2, "the provider's refusal, and our own wait after it"
