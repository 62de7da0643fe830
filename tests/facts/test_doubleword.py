"""The sandbox's Doubleword, driven by OpenAI's SDK as its users do, keeps to what is known of the real one."""

from __future__ import annotations

from tests.form import CHAT_FORM, Ability, Form

FORM = Form(
    endpoint=CHAT_FORM.endpoint,
    model="Qwen/Qwen3-VL-30B-A3B-Instruct",
    slow_model="Qwen/Qwen3-VL-235B-A22B-Instruct",
    body=CHAT_FORM.body,
    text=CHAT_FORM.text,
    lacks=frozenset(
        {
            Ability.ROW_STATUSES,
            Ability.EXPIRY,
            Ability.UNDONE_ROWS,
            Ability.WHOLE_FAILURE,
            Ability.OPENAI_FILES,
        }
    ),
)
"""Its adapter is an OpenAIFiles, but what it shares with the others need not be met once more."""
