"""A log to measure with: a realistic mix of facts, the same on every machine, written through `SqliteLog.append`.

Sixty-four writers at a time, each with a session of its own, turn by turn, in the appends that a server makes: so the
events of the sessions alternate in the log as they would behind a busy server.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import uvloop

from eventstore.events import (
    ConversationAdvanced,
    ConversationCreated,
    Event,
    SessionStarted,
    TurnCompleted,
    TurnStarted,
    conversation_stream,
    lineage_stream,
)
from eventstore.sqlite import SqliteLog

TENANT = "default"
WRITERS = 64
_TURNS_MIN, _TURNS_SPREAD = 10, 21  # 10 to 30 turns to a session, 20 in the mean
_WORDS = (
    "the log keeps what was said and the session goes on from there after a restart an eviction or a rotation of its "
    "context whichever of its names the client sends next time "
)
_USAGE = b'{"prompt_tokens":812,"completion_tokens":96,"total_tokens":908}'


class Append(NamedTuple):
    """The events of one append, and the version at which its stream must be."""

    stream: str
    expected_version: int
    events: tuple[Event, ...]


History: TypeAlias = Callable[[int], Iterator[Append]]


def make_log(directory: Path, events: int, history: History | None = None) -> None:
    """Write a new log of at least `events` events (at most one append per writer more) in `directory`.

    `history` tells everything about the session of a number.
    """
    uvloop.run(_make_log(directory, events, history or session_history))


async def _make_log(directory: Path, events: int, history: History) -> None:
    # What is written is only read afterwards: it need not survive a power cut.
    log = await SqliteLog.open(directory, synchronous="NORMAL")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(log.close)
        numbers = iter(range(events))
        async with asyncio.TaskGroup() as writers:
            for _ in range(WRITERS):
                writers.create_task(_write(log, numbers, events, history))


async def _write(log: SqliteLog, numbers: Iterator[int], events: int, history: History) -> None:
    for number in numbers:
        for append in history(number):
            # Whole turns only: an open one would be cancelled, and that recorded, by the server that starts next.
            if log.head().position >= events and not isinstance(append.events[0], TurnCompleted):
                return
            await log.append(*append)


def session_history(number: int) -> Iterator[Append]:
    """Everything about the session of that number: every second one is known by a conversation's name too."""
    session_id = f"bench-{number:08d}"
    conversation = f"topic-{number:08d}" if number % 2 else ""
    if conversation:
        created = ConversationCreated(name=conversation, session_id=session_id)
        yield Append(conversation_stream(TENANT, conversation), 0, (created,))
    stream = lineage_stream(TENANT, session_id)
    version = 0
    for turn in range(_TURNS_MIN + number * 7 % _TURNS_SPREAD):
        for events in turn_facts(session_id, conversation, number, turn):
            yield Append(stream, version, events)
            version += len(events)


def turn_facts(session_id: str, conversation: str, number: int, turn: int) -> Iterator[tuple[Event, ...]]:
    """The two appends of one turn."""
    turn_id = f"{number:012x}{turn:016x}"
    started = TurnStarted(
        turn_id=turn_id,
        api="responses" if conversation else "chat",
        model="turnlog-builtin",
        items=(_message("user", 60 + (number * 13 + turn * 29) % 240),),
        owner="018f3c2a9b7e0123456789abcdef",
        lease_ms=630_000,
        conversation=conversation,
    )
    output = (_message("assistant", 120 + (number * 17 + turn * 37) % 400),)
    completed = TurnCompleted(turn_id=turn_id, output=output, finish_reason="stop", usage=_USAGE)
    yield (started,) if turn else (SessionStarted(session_id=session_id), started)
    if conversation:
        yield completed, ConversationAdvanced(conversation=conversation, session_id=session_id, turn_id=turn_id)
    else:
        yield (completed,)


def text(characters: int) -> str:
    """Plain text of that length."""
    return (_WORDS * (characters // len(_WORDS) + 1))[:characters]


def _message(role: str, characters: int) -> bytes:
    return f'{{"role":"{role}","content":"{text(characters)}"}}'.encode()
