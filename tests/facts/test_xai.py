"""The sandbox's xAI, driven over REST as its users do with OpenAI's SDK, keeps to what is known of the real one."""

from __future__ import annotations

from tests.form import CHAT_FORM, Ability, Form

FORM = Form(
    endpoint=CHAT_FORM.endpoint,
    model="grok-4.3",
    slow_model="grok-4.20-0309-reasoning",
    body=CHAT_FORM.body,
    text=CHAT_FORM.text,
    lacks=frozenset(
        {
            Ability.OPENAI_FILES,
            Ability.INPUT_FILE,
            Ability.RESULT_FILES,
            Ability.ROW_STATUSES,
            Ability.UNDONE_ROWS,
        }
    ),
)
