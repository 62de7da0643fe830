"""Pure decisions about enqueued tokens: what a batch counts, what a refusal teaches, how small the next batch must be.

Providers count the prompt tokens of all batches of one model and organisation that have not ended. Without the model's
own tokenizer nobody can count them beforehand, so one unit is used throughout: a quarter of the bytes of the bodies.
A provider's own figure is taken at its word until it contradicts what was seen; then only own sums are believed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import LINE_OVERHEAD

BYTES_A_TOKEN: Final = 4
FARTHEST_OFF: Final = 4
"""The largest error of an estimate, as a factor: a token is never less than a byte."""
TRUSTED: Final = dt.timedelta(hours=1)
"""How long a limit from the provider's own figure holds; afterwards a batch tries whether it was raised."""
GUESS_TRUSTED: Final = dt.timedelta(minutes=10)
"""How long a limit from our own sums holds: they may have been taken at a bad moment."""
STEP: Final = dt.timedelta(minutes=5)
"""How soon after one batch above an old limit the next may follow: the first is validated meanwhile."""
ROW_OF_REFUSALS: Final = dt.timedelta(minutes=15)
"""Refusals that are farther apart do not count as one series."""
LONGEST_WHY: Final = 300

CODES: Final = frozenset({"token_limit_exceeded"})
_SPEAKS: Final = re.compile(
    r"enqueued[\s_-]+(?:prompt[\s_-]+)?(?:token|request)|token_limit_exceeded", re.IGNORECASE
)
_LIMIT: Final = re.compile(
    r"limit:?\s+(?:of\s+|is\s+)?(\d[\d,_ ]*)\s*(?:enqueued\s+)?(?:prompt\s+)?tokens", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a provider said when a batch did not fit; `limit` is the figure in its sentence, if it holds one."""

    why: str
    limit: int | None

    @property
    def plain(self) -> bool:
        """Whether the words say that too many tokens are enqueued; Google's say only that some quota is full."""
        return _SPEAKS.search(self.why) is not None


def refusal_in(words: str, code: str = "") -> Refusal | None:
    """Return the refusal in a provider's sentence or code; None if they are about something else."""
    if code not in CODES and not _SPEAKS.search(words):
        return None
    figure = _LIMIT.search(words)
    limit = int(re.sub(r"\D", "", figure[1])) if figure else 0
    return Refusal(why=(words or code)[:LONGEST_WHY], limit=limit or None)


def quota_id(account_digest: str, model: str) -> str:
    """Return the id of the quota of a model and an account: 20 hex digits."""
    named = f"{account_digest}\n{model}"
    return hashlib.blake2b(named.encode(), digest_size=10, person=b"batchling-quota").hexdigest()


def tokens_of(batch: Batch) -> int:
    """Return the estimated tokens of the requests of a batch that are still wanted; at least one each."""
    n_live = max(0, batch.n_requests - batch.n_dropped)
    n_bytes = max(0, batch.n_bytes - LINE_OVERHEAD * batch.n_requests)
    share = n_live / batch.n_requests if batch.n_requests else 0.0
    return max(n_live, int(n_bytes * share) // BYTES_A_TOKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A learned limit; `guess` = it is not the provider's figure."""

    tokens: int
    guess: bool

    @property
    def trusted(self) -> dt.timedelta:
        """How long the limit holds."""
        return GUESS_TRUSTED if self.guess else TRUSTED


def learned_limit(tokens: int, said: int | None, others: int, *, news: bool) -> Limit | None:
    """Return the limit learned from a refused batch of `tokens`, while own batches with `others` tokens are in flight.

    `said` is the provider's figure. It is believed, unless the batch was admitted under the limit in force (`news`) and
    the figure has room for it: then the figure is too high by our measure. Without a believable figure, the limit is
    the tokens of the others or half of the refused batch, whichever is more. None if the batch was alone and the figure
    surely has room for it: then somebody else fills the quota.
    """
    if said is not None and (not news or others + tokens > said):
        return Limit(tokens=said, guess=False)
    if said is not None and others == 0 and tokens * FARTHEST_OFF <= said:
        return None
    return Limit(tokens=max(1, others, tokens // 2), guess=True)


def hopeless(
    n_rows: int, tokens: int, refusal: Refusal, others: int, n_alone: int, since: dt.timedelta
) -> bool:
    """Return whether a refused batch is one row that will never fit, so that its caller gets the error.

    A row is not blamed while own batches are in flight. Alone it is blamed, unless the provider's figure has room for
    it or its words may mean another quota: then somebody else fills that quota, and only a long wait blames the row.
    """
    if n_rows > 1 or others > 0:
        return False
    if tokens > refusal.limit if refusal.limit is not None else refusal.plain:
        return True
    return n_alone >= 10 and since >= ROW_OF_REFUSALS * 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The most that goes into a batch."""

    rows: int
    n_bytes: int


def next_size(batch: Batch, limit: int | None) -> Size:
    """Return how large the next batches for a refused batch's requests may be: half of the limit, so that two overlap.

    Without a limit they may be as large as the batch: it was refused for what somebody else holds.
    """
    if limit is None:
        return Size(rows=max(1, batch.n_requests), n_bytes=batch.n_bytes)
    wanted = max(1, limit // 2)
    average = max(1.0, batch.n_bytes / max(1, batch.n_requests) - LINE_OVERHEAD)
    rows = max(1, int(wanted * BYTES_A_TOKEN / average))
    if limit < tokens_of(batch):
        # However wrong the average is for some of the rows, splitting comes to an end.
        rows = max(1, min(rows, batch.n_requests // 2))
    return Size(rows=rows, n_bytes=wanted * BYTES_A_TOKEN + rows * LINE_OVERHEAD)
