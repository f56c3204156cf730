"""Any life of turns, items added and removed, rotations, forks, restarts: the prompt is what is left, and just that."""

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.models.model import ModelUnreachable
from api.turns.conversations import Conversations, NewConversation, Speaker
from api.turns.desk import Desk
from api.turns.refusals import NothingToCompress
from api.wire.conversations import holder_of
from api.wire.item_list import turn_items
from projections.rebuild import rebuild
from projections.runner import VIEWS_FILE
from projections.snapshot import Snapshot
from projections.views import VIEWS
from tests.support.facts import texts
from tests.test_service import Service, running

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(
                    "turn",
                    "turn",
                    "turn",
                    "turn by response",
                    "failed turn",
                    "add",
                    "add",
                    "remove",
                    "remove",
                    "remove",
                ),
                *("rotate", "rotate", "fork", "fork", "rename", "restart"),
            ]
        ),
        st.integers(0, 1_000),
        st.integers(0, 1_000),
    ),
    min_size=20,
    max_size=50,
)
LIVES_MAX = 3


class Said(msgspec.Struct, frozen=True):
    """A message of one item; a summary's id is empty."""

    text: str
    item_id: str = ""


class Life(msgspec.Struct):
    """A lineage: its newest id, a conversation's name for it, its transcript, all that was said, what was removed."""

    session_id: str
    name: str = ""
    transcript: list[Said] = []
    said: list[Said] = []
    removed: set[str] = set()
    newest: str = ""


class Made(msgspec.Struct):
    """A response: its lineage, and what that had said by then."""

    life: Life
    transcript: list[Said]
    said: list[Said]

    def inherited(self) -> tuple[list[Said], list[Said]]:
        """What a fork behind it takes over now."""
        kept = [
            [said for said in all_ if said.item_id not in self.life.removed] for all_ in (self.transcript, self.said)
        ]
        return kept[0], kept[1]


class World:
    """The service, and what is expected of it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.lives: list[Life] = []
        self.made: dict[str, Made] = {}

    @property
    def conversations(self) -> Conversations:
        return Conversations(self.service.log, self.service.lineages, self.service.turns)

    async def step(self, kind: str, one: int, other: int, text: str) -> None:
        life = self.lives[one % len(self.lives)] if self.lives else await self.begin()
        await getattr(self, "_" + kind.replace(" ", "_"))(life, other, text)

    async def begin(self, session_id: str = "", **fields: Any) -> Life:
        """A life under a name, new or of a session that there is."""
        row = await self.conversations.create(Speaker(tenant="acme", session_id=session_id), NewConversation())
        life = Life(row.root_id, row.name, **fields)
        self.lives.append(life)
        return life

    async def _turn(self, life: Life, _: int, text: str) -> None:
        session_id, response_id = await self.service.turn(text, conversation=life.name)
        assert session_id == life.session_id
        self._took(life, text, response_id)

    def _took(self, life: Life, text: str, response_id: str) -> None:
        assert self.service.model.prompts[-1] == [*(said.text for said in life.transcript), text]
        turn_id = response_id.removeprefix("resp_")
        new = [Said(text, f"msg_{turn_id}_i0"), Said(f"a{len(life.transcript) + 1}", f"msg_{turn_id}")]
        life.transcript, life.said = life.transcript + new, life.said + new
        life.newest = response_id
        self.made[response_id] = Made(life, life.transcript, life.said)

    async def _turn_by_response(self, _: Life, other: int, text: str) -> None:
        if not self.made or len(self.lives) > LIVES_MAX:
            return
        previous = list(self.made)[other % len(self.made)]
        made = self.made[previous]
        session_id, response_id = await self.service.turn(text, previous_response_id=previous)
        life = made.life
        if life.newest != previous:
            transcript, said = made.inherited()
            life = await self.begin(session_id, transcript=transcript, said=said)
        assert session_id == life.session_id
        self._took(life, text, response_id)

    async def _failed_turn(self, life: Life, _: int, text: str) -> None:
        self.service.model.fails = True
        with pytest.raises(ModelUnreachable):
            await self.service.turn(text, conversation=life.name)
        self.service.model.fails = False

    async def _add(self, life: Life, other: int, text: str) -> None:
        roles = ["user", "assistant", "user", "assistant"][other % 2 : other % 2 + 1 + other % 3]
        items = [{"type": "message", "role": role, "content": f"{text}+{n}"} for n, role in enumerate(roles)]
        data = tuple(map(msgspec.json.encode, items))
        _, turn = await self.conversations.add(Speaker(tenant="acme"), life.name, data)
        new = [Said(f"{text}+{number}", item["id"]) for number, item in enumerate(turn_items(turn))]
        life.transcript, life.said = life.transcript + new, life.said + new
        life.newest = turn.turn_id

    async def _remove(self, life: Life, other: int, _: str) -> None:
        if not life.said:
            return
        await self._take_out(life, life.said[other % len(life.said)])

    async def _remove_kept(self, life: Life, other: int, _: str) -> None:
        """Something that a rotation has kept, mostly."""
        kept = [said for said in life.transcript if said.item_id]
        if kept:
            await self._take_out(life, kept[other % min(len(kept), 4)])

    async def _take_out(self, life: Life, gone: Said) -> None:
        await self.conversations.remove(Speaker(tenant="acme"), life.name, gone.item_id, holder_of)
        life.removed.add(gone.item_id)
        life.transcript = [said for said in life.transcript if said != gone]
        life.said = [said for said in life.said if said != gone]

    async def _rotate(self, life: Life, _: int, __: str) -> None:
        if not life.said:
            return
        try:
            rotated = await self.service.rotations.by_hand("acme", life.session_id)
        except NothingToCompress:
            return
        before = life.transcript
        (summary,) = texts([rotated.summary])
        life.transcript = [*before[: rotated.head], Said(summary), *before[len(before) - rotated.tail :]]
        life.session_id = rotated.session_id

    async def _fork(self, life: Life, other: int, text: str) -> None:
        turns = [(id_, made) for id_, made in self.made.items() if made.life is life]
        if turns and len(self.lives) <= LIVES_MAX:
            turn_id, made = turns[other % len(turns)]
            desk = Desk(self.service.lineages, self.service.turns)
            fork_id = await desk.fork("acme", life.session_id, session_id=f"fork-{text}", turn_id=turn_id)
            transcript, said = made.inherited()
            await self.begin(fork_id, transcript=transcript, said=said)

    async def _rename(self, life: Life, _: int, __: str) -> None:
        """The name is deleted, and another takes its place."""
        if life.said:
            await self.conversations.delete("acme", life.name)
            speaker = Speaker(tenant="acme", session_id=life.session_id)
            life.name = (await self.conversations.create(speaker, NewConversation())).name

    async def _restart(self, *_: object) -> None:
        await self.service.restart()

    async def check(self) -> None:
        """Everything that is expected, as it is read, listed and replayed."""
        for life in self.lives:
            session, turns = await self.conversations.said(Speaker(tenant="acme"), life.name)
            assert session.session_id == life.session_id
            assert texts(session.transcript) == [said.text for said in life.transcript]
            whole = await self.service.lineages.reader.whole(session)
            assert whole.transcript == session.transcript
            assert whole.current.base == session.current.base
            items = [(item["id"], item["content"][0]["text"]) for turn in turns for item in turn_items(turn)]
            assert items == [(said.item_id, said.text) for said in life.said]
        (await rebuild(self.service.log, self.service.data / "rebuilt.db", VIEWS)).close()
        await self.service.views.level()
        live, rebuilt = (Snapshot(self.service.data / name, VIEWS) for name in (VIEWS_FILE, "rebuilt.db"))
        with contextlib.closing(live), contextlib.closing(rebuilt):
            assert list(live.rows()) == list(rebuilt.rows())


@given(STEPS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_prompt_is_what_is_left_of_what_was_said_and_added_in_any_life(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    async def run() -> None:
        async with running(tmp_path_factory.mktemp("items"), summarises=False) as service:
            world = World(service)
            for index, (kind, one, other) in enumerate(steps):
                await world.step(kind, one, other, f"q{index}")
            await world.check()
            await service.restart()
            await world.check()

    asyncio.run(run())
