"""Streamed answers for tests: any that a model server may send, and what becomes of them in the log."""

import copy
from typing import Any

from hypothesis import strategies as st

from api.models.gather import Gathered
from api.models.model import Choice, Chunk
from api.turns import decide
from api.turns.decide import Failure, Said
from eventstore.events import TurnStarted
from projections.session import Session
from projections.turn import Turn
from tests.support.facts import STREAM, recorded, session_started

texts = st.text(max_size=4)
_indexes = st.integers(0, 3)


def _call(kind: str, text: str) -> st.SearchStrategy[dict[str, Any]]:
    """A piece of a tool call."""
    inputs = st.sampled_from(["", "{", '{"a":', "1}", "{}", "x", " "])
    more = st.sampled_from([{"id": "call"}, {"type": kind}, {}, {"id": None}, {"id": ""}])
    head = st.sampled_from([{"name": "f"}, {}])
    index: st.SearchStrategy[dict[str, Any]] = st.one_of(_indexes.map(lambda number: {"index": number}), st.just({}))
    return st.builds(lambda i, m, h, said: {**i, **m, kind: {**h, text: said}}, index, more, head, inputs)


def _headed(chunks: list[Chunk]) -> list[Chunk]:
    """The answer with an id and a name in the first piece of each tool call, as every server has it."""
    known: set[tuple[int, int]] = set()
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        for call in choice.delta.get("tool_calls") or ():
            place = choice.index, call.get("index", -1)
            if place[1] < 0 or place not in known:
                call["id"] = "call"
                called: dict[str, Any] = call.get("function") or call.get("custom") or {}
                called["name"] = "f"
            known.add(place)
    return chunks


_calls = st.one_of(_call("function", "arguments"), _call("function", "arguments"), _call("custom", "input"))
_citations = st.builds(
    lambda url, deep: {
        "type": "url_citation",
        **({"url_citation": {"url": url}} if deep else {"url": url, "index": 0}),
    },
    texts,
    st.booleans(),
)
_summaries = st.builds(lambda index, text: {"index": index, "text": text}, _indexes, texts)
_originals = st.builds(
    lambda text, secret: {"type": "reasoning", "id": "rs_up", "summary": [{"text": text}], "encrypted_content": secret},
    texts,
    texts,
)
_anything: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 7, "x", [], {}, [7], [None], [{}], {"index": "x"}, [{"text": 7}], [["x"]]]
)
_fields: dict[str, st.SearchStrategy[Any]] = {
    "role": st.just("assistant"),
    "content": texts,
    "refusal": texts,
    "reasoning_content": texts,
    "reasoning": texts,
    "reasoning_summary": st.lists(_summaries, max_size=2),
    "reasoning_items": st.lists(_originals, max_size=2),
    "annotations": st.lists(_citations, max_size=2),
    "tool_calls": st.lists(_calls, max_size=2),
}
_one = st.sampled_from(list(_fields)).flatmap(lambda name: _fields[name].map(lambda value: {name: value}))
_several = st.fixed_dictionaries({}, optional=_fields)
_odd = st.dictionaries(st.sampled_from([*_fields, "audio"]), _anything, max_size=2)
_entries = st.lists(st.builds(lambda token: {"token": token, "logprob": -1}, texts), max_size=2)
_logprobs = st.one_of(st.none(), st.none(), st.builds(lambda entries: {"content": entries, "refusal": None}, _entries))

deltas = st.one_of(_one, _one, _several)
choices = st.builds(Choice, index=st.sampled_from([0, 0, 0, 1]), delta=deltas, logprobs=_logprobs)
answers = st.lists(st.builds(Chunk, choices=st.lists(choices, max_size=2)), max_size=10).map(_headed)
odd_choices = st.builds(Choice, delta=st.one_of(_odd, deltas), logprobs=st.one_of(_anything, _logprobs))
odd_answers = st.lists(st.builds(Chunk, choices=st.lists(odd_choices, max_size=2)), max_size=8)
ends = st.sampled_from(["completed", "length", "failed", "cancelled"])


def finished(chunks: list[Chunk], reason: str = "stop") -> list[Chunk]:
    """The answer with a finish for each of its choices."""
    indexes = {choice.index for chunk in chunks for choice in chunk.choices} | {0}
    return [*chunks, Chunk([Choice(index, {}, reason) for index in sorted(indexes)])]


def tidied(chunks: list[Chunk]) -> tuple[list[Chunk], Gathered]:
    """The chunks as they leave an open turn, and what it has gathered of them."""
    gathered = Gathered()
    own = copy.deepcopy(chunks)
    for chunk in own:
        gathered.add(chunk)
    return own, gathered


def recorded_turn(started: TurnStarted, gathered: Gathered, how: str) -> Turn:
    """The turn in whose answer that was gathered, as its session has it once it has ended so."""
    session = Session.fold(STREAM, recorded([session_started(), started]))
    so_far = Said(gathered.partial(), gathered.pieces, gathered.logprobs)
    if how in ("completed", "length"):
        events = decide.complete(session, started.turn_id, gathered.answer(), gathered.pieces)
    elif how == "failed":
        events = decide.fail(session, started.turn_id, Failure("x", "y", 0), so_far)
    else:
        events = decide.cancel(session, started.turn_id, "client", so_far)
    turn = session.open
    assert turn
    for event in recorded([*[started] * session.version, *events])[session.version :]:
        session.apply(event)
    return turn
