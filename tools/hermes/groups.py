"""Messages as turns: what was asked, and what came of it.

The original's agent calls the model again with what its tools put out, until it answers; in turnlog each call of the
model is a turn. So an exchange becomes as many turns as the model was called, of which the last has the answer.
What was never answered is a turn that was cut short: it is shown, and no later prompt has it.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from projections.messages import fields
from tools.hermes.rows import Message, Notes, Response

_encode = msgspec.json.Encoder().encode


class Step(msgspec.Struct):
    """One call of the model: what it was given, and what it said."""

    items: list[Message]
    output: list[Message]


class Exchange(msgspec.Struct):
    """What one or more user messages led to; `steps` has one step of everything where it was cut short."""

    steps: list[Step]
    is_answered: bool
    instructions: list[Message] = []
    is_taken_back: bool = False
    response: Response | None = None

    @property
    def rows(self) -> list[Message]:
        """All of its messages, but for instructions."""
        return [row for step in self.steps for row in (*step.items, *step.output)]

    @property
    def asked(self) -> str:
        """The last of the user's texts."""
        return next((row.text for row in reversed(self.steps[0].items) if row.role == "user"), "")

    @property
    def answer(self) -> str:
        """The text of the last answer."""
        return self.steps[-1].output[-1].text if self.is_answered else ""


def exchanges(rows: Iterable[Message], notes: Notes) -> list[Exchange]:
    """The rows as exchanges, oldest first. Only the last one may be one that is still to be answered."""
    found: list[Exchange] = []
    for part in _parts(rows):
        found += _exchanges(part, notes)
    return found


def _parts(rows: Iterable[Message]) -> Iterator[list[Message]]:
    """Cut before each user message, or system message, that follows something else than those."""
    part: list[Message] = []
    for row in rows:
        is_asking = row.role not in ("assistant", "tool")
        is_new = bool(part) and (
            (is_asking and part[-1].role in ("assistant", "tool")) or _is_gone(row) != _is_gone(part[-1])
        )
        if is_new:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _is_gone(row: Message) -> bool:
    """Whether it was taken back: no longer active, and not for a compaction."""
    return not row.is_active and not row.is_compacted


def _exchanges(part: Sequence[Message], notes: Notes) -> Iterator[Exchange]:
    asked = [row for row in part if row.role == "user"]
    said = [row for row in part if row.role in ("assistant", "tool")]
    told = [row for row in part if row.role in ("system", "developer")]
    if not (asked or said):
        notes.note(f"session {part[0].session_id!r}: instructions that nothing follows: left out")
        return
    if _is_gone(part[0]):
        yield Exchange([Step(asked, said)], is_answered=False, instructions=told, is_taken_back=True)
        return
    finals = [number for number, row in enumerate(said, 1) if row.role == "assistant" and not row.calls]
    answered = finals[-1] if finals else 0
    unanswered = _unanswered(asked, len(finals)) if answered else []
    yield from (Exchange([Step([row], [])], is_answered=False) for row in unanswered)
    left = [row for row in asked if row not in unanswered]
    if answered:
        yield Exchange(_steps(left, said[:answered], notes), is_answered=True, instructions=told)
    if said[answered:] or (left and not answered):
        items = [] if answered else left
        yield Exchange([Step(items, said[answered:])], is_answered=False, instructions=[] if answered else told)


def _unanswered(asked: Sequence[Message], answers: int) -> list[Message]:
    """Those of several user messages that are too many for the answers; what was only overheard asks for none."""
    asking = [row for row in asked if not row.is_observed]
    return asking[: max(0, len(asking) - answers)]


def _steps(asked: list[Message], said: Sequence[Message], notes: Notes) -> list[Step]:
    """One step for each time that the model was called; calls and outputs without each other are taken out."""
    outputs = {row.answers for row in said if row.role == "tool"}
    called: set[str] = set()
    steps = [Step(asked, [])]
    for row in said:
        if row.role == "tool":
            if row.answers not in called:
                notes.note(f"{_place(row)}: the output of a call that was not made: left out")
                continue
            called.discard(row.answers)
            if steps[-1].output:
                steps.append(Step([], []))
            steps[-1].items.append(row)
        elif whole := _with_outputs(row, outputs, notes):
            called.update(whole.calls)
            steps[-1].output.append(whole)
    return steps


def _with_outputs(row: Message, outputs: set[str], notes: Notes) -> Message | None:
    """An assistant message without the calls that nothing came of: no model server takes those."""
    lacking = [id_ for id_ in row.calls if id_ not in outputs]
    if not lacking:
        return row
    notes.note(f"{_place(row)}: nothing came of {len(lacking)} of its tool calls: left out")
    chat = fields(row.chat)
    kept = [call for call in chat.pop("tool_calls") if call["id"] not in lacking]
    if not kept and not row.text:
        return None
    chat = {"role": chat.pop("role"), "content": chat.pop("content") or (None if kept else "")} | chat
    calls = tuple(call["id"] for call in kept)
    return msgspec.structs.replace(row, chat=_encode(chat | ({"tool_calls": kept} if kept else {})), calls=calls)


def _place(row: Message) -> str:
    return f"message {row.row_id} of session {row.session_id!r}"
