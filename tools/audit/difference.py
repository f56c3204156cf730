"""What changed in a session between two moments: its row's fields, its messages, its compressions."""

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from api.wire.sessions import MessageEntry, lineage_entry
from tools.audit.lineage import Lineage, State
from tools.audit.transcript import Entry, Rotation, entries

Sign: TypeAlias = Literal[" ", "-", "+"]


class Shown(NamedTuple):
    """An entry of the transcript, and whether it is on both sides, on the first alone, or on the second alone."""

    sign: Sign
    entry: Entry


class At(msgspec.Struct):
    """A side of the comparison; `exists` tells whether the session was there."""

    position: int
    recorded_at: str | None
    exists: bool


class Change(msgspec.Struct):
    """A field of the session's row, before and after; null where the session was not there."""

    before: Any
    after: Any


class ChangedMessage(msgspec.Struct):
    """A message that stayed, of a turn that has come to another end, or to one."""

    before: MessageEntry
    after: MessageEntry


class Difference(msgspec.Struct):
    """What `turnlog audit diff --json` prints. Messages are as in `/messages`, and counted as on their own side."""

    tenant: str
    session_id: str
    before: At
    after: At
    events: int
    fields: dict[str, Change]
    added: list[MessageEntry]
    removed: list[MessageEntry]
    changed: list[ChangedMessage]
    compressed: list[Rotation]


def difference(lineage: Lineage, before: State, after: State) -> Difference:
    """Everything that changed."""
    shown = transcripts(before, after)
    gone, came = _identified(shown, "-"), _identified(shown, "+")
    stayed = [identity for identity in came if identity in gone]
    changed = [ChangedMessage(gone.pop(identity), came.pop(identity)) for identity in stayed]
    return Difference(
        tenant=lineage.tenant,
        session_id=lineage.session_id,
        before=_side(before),
        after=_side(after),
        events=sum(before.position < recorded.position <= after.position for recorded in lineage.events),
        fields=fields(before, after),
        added=list(came.values()),
        removed=list(gone.values()),
        changed=changed,
        compressed=[entry for sign, entry in shown if sign == "+" and isinstance(entry, Rotation)],
    )


def fields(before: State, after: State) -> dict[str, Change]:
    """The fields of the row that changed, as the list of sessions shows it: the tip's, standing for its lineage."""
    old, new = _row(before), _row(after)
    return {name: Change(old.get(name), new.get(name)) for name in old or new if old.get(name) != new.get(name)}


def transcripts(before: State, after: State) -> list[Shown]:
    """Both transcripts as one: what stayed, what went and what came, in order."""
    old, new = list(entries(before.session)), list(entries(after.session))
    matcher = SequenceMatcher(None, [_token(entry) for entry in old], [_token(entry) for entry in new], autojunk=False)
    shown: list[Shown] = []
    for kind, old_first, old_last, new_first, new_last in matcher.get_opcodes():
        if kind == "equal":
            shown += [Shown(" ", entry) for entry in new[new_first:new_last]]
            continue
        shown += [Shown("-", entry) for entry in old[old_first:old_last]]
        shown += [Shown("+", entry) for entry in new[new_first:new_last]]
    return shown


def _row(state: State) -> dict[str, Any]:
    if not state.rows:
        return {}
    row: dict[str, Any] = msgspec.to_builtins(lineage_entry(state.rows[-1]))
    row.pop("_lineage_root_id", None)
    return row


def _side(state: State) -> At:
    return At(state.position, state.recorded_at, exists=state.session is not None)


def _identified(shown: Sequence[Shown], sign: Sign) -> dict[tuple[str, str, bytes, int], MessageEntry]:
    """The messages of one sign, by what stays of a message however its turn goes on: the turn, who, what, and the how
    many-th of such it is.
    """
    identified: dict[tuple[str, str, bytes, int], MessageEntry] = {}
    count: Counter[tuple[str, str, bytes]] = Counter()
    for its_sign, entry in shown:
        if its_sign == sign and isinstance(entry, MessageEntry):
            said = msgspec.json.encode((entry.content, entry.tool_calls, entry.tool_call_id))
            identity = (entry.turn_id, entry.role, said)
            identified[*identity, count[identity]] = entry
            count[identity] += 1
    return identified


def _token(entry: Entry) -> bytes:
    """What makes an entry another one: all but its number, which moves with those before it."""
    if isinstance(entry, MessageEntry):
        entry = msgspec.structs.replace(entry, id=0)
    return msgspec.json.encode(entry)
