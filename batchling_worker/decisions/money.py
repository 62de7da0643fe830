"""How providers say that an account has no money left: no waiting helps, unlike after a rate limit.

OpenAI, Azure and Moonshot answer 429, DeepSeek, Together and OpenRouter 402, Anthropic and DashScope 400, xAI,
SiliconFlow and AWS 403, Fireworks 412 (2026-11).
"""

from __future__ import annotations

import re
from typing import Final

PAYMENT_REQUIRED: Final = 402
STATUSES: Final = frozenset({400, 401, 402, 403, 412, 429})

_CODES: Final = (
    r"insufficient_(?:user_)?(?:quota|balance|credits?|funds)",
    r"billing_(?:hard_limit_reached|not_active|error|disabled)",
    r"exceeded_current_quota_error",
    r"budget_exceeded",
    r"(?:credit|spend|spending)_limit(?:_reached|_exceeded)",
    r"arrearage",
    r"account_?overdue",
    r"payment_required",
)
_SENTENCES: Final = (
    r"credit balance is (?:too low|insufficient)",
    r"billing hard limit",
    r"insufficient (?:account |credit )?(?:balance|credits?|funds)",
    r"(?:account|credit) balance (?:is )?(?:insufficient|not enough|too low)",
    r"not enough (?:balance|credits?|funds)",
    r"(?:no|used all|out of|exhausted|exceeded|any) (?:your |the )?(?:available |remaining )?credits?\b",
    r"credits? (?:is|are|have been|has been|balance is) (?:depleted|exhausted|used up)",
    r"(?:reached|exceeded|over|hit)[^.]{0,40}(?:spend|spending|billing|credit|budget) (?:limit|cap)\b",
    r"\bmonthly (?:(?:usage|spend|spending|request|token) )?(?:limit|quota|cap)\b",
    r"quota is not enough",
    r"(?:spend|spending|billing|credit) limit[^.]{0,20}(?:reached|exceeded|hit)",
    r"budget has been exceeded",
    r"check your plan and billing details",
    r"check your billing details",
    r"(?:requires|enable) billing",
    r"billing (?:to be|must be) enabled",
    r"billing (?:account )?[^.]{0,40}(?:is )?(?:disabled|not active|closed|delinquent)",
    r"inactive subscription",
    r"invalid_payment_instrument",
    r"(?:pay|unpaid) (?:past )?invoices",
    r"overdue (?:balance|payment|bill)",
)
_NO_MONEY: Final = re.compile("|".join((*_CODES, *_SENTENCES)), re.IGNORECASE)
_RATE_LIMIT: Final = re.compile(r"retryDelay|RetryInfo|PerMinute|PerDay|rate-limits", re.IGNORECASE)
"""Text of a rate limit: Google ends every rate limit with OpenAI's sentence on plan and billing."""
_PLAN: Final = re.compile(r"check your plan and billing details", re.IGNORECASE)
_NOTHING_ALLOWED: Final = re.compile(r"quota exceeded for metric[^\n]*\blimit: 0(?![\d.])", re.IGNORECASE)


def is_lacking(status: int, said: str) -> bool:
    """Return whether an answer with this status and text says that the account cannot pay."""
    if status == PAYMENT_REQUIRED:
        return True
    if status not in STATUSES:
        return False
    if _NOTHING_ALLOWED.search(said):
        return True
    if _RATE_LIMIT.search(said):
        said = _PLAN.sub("", said)
    return _NO_MONEY.search(said) is not None
