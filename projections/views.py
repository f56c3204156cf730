"""All views. A new one is its own file and one line here."""

from projections import completions, conversations, histories, idempotency, passages, responses, runs, sessions, tips
from projections.view import View

VIEWS: tuple[View, ...] = (
    sessions.VIEW,
    tips.VIEW,
    conversations.VIEW,
    responses.VIEW,
    idempotency.VIEW,
    runs.VIEW,
    completions.VIEW,
    histories.VIEW,
    passages.VIEW,
)
