"""Search and recall over many turns, in this process: the index of words, the log behind it, and what ranks in between.

Words are drawn as people use them: the commonest makes up a tenth of all text, the rarest are hardly ever said. Half of
the turns are under one session key, the others under many.
"""

import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import accumulate
from pathlib import Path

import msgspec
import uvloop

from api.ids import new_session_id
from api.turns.directory import Directory
from api.turns.memory import Question
from api.turns.said_before import SaidBefore
from api.turns.search import Search
from eventstore.events import SessionStarted, TurnCompleted, TurnStarted, lineage_stream
from eventstore.sqlite import SqliteLog
from projections.runner import VIEWS_FILE, Runner
from projections.views import VIEWS
from tools.bench.figures import Figure, Figures, median, percentile
from tools.bench.generate import TENANT, Append, make_log
from tools.bench.plan import Plan

SUITE = "search"
TURNS_PER_SESSION = 20
SESSIONS_PER_KEY = 10
ONE_KEY = "one key for many"
VOCABULARY = 20_000
HITS = 20
QUESTION_WORDS = 12
_SYLLABLES = ("ba", "de", "fi", "go", "lu", "ma", "ne", "pi", "ro", "su", "ta", "ve", "wi", "zo")

_encode = msgspec.json.Encoder().encode


def measure(plan: Plan) -> list[Figure]:
    """Search for a word that nearly every turn holds, for two of them side by side, for a rare one, for a beginning;
    recall of what is like a question of 12 words, under one key among many and under one that holds half of all turns:
    p50 and p99 in ms over 100,000 turns.
    """
    figures = Figures(SUITE)
    data = plan.empty("searched")
    make_log(data, plan.sizes.searched_turns * 2, session_history)
    for number in plan.rounds(SUITE):
        uvloop.run(_measure(plan, data, number, figures))
    return figures.all()


async def _measure(plan: Plan, data: Path, number: int, figures: Figures) -> None:
    words = vocabulary()
    times = plan.sizes.searches
    asked = {
        "a common word": [words[0]] * times,
        "a phrase of common words": [f'"{words[0]} {words[1]}"'] * times,
        "a rare word": words[-times:],
        "a beginning": [f"{word[:4]}*" for word in words[:times]],
    }
    async with AsyncExitStack() as parts:
        log = await SqliteLog.open_read_only(data)
        parts.push_async_callback(log.close)
        views = await Runner.start(log, data / VIEWS_FILE, VIEWS)
        parts.push_async_callback(views.stop)
        search, memory = Search(log, views, Directory(log, views, new_session_id)), SaidBefore(log, views)
        parts.callback(search.close)
        parts.callback(memory.close)
        for what, texts in asked.items():
            calls = [partial(search.hits, TENANT, text, 0, HITS + 1) for text in texts]
            await _add(figures, f"search, {what}", calls, 20)
        chance = random.Random(number)  # noqa: S311 (the same questions everywhere)
        for what, key in (("one key of many", "key-0"), ("a key with half of all turns", ONE_KEY)):
            texts = [_text(chance, QUESTION_WORDS) for _ in range(times)]
            questions = [Question(tenant=TENANT, session_key=key, text=text, left_out=("",)) for text in texts]
            await _add(figures, f"recall, {what}", [partial(memory.recall, question) for question in questions], 10)


async def _add(figures: Figures, what: str, calls: Sequence[Callable[[], Awaitable[object]]], target_ms: float) -> None:
    took_ms: list[float] = []
    for call in calls:
        began = time.perf_counter()
        await call()
        took_ms.append((time.perf_counter() - began) * 1_000)
    figures.add(f"{what}: p50", median(took_ms), "ms", "<", target_ms)
    figures.add(f"{what}: p99", percentile(took_ms, 99), "ms")


def session_history(number: int) -> Iterator[Append]:
    """Everything about the session of that number: twenty turns of 10 to 60 words."""
    session_id = f"said-{number:08d}"
    key = ONE_KEY if number % 2 else f"key-{number // 2 // SESSIONS_PER_KEY}"
    stream = lineage_stream(TENANT, session_id)
    chance = random.Random(number)  # noqa: S311 (the same texts everywhere)
    yield Append(stream, 0, (SessionStarted(session_id=session_id, session_key=key),))
    for turn in range(TURNS_PER_SESSION):
        turn_id = f"{number:012x}{turn:016x}"
        asked, answered = (_message(role, _text(chance, chance.randint(10, 60))) for role in ("user", "assistant"))
        started = TurnStarted(turn_id=turn_id, api="chat", model="m", items=(asked,), owner="bench", lease_ms=630_000)
        completed = TurnCompleted(turn_id=turn_id, output=(answered,), finish_reason="stop")
        yield Append(stream, 1 + 2 * turn, (started,))
        yield Append(stream, 2 + 2 * turn, (completed,))


def vocabulary() -> list[str]:
    """Words of three syllables and a number, the commonest first."""
    count = len(_SYLLABLES)
    return [
        "".join(_SYLLABLES[rank // count**place % count] for place in range(3)) + str(rank // count**3 or "")
        for rank in range(VOCABULARY)
    ]


_WORDS = vocabulary()
_WEIGHTS = list(accumulate(1 / (rank + 1) for rank in range(VOCABULARY)))  # Zipf's law


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, cum_weights=_WEIGHTS, k=words))


def _message(role: str, text: str) -> bytes:
    return _encode({"role": role, "content": text})
