"""The memory that is built in: the full-text index over what was said.

Every word of the question that says something is looked up by itself, among the newest turns under the session key that
hold it: a word that few of them hold weighs more. The turns that weigh most are read from the log, and their messages
compared by bm25, with the weights from the index. What is as good as another and newer comes first. Everything is
bounded, and nothing depends on chance: the same log and the same question give the same passages.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from api.turns.memory import PASSAGE_CHARACTERS_MAX, PASSAGES_MAX, MemoryUnavailable, Passage, Question, passage_of
from api.turns.said import Found, Index, turns_at
from api.turns.spoken import Spoken
from eventstore.events import Recalled, parse_stream
from eventstore.log import EventLog, LogError
from projections import passages
from projections.passages import lineage_mark, quoted, scope_mark
from projections.runner import ViewsUnavailable
from projections.shortlist import Words, are_plain, standing
from projections.store import ViewsUnusable
from projections.text import Said, said_in

WORDS_MAX = 10
HOLDERS_MAX = 64  # turns that a word is looked for in; a word that so many hold says nothing
TURNS_MAX = 12
MESSAGES_MAX = 200
LEAD_CHARACTERS = 100  # of what precedes the first match, in a passage cut out of a longer text

_K1, _B, _USUAL_CHARACTERS = 1.2, 0.75, 400  # bm25's, with a usual length instead of one that moves with the log
# The commonest words of English, which bring nothing to mind. Of other languages the weights tell.
_COMMON = """
about all also and any are but can could did does for from get give had has have her him his how into its just let like
make may more most much must not now off one only our out over please she should some tell than that the their them then
there these they this those too use very was were what when where which who why will with would yes you your
"""
_SPEAKERS = frozenset({"user", "assistant"})
_UNSAYING = frozenset(_COMMON.split())
_places = msgspec.json.Decoder(dict[int, int]).decode


class _Message(NamedTuple):
    """A message of a turn: its number there, and what it says."""

    turn: Found
    number: int
    said: Said


class SaidBefore:
    """A `Memory`."""

    def __init__(self, log: EventLog, views: Index, spoken: Spoken) -> None:
        self._log = log
        self._views = views
        self._spoken = spoken
        self._words = Words()

    def close(self) -> None:
        """Let go of what is held."""
        self._words.close()

    async def recall(self, question: Question) -> Sequence[Passage]:
        """See `Memory.recall`: oldest first, so that what was said later counts."""
        position = self._spoken.behind(question.tenant, question.session_key, question.left_out)
        words = saying(self._words.of(question.text))
        if position is None or not words:
            return ()
        try:
            holders = await self._holders(question, words, position)
            if not any(holders.values()):
                await self._look_for_others(question, position)
                return ()
            weights = weighed(holders)
            starts = {end: start for found in holders.values() for end, start in found.items()}
            turns = await turns_at(self._log, [(end, starts[end]) for end in heaviest(holders, weights)])
        except (ViewsUnavailable, ViewsUnusable, LogError) as error:
            raise MemoryUnavailable(str(error)) from error
        messages = _messages_of(turns)
        if are_plain([message.said.text for message in messages]):
            return best(messages, weights, question.text)
        return await asyncio.to_thread(best, messages, weights, question.text)

    async def _holders(self, question: Question, words: Sequence[str], position: int) -> dict[str, dict[int, int]]:
        """The newest turns that hold each of the words, by position; each with the position of its start."""
        scope, own = _marks(question)
        sql = " UNION ALL ".join([passages.FIND_WORD] * len(words))
        parameters: list[object] = []
        for number, word in enumerate(words):
            parameters += (number, f"({scope} AND {quoted(word)}) NOT ({own})", HOLDERS_MAX)
        rows = await self._views.search(sql, parameters, position)
        return {words[number]: _places(found) for number, found in rows}

    async def _look_for_others(self, question: Question, position: int) -> None:
        """Find out, once, whether anybody else has said anything at all."""
        tenant, key, left_out = question.tenant, question.session_key, question.left_out
        if self._spoken.may_be_alone(tenant, key, left_out):
            scope, own = _marks(question)
            found = await self._views.search(passages.ANY, (f"{scope} NOT ({own})",), position)
            self._spoken.looked(tenant, key, left_out, position, found=bool(found))


def _marks(question: Question) -> tuple[str, str]:
    """What all that was said under the key has, and what was said in the lineages that are left out."""
    own = (quoted(lineage_mark(question.tenant, root_id)) for root_id in question.left_out)
    return quoted(scope_mark(question.tenant, question.session_key)), " OR ".join(own)


def saying(words: Iterable[str]) -> list[str]:
    """The words that say something, each once; of many the longest."""
    distinct = dict.fromkeys(words)
    good = [word for word in distinct if word not in _UNSAYING and (len(word) > 2 or not word.isascii())]
    return sorted(good, key=lambda word: (-len(word), word))[:WORDS_MAX]


def weighed(holders: Mapping[str, Collection[int]]) -> dict[str, float]:
    """What each word weighs: the fewer turns hold it, the more; without those that all too many hold."""
    rare = {word: found for word, found in holders.items() if 0 < len(found) < HOLDERS_MAX}
    known = rare or {word: found for word, found in holders.items() if found}
    return {word: math.log(1 + (HOLDERS_MAX - len(found) + 0.5) / (len(found) + 0.5)) for word, found in known.items()}


def heaviest(holders: Mapping[str, Iterable[int]], weights: Mapping[str, float]) -> list[int]:
    """The turns whose words weigh most, by position; of equals the newest."""
    scores: dict[int, float] = {}
    for word, weight in weights.items():
        for position in holders[word]:
            scores[position] = scores.get(position, 0.0) + weight
    ranked = sorted(zip(scores.values(), scores, strict=True), reverse=True)
    return [position for _, position in ranked[:TURNS_MAX]]


def best(messages: Sequence[_Message], weights: Mapping[str, float], question: str) -> list[Passage]:
    """The passages to give, oldest first: of each turn its best message, no text twice, and not the question itself."""
    scored: list[tuple[float, int, int, _Message, int]] = []
    for index, found in standing([message.said.text for message in messages], weights):
        message = messages[index]
        score = _bm25(Counter(word for _, word in found), weights, len(message.said.text))
        at = max(found, key=lambda match: (weights.get(match[1], 0.0), -match[0]))[0]
        scored.append((-score, -message.turn.position, message.number, message, at))
    chosen: dict[str, Passage] = {}
    turns: set[int] = set()
    for _, _, _, message, at in sorted(scored, key=lambda entry: entry[:3]):
        passage = _cut(message, at)
        plain = _plain(passage.text)
        if plain == _plain(question) or plain in chosen or message.turn.position in turns:
            continue
        chosen[plain] = passage
        turns.add(message.turn.position)
        if len(chosen) == PASSAGES_MAX:
            break
    return sorted(chosen.values(), key=lambda passage: (passage.said_us, passage.where.turn_id))


def _messages_of(turns: Iterable[Found]) -> list[_Message]:
    """What people and models said: what a tool brings from anywhere must not come back as something remembered."""
    messages = [
        _Message(turn, number, said)
        for turn in turns
        for number, data in enumerate(turn.messages)
        if (said := said_in(data)).text and said.role in _SPEAKERS
    ]
    return messages[:MESSAGES_MAX]


def _bm25(found: Counter[str], weights: Mapping[str, float], characters: int) -> float:
    length = 1 - _B + _B * characters / _USUAL_CHARACTERS
    return sum(weights.get(word, 0.0) * times * (_K1 + 1) / (times + _K1 * length) for word, times in found.items())


def _cut(message: _Message, at: int) -> Passage:
    """The passage around the match at that character: all of a short text, whole words of a longer one."""
    text = message.said.text
    first, length = 0, len(text)
    if length > PASSAGE_CHARACTERS_MAX:
        first = max(0, min(at - LEAD_CHARACTERS, length - PASSAGE_CHARACTERS_MAX))
        if first and (gap := text.find(" ", first, at)) >= 0:
            first = gap + 1
        length = PASSAGE_CHARACTERS_MAX
        if first + length < len(text) and (gap := text.rfind(" ", at, first + length)) > at:
            length = gap - first
    turn = message.turn
    root_id = parse_stream(turn.stream).name
    where = Recalled(root_id=root_id, turn_id=turn.turn_id, message=message.number, first=first, length=length)
    return passage_of(where, turn)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
