"""Any order of calls, doubled, dropped, torn off or late, leaves Redis as the model says: nothing lost or twice."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.ids import new_batch_id, new_mailbox
from batchling_client.wire.keys import BatchId, Keys, Mailbox, RequestId
from batchling_client.wire.records.batch import UNENDED_ALLOWED, Batch
from batchling_client.wire.states import BatchState, Outcome, RowKind, Verdict

from .byhand import KEEP_MS, LEASE_MS, WIDE, ByHand, ids, out, row
from .keyspace import strays
from .model import MAX_ATTEMPTS, MOST_NAMED, Hold, Model

T = TypeVar("T")
N_REQUESTS = 7
"""So few that the same are asked for again and again."""
N_CLIENTS = 3
N_STRANGERS = MOST_NAMED - 1
"""So many that a request which a client and they wait for can name no further one."""
N_LIVES = int(os.environ.get("MODEL_LIVES", "50"))
"""How many lives are tried; `MODEL_LIVES=5000` for a night of them."""
SUBMIT_STATES = (BatchState.SEALED, BatchState.SUBMITTING)
POLL_STATES = (BatchState.SUBMITTED,)
UNSENT_STATES = (BatchState.OPEN, *SUBMIT_STATES)
END_STATES = (*SUBMIT_STATES, *POLL_STATES, BatchState.ENDED)
MOVES = (
    *("seal", "submit", "uploaded", "progress", "ended", "deliver", "collected", "settle", "release", "hold"),
    *("extend", "unreadable", "give_up", "unread", "adopt"),
)
NEXT_MOVES = {
    BatchState.OPEN: ("seal",),
    BatchState.SEALED: ("submit", "submit", "release", "hold"),
    BatchState.SUBMITTING: ("submit", "release", "hold"),
    BatchState.SUBMITTED: ("adopt", "progress", "ended", "ended"),
    BatchState.ENDED: ("deliver", "unread", "collected", "settle", "settle"),
}

clients = st.integers(0, N_CLIENTS - 1)
numbers = st.integers(0, N_REQUESTS - 1)
caps = st.sampled_from((1, 2, 4, 100))
chunks = st.lists(st.tuples(numbers, st.sampled_from(tuple(RowKind))), min_size=1, max_size=6)


@dataclasses.dataclass(frozen=True)
class Chance:
    """What befalls a step: where it is cut short, what is doubled, what the provider says."""

    torn_off: bool
    doubled: bool
    cap: int
    outcome: Outcome
    results: list[tuple[int, RowKind]]


chances = st.builds(
    Chance,
    torn_off=st.booleans(),
    doubled=st.booleans(),
    cap=caps,
    outcome=st.sampled_from(tuple(Outcome)),
    results=chunks,
)


class Life(RuleBasedStateMachine):
    """Clients and workers who forget, repeat and die; each call is held against the model."""

    holds: Bundle[Hold] = Bundle("holds")

    def __init__(self, redis_url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.byhand = ByHand(self.run(_connected(redis_url)), Keys(f"m-{secrets.token_hex(6)}"))
        self.model = Model()
        self.asked = ids(N_REQUESTS)
        self.mailboxes = [new_mailbox() for _ in range(N_CLIENTS)]
        self.strangers: list[Mailbox] = []
        self.tokens: dict[BatchId, int] = {}
        self.tombs: dict[BatchId, dict[bytes, bytes]] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        assert self.run(strays(self.byhand.redis, self.byhand.keys)) == []
        self.run(self.byhand.redis.aclose())
        self.runner.close()

    @rule(
        wanted=st.lists(numbers, min_size=1, max_size=5), client=clients, cap=caps, lost_reply=st.booleans()
    )
    def enqueue(self, wanted: list[int], client: int, cap: int, lost_reply: bool) -> None:
        """A client sends until all is taken; a reply that got lost has it send the same once more."""
        rest, guess, mailbox = [self.asked[n] for n in wanted], new_batch_id(), self.mailboxes[client]
        limit, anew = dataclasses.replace(WIDE, rows=cap), True
        while rest:
            for _ in range(2 if lost_reply else 1):
                expected = self.model.enqueue(guess, rest, mailbox, cap, anew=anew)
                rows = [row(one) for one in rest]
                reply = self.run(
                    self.byhand.enqueue(rows, into=guess, mailbox=mailbox, cap=limit, ask_failed_anew=anew)
                )
                assert reply == expected
                anew = not lost_reply
            rest = rest[len(reply.placements) :]
            guess = reply.open_batch or new_batch_id()

    @precondition(lambda self: self.model.flying)
    @rule(pick=numbers)
    def crowd(self, pick: int) -> None:
        """One client after the other asks for a request in flight, and is killed."""
        flying = list(self.model.flying)
        one = flying[pick % len(flying)]
        self.strangers = self.strangers or [new_mailbox() for _ in range(N_STRANGERS)]
        for mailbox in self.strangers:
            guess = new_batch_id()
            reply = self.run(self.byhand.enqueue([row(one)], into=guess, mailbox=mailbox))
            assert reply == self.model.enqueue(guess, [one], mailbox, WIDE.rows, anew=True)

    @precondition(lambda self: self.model.flying)
    @rule(picks=st.lists(numbers, min_size=1, max_size=4), client=clients, wrong=st.integers(0, 5))
    def withdraw(self, picks: list[int], client: int, wrong: int) -> None:
        """Callers give up, one after the other; now and then where their request is not, or was never theirs."""
        for pick in picks:
            flying = list(self.model.flying.items())
            if not flying:
                return
            one, flight = flying[pick % len(flying)]
            batch_id = new_batch_id() if wrong == 0 else flight.batch_id
            mailbox = (
                self.mailboxes[client] if wrong == 1 else next(iter(flight.mailboxes), self.mailboxes[0])
            )
            for _ in range(2):
                verdict = self.run(self.byhand.withdraw(one, batch_id, mailbox))
                assert verdict is self.model.withdraw(one, batch_id, mailbox)

    @precondition(lambda self: self.model.batches)
    @rule(
        pick=st.integers(0, 99),
        wanted=st.lists(numbers, min_size=1, max_size=5),
        whose=st.sets(clients, max_size=N_CLIENTS),
    )
    def drop(self, pick: int, wanted: list[int], whose: set[int]) -> None:
        """A person cancels requests of some clients; asked for twice, or in a batch that they are not in."""
        known = list(self.model.batches)
        batch_id = known[pick % len(known)]
        asked, mailboxes = [self.asked[n] for n in wanted], [self.mailboxes[n] for n in sorted(whose)]
        for _ in range(2):
            dropped = self.run(self.byhand.drop(asked, batch_id, mailboxes))
            told = (dropped.verdict, dropped.n_dropped, dropped.n_shared, dropped.ended)
            assert told == self.model.drop(asked, batch_id, mailboxes)

    @precondition(lambda self: self.model.batches)
    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        known = list(self.model.batches)
        batch_id = known[pick % len(known)]
        assert self.run(self.byhand.cancel(batch_id)) is self.model.cancel(batch_id)

    @precondition(lambda self: self._live())
    @rule()
    def fail_over(self) -> None:
        """Pretend that another Redis opened the live batches."""
        for batch_id in self._live():
            self.run(self.byhand.opened_elsewhere(batch_id))
            self.model.batches[batch_id].opened_elsewhere = True

    @precondition(lambda self: self.model.batches)
    @rule(pick=st.integers(0, 99))
    def retry(self, pick: int) -> None:
        known = list(self.model.batches)
        batch_id = known[pick % len(known)]
        assert self.run(self.byhand.scripts.retry(batch_id=batch_id)) is self.model.retry(batch_id)

    @precondition(lambda self: self.model.batches)
    @rule(picks=st.lists(st.integers(0, 99), min_size=2, max_size=4), name=st.sampled_from(("one", "two")))
    def own(self, picks: list[int], name: str) -> None:
        """A provider, or a cache on the way, shows one id to several batches, some of them over."""
        known = list(self.model.batches)
        for batch_id in (known[pick % len(known)] for pick in picks):
            owner = self.run(self.byhand.scripts.own(batch_id=batch_id, name=name, keep_ms=KEEP_MS))
            assert owner == self.model.own(batch_id, name)

    @precondition(lambda self: any(batch.kept for batch in self.model.batches.values()))
    @rule(pick=st.integers(0, 99), wrong=st.booleans(), read=st.booleans())
    def reopen(self, pick: int, wrong: bool, read: bool) -> None:
        """A person has a batch read again, twice; a worker adopts what it had left without an answer."""
        known = [one for one, batch in self.model.batches.items() if wrong or batch.kept]
        batch_id = known[pick % len(known)]
        for _ in range(2):
            verdict = self.run(self.byhand.scripts.reopen(batch_id=batch_id, keep_ms=KEEP_MS))
            assert verdict is self.model.reopen(batch_id)
            if verdict is Verdict.OK:
                self.tombs.pop(batch_id, None)
        hold = self._claim(batch_id) if read else None
        if hold is not None:
            self._adopt_all(hold, sorted(self.model.batches[batch_id].kept), last=True)

    @rule(target=holds, passed_ms=st.sampled_from((0, 1, LEASE_MS // 2, LEASE_MS + 1)))
    def tick(self, passed_ms: int) -> MultipleResults[Hold]:
        """Time passes, and a worker claims whatever is due: each batch once, and no other."""
        known = [*self.model.batches, BatchId("b-of-nobody")]
        due = self.run(self._due_after(passed_ms))
        told = {claim.batch_id: claim for claim in self.run(self.byhand.claims(*known))}
        assert told.keys() == due
        holds = [self.model.claim(batch_id, claim.token) for batch_id, claim in told.items()]
        assert [hold and hold.token for hold in holds] == [claim.token for claim in told.values()]
        assert [claim.state for claim in told.values()] == [self.model.batches[one].state for one in told]
        assert self.run(self.byhand.claims(*known)) == [], "two hold one batch"
        return multiple(*(hold for hold in holds if hold is not None))

    async def _due_after(self, passed_ms: int) -> set[BatchId]:
        """Moves every look nearer by so much; answers what is due then."""
        schedule = self.byhand.keys.schedule
        do: Any = self.byhand.redis.execute_command
        for name in await do("ZRANGE", schedule, 0, -1):
            await do("ZINCRBY", schedule, -passed_ms, name)
        looks = {one: await self.byhand.next_look(one) for one in self.model.batches}
        now_ms = await self.byhand.now_ms()
        return {one for one, look in looks.items() if look is not None and look <= now_ms}

    @precondition(lambda self: self.model.flying)
    @rule(pick=numbers, wrong=st.booleans())
    def forget(self, pick: int, wrong: bool) -> None:
        """A client looks after its request; the batch lives, has moved, or was given up."""
        flying = list(self.model.flying.items())
        one, flight = flying[pick % len(flying)]
        batch_id = next(iter(self.model.batches)) if wrong else flight.batch_id
        for _ in range(2):
            verdict = self.run(self.byhand.scripts.forget(request_id=one, batch_id=batch_id))
            assert verdict is self.model.forget(one, batch_id)

    @rule(hold=holds)
    def survived(self, hold: Hold) -> None:
        """A worker that was held up says that it lives, some time or other."""
        said = self.run(self.byhand.scripts.survived(batch_id=hold.batch_id, token=hold.token))
        assert said is self.model.survived(hold)

    @precondition(lambda self: self._live())
    @rule(target=holds, pick=st.integers(0, 99))
    def die_again_and_again(self, pick: int) -> Hold:
        """Workers begin a step on a batch and die of it."""
        live = self._live()
        batch_id = live[pick % len(live)]
        hold = None
        for _ in range(UNENDED_ALLOWED + 1):
            hold = self._claim(batch_id) or hold
            if hold is not None:
                self._begin_once(hold, END_STATES, secrets.token_hex(8))
        return hold or Hold(batch_id, self.model.batches[batch_id].token - 1)

    @precondition(lambda self: self._live())
    @rule(
        target=holds,
        pick=st.integers(0, 99),
        steps=st.lists(st.tuples(st.integers(0, 11), chances), max_size=6),
    )
    def work(self, pick: int, steps: list[tuple[int, Chance]]) -> Hold:
        """A batch is due, or its lease is over: a worker claims it, takes step after step, and dies of a claim."""
        live = self._live()
        batch_id = live[pick % len(live)]
        for move, chance in steps:
            hold = self._claim(batch_id)
            if hold is None:
                break
            state = self.model.batches[batch_id].state
            self._begin(hold, (state,))
            moves = NEXT_MOVES[state]
            getattr(self, f"_{moves[move % len(moves)]}")(hold, chance)
        return self._claim(batch_id) or Hold(batch_id, self.model.batches[batch_id].token - 1)

    @rule(hold=holds, move=st.sampled_from(MOVES), chance=chances)
    def work_late(self, hold: Hold, move: str, chance: Chance) -> None:
        """Let a worker with any claim ever made wake up and continue as if nothing had happened."""
        self._begin(hold, END_STATES)
        getattr(self, f"_{move}")(hold, chance)

    def _live(self) -> list[BatchId]:
        return [batch_id for batch_id, batch in self.model.batches.items() if not batch.state.terminal]

    def _claim(self, batch_id: BatchId) -> Hold | None:
        self.run(self.byhand.due(batch_id))
        before_ms = self.run(self.byhand.now_ms())
        claims = self.run(self.byhand.claims(batch_id))
        # The server's time at the claim is known only to lie between two looks at it.
        told_ms = [
            claim.token for claim in claims if before_ms <= claim.token <= self.run(self.byhand.now_ms())
        ]
        expected = self.model.claim(batch_id, told_ms[0] if told_ms else before_ms)
        assert [Hold(claim.batch_id, claim.token) for claim in claims] == ([expected] if expected else [])
        assert self.run(self.byhand.claims(batch_id)) == [], "two hold one batch"
        return expected

    def _begin(self, hold: Hold, states: Sequence[BatchState]) -> None:
        """A call whose reply was lost is sent again, and a doubled message makes another."""
        lost, doubled = secrets.token_hex(8), secrets.token_hex(8)
        for nonce in (lost, lost, doubled):
            self._begin_once(hold, states, nonce)

    def _begin_once(self, hold: Hold, states: Sequence[BatchState], nonce: str) -> None:
        began = self.run(self.byhand.begin(hold.batch_id, hold.token, *states, nonce=nonce))
        assert (began is not None) is self.model.begin(hold, states, nonce)

    def _seal(self, hold: Hold, _: Chance) -> None:
        self._same(self.run(self.byhand.seal(hold.batch_id, hold.token)), self.model.seal(hold))

    def _submit(self, hold: Hold, chance: Chance) -> None:
        """From the intent on; torn off, the answer to the create is lost."""
        scripts, (batch_id, token) = self.byhand.scripts, (hold.batch_id, hold.token)
        label = self.run(scripts.intend(batch_id=batch_id, token=token, label="label"))
        intended = self.model.move(hold, SUBMIT_STATES, BatchState.SUBMITTING, spent=False)
        assert (label is not None) is intended
        self._same(self.run(scripts.arm(batch_id=batch_id, token=token)), intended)
        batch = self.model.batches[batch_id]
        batch.armed = batch.armed or intended
        batch.opened_elsewhere = batch.opened_elsewhere and not intended
        if not chance.torn_off:
            verdict, _ = self.run(self.byhand.submitted(batch_id, token))
            moved = self.model.move(hold, (BatchState.SUBMITTING,), BatchState.SUBMITTED, spent=True)
            self._same(verdict, moved)
            batch.armed = batch.armed and not moved
            batch.known = batch.known or moved

    def _uploaded(self, hold: Hold, _: Chance) -> None:
        moved = self.model.uploaded(hold)
        work = self.byhand.scripts.uploaded(
            batch_id=hold.batch_id, token=hold.token, input_file_id="file", n_lines=1
        )
        self._same(self.run(work), moved)

    def _extend(self, hold: Hold, _: Chance) -> None:
        work = self.byhand.scripts.extend(batch_id=hold.batch_id, token=hold.token, lease_ms=LEASE_MS)
        self._same(self.run(work), self.model.fresh(hold))

    def _unreadable(self, hold: Hold, _: Chance) -> None:
        moved = self.model.unreadable(hold)
        work = self.byhand.scripts.unreadable(
            batch_id=hold.batch_id, token=hold.token, delay_ms=0, patience_ms=LEASE_MS
        )
        self._same(self.run(work), moved)

    def _give_up(self, hold: Hold, _: Chance) -> None:
        gone = self.model.give_up(hold)
        work = self.byhand.scripts.give_up(
            batch_id=hold.batch_id, token=hold.token, error="damaged", keep_ms=KEEP_MS
        )
        self._same(self.run(work), gone)
        if gone:
            self.tombs[hold.batch_id] = self.run(self.byhand.fields(hold.batch_id))

    def _progress(self, hold: Hold, _: Chance) -> None:
        moved = self.model.move(hold, POLL_STATES, None, spent=True)
        self._same(self.run(self.byhand.progress(hold.batch_id, hold.token)), moved)

    def _release(self, hold: Hold, chance: Chance) -> None:
        moved = self.model.move(hold, tuple(BatchState), None, spent=True)
        work = self.byhand.scripts.release(
            batch_id=hold.batch_id,
            token=hold.token,
            delay_s=0,
            error=chance.outcome.value if chance.doubled else "",
            create_refused=chance.torn_off,
        )
        self._same(self.run(work), moved)
        if moved and chance.torn_off:
            self.model.batches[hold.batch_id].armed = False

    def _hold(self, hold: Hold, chance: Chance) -> None:
        """It waits; where the create was refused for a quota it is sealed again, and goes round."""
        state = self.model.batches[hold.batch_id].state
        back = chance.doubled and state is BatchState.SUBMITTING
        moved = self.model.move(hold, tuple(BatchState), BatchState.SEALED if back else None, spent=True)
        work = self.byhand.scripts.hold(
            batch_id=hold.batch_id, token=hold.token, delay_s=0, why="full", unmade=chance.doubled
        )
        self._same(self.run(work), moved)
        if moved and back:
            self.model.batches[hold.batch_id].armed = False

    def _ended(self, hold: Hold, chance: Chance) -> None:
        moved = self.model.ended(hold, END_STATES)
        self._same(self.run(self.byhand.ended(hold.batch_id, hold.token, chance.outcome)), moved)

    def _collected(self, hold: Hold, _: Chance) -> None:
        moved = self.model.collected(hold)
        work = self.byhand.scripts.collected(batch_id=hold.batch_id, token=hold.token)
        self._same(self.run(work), moved)

    def _unread(self, hold: Hold, chance: Chance) -> None:
        """The results lack rows: they are read again, or the batch is held where they cannot be read."""
        moved = self.model.unread(hold, held=chance.doubled)
        work = self.byhand.scripts.unread(
            batch_id=hold.batch_id,
            token=hold.token,
            delay_s=0,
            ending=b"{}",
            why="lacks rows",
            held_back=chance.doubled,
        )
        self._same(self.run(work), moved)

    def _adopt(self, hold: Hold, chance: Chance) -> None:
        """A worker adopts the requests of a reopened batch; torn off, only some of them."""
        kept = sorted(self.model.batches[hold.batch_id].kept)
        some = kept[: len(kept) // 2] if chance.torn_off else kept
        for _ in range(2 if chance.doubled else 1):
            self._adopt_all(hold, some, last=not chance.torn_off)

    def _adopt_all(self, hold: Hold, wanted: Sequence[RequestId], *, last: bool) -> None:
        work = self.byhand.scripts.adopt(
            batch_id=hold.batch_id,
            lane_id=self.byhand.lane_id,
            token=hold.token,
            attempt=MAX_ATTEMPTS,
            keep_ms=KEEP_MS,
            request_ids=wanted,
            last=last,
        )
        self._same(self.run(work), self.model.adopt(hold, wanted))

    def _keep(self, hold: Hold, kept: Sequence[RequestId]) -> None:
        work = self.byhand.scripts.keep(
            batch_id=hold.batch_id, token=hold.token, keep_ms=KEEP_MS, request_ids=kept
        )
        self._same(self.run(work), self.model.keep(hold, kept))

    def _deliver(self, hold: Hold, chance: Chance) -> None:
        """A chunk of results in which rows are doubled, missing, or another batch's."""
        batch = self.model.batches[hold.batch_id]
        rows = [one for one, _ in batch.rows] + sorted(batch.kept) + self.asked[:1]
        for _ in range(2 if chance.doubled else 1):
            self._deliver_once(hold, [(rows[n % len(rows)], kind) for n, kind in chance.results])

    def _deliver_once(self, hold: Hold, chunk: Sequence[tuple[RequestId, RowKind]]) -> None:
        expected = self.model.deliver(hold, chunk)
        outs, known = [out(one, kind) for one, kind in chunk], list[Mailbox]()
        batch_id, token = hold.batch_id, hold.token
        while True:
            reply = self.run(
                self.byhand.deliver(batch_id, token, outs, mailboxes=known, max_attempts=MAX_ATTEMPTS)
            )
            if reply.verdict is not Verdict.MAILBOXES:
                break
            assert set(reply.mailboxes) - set(known)
            known += reply.mailboxes
        assert (reply.verdict is Verdict.STALE) is (expected is None)
        assert expected in (None, (reply.n_answered, reply.n_retry))

    def _settle(self, hold: Hold, chance: Chance) -> None:
        """A walk over what is left, each request moved on or refused; only a walk to the end may settle.

        Requests of a batch that its provider knows are kept first, and those of a reopened one are never run again.
        """
        batch = self.model.batches[hold.batch_id]
        left = [one for one, _ in self.model.batches[hold.batch_id].rows]
        walk = left[: len(left) // 2] if chance.torn_off else left
        waiting = {one: self.model.flying[one].attempt for one in self.model.waiting_in(hold.batch_id)}
        again = [(one, 2) for one in walk if waiting.get(one, MAX_ATTEMPTS) < MAX_ATTEMPTS]
        if batch.reopened:
            again = []
        kept = [one for one in walk if one in waiting and (chance.doubled or (one, 2) not in again)]
        if batch.known and kept:
            self._keep(hold, kept)
        self._requeue(hold, again * (2 if chance.doubled else 1), chance.cap)
        self._deliver_once(hold, [(one, RowKind.FAILURE) for one in walk if (one, 2) not in again])
        if not chance.torn_off:
            settled = self.model.settle(hold)
            self._same(self.run(self.byhand.settle(hold.batch_id, hold.token)), settled)
            if settled:
                self.tombs[hold.batch_id] = self.run(self.byhand.fields(hold.batch_id))

    def _requeue(self, hold: Hold, rest: Sequence[tuple[RequestId, int]], cap: int) -> None:
        target, limit = new_batch_id(), dataclasses.replace(WIDE, rows=cap)
        while rest:
            expected = self.model.requeue(hold, target, rest, cap)
            rows = [row(one, attempt=attempt) for one, attempt in rest]
            reply = self.run(self.byhand.requeue(hold.batch_id, hold.token, rows, target=target, cap=limit))
            assert reply == expected
            verdict, n_taken, open_batch = reply
            if verdict is Verdict.STALE:
                return
            rest, target = rest[n_taken:], open_batch or new_batch_id()

    @staticmethod
    def _same(verdict: Verdict, moved: bool) -> None:
        assert verdict is (Verdict.OK if moved else Verdict.STALE)

    @invariant()
    def redis_is_as_the_model_says(self) -> None:
        self.run(self._compare_batches())
        self.run(self._compare_requests())

    async def _compare_batches(self) -> None:
        byhand = self.byhand
        for batch_id, expected in self.model.batches.items():
            fields, rows = await byhand.fields(batch_id), await byhand.rows_of(batch_id)
            batch, token = Batch.decode(fields), int(fields[b"token"])
            assert (batch.state, token, batch.n_dropped) == (
                expected.state,
                expected.token,
                expected.n_dropped,
            )
            assert batch.n_requests == len(expected.rows)
            assert (batch.n_unended, batch.quarantined_at is not None) == (
                len(expected.unended),
                expected.quarantined,
            )
            held = [(one.request_id, one.attempt) for one in rows]
            assert held == ([] if expected.state.terminal or expected.reopened else expected.rows)
            assert not (expected.known and batch.state in UNSENT_STATES), "a batch would be paid for twice"
            assert (batch.held_since is not None) is expected.held
            assert await byhand.kept(batch_id) == expected.kept, "nobody could read for a request again"
            assert len({one for one, _ in held}) == len(held), "a request is in a batch twice"
            if expected.armed and expected.state is BatchState.SUBMITTING:
                assert batch.create_at is not None, "the next worker would create without a search"
            if not expected.stranded:
                gone = batch.n_succeeded + batch.n_failed + batch.n_requeued + batch.n_dropped
                n_waiting = len(self.model.waiting_in(batch_id))
                assert batch.n_requests == gone + n_waiting, "the counters do not add up"
            assert token >= self.tokens.get(batch_id, 0)
            self.tokens[batch_id] = token
        listed = await byhand.listed()
        assert listed == {one: [await byhand.list_of(one)] for one in self.model.batches}
        live = {
            batch_id
            for batch_id, batch in self.model.batches.items()
            if not batch.state.terminal and not batch.quarantined
        }
        scheduled = await byhand.redis.execute_command("ZRANGE", byhand.keys.schedule, 0, -1)
        assert {BatchId(name.decode()) for name in scheduled} == live
        farthest = max([await byhand.next_look(one) or 0 for one in live], default=0)
        assert farthest <= await byhand.now_ms() + LEASE_MS, "nobody looks at a batch for longer than a lease"
        for batch_id, fields in self.tombs.items():
            assert await byhand.fields(batch_id) == fields, "a terminal batch has moved"

    async def _compare_requests(self) -> None:
        byhand, model = self.byhand, self.model
        for one in self.asked:
            flight, place = model.flying.get(one), await byhand.place(one)
            if flight is None:
                assert place is None or place.startswith("|")
            else:
                assert place == flight.place
                batch = model.batches[flight.batch_id]
                assert batch.stranded or not batch.state.terminal, "a request waits for ever"
                told_at_the_end = batch.kept if batch.reopened else await byhand.ids_of(flight.batch_id)
                assert batch.stranded or one in told_at_the_end, "a request is lost"
            result = await byhand.result(one)
            assert (None if result is None else result.status == 200) == model.results.get(one)
            assert flight is None or result is None, "a request is answered and in flight"
        mailboxes = [*self.mailboxes, *self.strangers]
        told = zip(mailboxes, map(Counter, await byhand.mails(mailboxes)), strict=True)
        assert {(mailbox, one): n for mailbox, mail in told for one, n in mail.items()} == dict(model.mail)


async def _connected(redis_url: str) -> Redis:
    return connect(redis_url)


@pytest.mark.timeout(10 * N_LIVES)
def test_any_order_of_calls_leaves_redis_as_the_model_says(redis_url: str) -> None:
    class LifeHere(Life):
        def __init__(self) -> None:
            super().__init__(redis_url)

    run_state_machine_as_test(
        LifeHere,
        settings=settings(max_examples=N_LIVES, stateful_step_count=30 if N_LIVES <= 50 else 80),
    )
