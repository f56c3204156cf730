"""What the original's databases hold, built row by row, and what is made of it, folded."""

from collections.abc import Sequence
from typing import Any

import msgspec

from eventstore.events import parse_stream
from eventstore.log import Recorded
from projections.session import Session as Folded
from tools.hermes.chat import message_of
from tools.hermes.moving import Moved, moved
from tools.hermes.rows import Message, Notes, Original, Response, Session

SUMMARY = "[CONTEXT COMPACTION — REFERENCE ONLY] what was said"
MERGED = (
    "[PRIOR CONTEXT — for reference only; not a new message]\n{}\n\n"
    "[END OF PRIOR CONTEXT — COMPACTION SUMMARY BELOW]\n\n{}\n\n--- END OF CONTEXT SUMMARY — respond ---"
)
T0_S = 1_780_000_000


class State:
    """A `state.db` in memory. Every row gets the next id, and a second of its own."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.rows: list[dict[str, Any]] = []
        self.responses: dict[str, Response] = {}
        self.slugs: dict[str, str] = {}
        self.notes = Notes()

    def session(self, session_id: str, **fields: Any) -> None:
        """A new session."""
        fields.setdefault("started_us", self._now_s() * 1_000_000)
        self.sessions[session_id] = Session(session_id=session_id, **fields)

    def change(self, session_id: str, **fields: Any) -> None:
        """Another value in its row."""
        self.sessions[session_id] = msgspec.structs.replace(self.sessions[session_id], **fields)

    def say(self, session_id: str, *rows: dict[str, Any]) -> None:
        """Messages, each a row."""
        for row in rows:
            fields = {"id": len(self.rows) + 1, "session_id": session_id, "timestamp": self._now_s()}
            self.rows.append({"content": "", "active": 1} | row | fields)

    def of(self, session_id: str) -> list[dict[str, Any]]:
        """The active rows of a session."""
        return [row for row in self.rows if row["session_id"] == session_id and row["active"]]

    def rotate(self, old: str, new: str, head: int, tail: int, *, is_merged: bool = False) -> None:
        """What a compression does: `new` begins with copies of the first and the last rows, and a summary."""
        rows = self.of(old)
        kept = [dict(row) for row in rows[len(rows) - tail :]]
        self.change(old, end_reason="compression", ended_us=self._now_s() * 1_000_000)
        self.session(new, parent_id=old)
        summary = [{"role": "assistant", "content": SUMMARY}]
        if is_merged and kept and not kept[0].get("tool_calls") and kept[0]["role"] != "tool":
            kept[0]["content"], summary = MERGED.format(kept[0]["content"], SUMMARY), []
        self.say(new, *rows[:head], *summary, *kept)

    def original(self) -> Original:
        """As it is read."""
        messages: dict[str, list[Message]] = {}
        for row in self.rows:
            if message := message_of(row, self.notes):
                messages.setdefault(message.session_id, []).append(message)
        return Original(self.sessions, messages, self.responses, self.slugs)

    def moved(self) -> Moved:
        """What is made of it."""
        return moved(self.original(), "default", self.notes)

    def _now_s(self) -> int:
        return T0_S + len(self.rows)


def user(text: str, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **fields}


def assistant(text: str, *calls: str, **fields: Any) -> dict[str, Any]:
    made = [{"id": id_, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id_ in calls]
    return {"role": "assistant", "content": text, "tool_calls": made or None, **fields}


def tool(text: str, call: str) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": call}


def folded(found: Moved) -> dict[str, Folded]:
    """Every lineage by its root's id, folded from its facts with all of its past, forks behind their parents."""
    sessions: dict[str, Folded] = {}
    for position, fact in enumerate(found.facts, 1):
        category, _, name = parse_stream(fact.stream)
        if category != "lineage":
            continue
        session = sessions.setdefault(name, Folded(fact.stream, keeps_past=True))
        forked = getattr(fact.event, "forked_from", None)
        if forked and (inherited := sessions[forked.root_id].up_to(forked.turn_id)):
            assert inherited.messages == forked.messages
            session.inherit(inherited)
        session.apply(Recorded(position, fact.stream, session.version + 1, fact.at_us, fact.event, b""))
    return sessions


def texts(messages: Sequence[bytes]) -> list[str]:
    """What chat messages say."""
    return [msgspec.json.decode(message).get("content") or "" for message in messages]


def shown(session: Folded) -> list[str]:
    """Everything that was said in a lineage, and how a session's messages show it."""
    return [text for _, turn in session.said for text in texts(turn.messages)]
