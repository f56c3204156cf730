"""Any life of turns, rotations, forks, evictions, deletions, restarts: one tip a lineage, nothing lost or doubled."""

import asyncio
import contextlib

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.models.model import ModelUnreachable
from api.turns.desk import Desk
from api.turns.refusals import NothingToCompress, ResponseNotFound, SessionNotFound
from projections import tips
from projections.rebuild import rebuild
from projections.runner import VIEWS_FILE
from projections.session import Session
from projections.snapshot import Snapshot
from projections.views import VIEWS
from tests.support.facts import texts
from tests.test_service import Service, running

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("turn by id", "turn by id", "turn by slug", "turn by response", "turn by response", "failed turn"),
                *("rotate", "rotate", "fork", "evict", "delete", "restart", "forget views"),
            ]
        ),
        st.integers(0, 1_000),
        st.integers(0, 1_000),
    ),
    max_size=40,
)
NAMES = ("boat", "tree", "song")


class Lineage(msgspec.Struct):
    """What a client would say of one lineage: its ids, oldest first, its transcript now, and all that was ever said."""

    ids: list[str]
    transcript: list[str] = []
    said: list[str] = []
    newest: str = ""
    is_deleted: bool = False


class Made(msgspec.Struct):
    """A response: where it was made, and what its lineage had said by then."""

    lineage: Lineage
    transcript: list[str]
    said: list[str]
    is_evicted: bool = False


class World:
    """The service, and what is expected of it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.lineages: list[Lineage] = []
        self.slugs: dict[str, Lineage] = {}
        self.made: dict[str, Made] = {}

    @property
    def desk(self) -> Desk:
        return Desk(self.service.lineages, self.service.turns)

    def alive(self, number: int) -> Lineage | None:
        alive = [lineage for lineage in self.lineages if not lineage.is_deleted]
        return alive[number % len(alive)] if alive else None

    async def step(self, kind: str, one: int, other: int, text: str) -> None:
        await getattr(self, "_" + kind.replace(" ", "_"))(one, other, text)

    async def _turn_by_id(self, one: int, other: int, text: str) -> None:
        lineage = self.alive(one) if one % 4 else None
        session_id = lineage.ids[other % len(lineage.ids)] if lineage else f"new-{text}"
        lineage = lineage or self._new(session_id)
        await self._turn(lineage, text, session_id=session_id)

    async def _turn_by_slug(self, one: int, _: int, text: str) -> None:
        name = NAMES[one % len(NAMES)]
        lineage = self.slugs.get(name)
        if lineage is None or lineage.is_deleted:
            lineage = self.slugs[name] = self._new("")  # a name of what was deleted begins anew, under another id
        await self._turn(lineage, text, conversation=name)

    async def _turn_by_response(self, one: int, _: int, text: str) -> None:
        ids = [id_ for id_, made in self.made.items() if not made.lineage.is_deleted]
        if not ids:
            return
        previous = ids[one % len(ids)]
        made = self.made[previous]
        if made.is_evicted:
            with pytest.raises(ResponseNotFound):
                await self.service.turn(text, previous_response_id=previous)
            return
        lineage = made.lineage
        if lineage.newest != previous:
            lineage = self._new("")
            lineage.transcript, lineage.said = list(made.transcript), list(made.said)
        await self._turn(lineage, text, previous_response_id=previous)

    async def _turn(self, lineage: Lineage, text: str, **names: str) -> None:
        session_id, response_id = await self.service.turn(text, **names)
        if not lineage.ids or not lineage.ids[0]:
            lineage.ids = [session_id]
        assert session_id == lineage.ids[-1], "the effective id is the tip, whichever was sent"
        assert self.service.model.prompts[-1] == [*lineage.transcript, text]
        answer = f"a{len(lineage.transcript) + 1}"
        lineage.transcript = [*lineage.transcript, text, answer]
        lineage.said = [*lineage.said, text, answer]
        lineage.newest = response_id
        self.made[response_id] = Made(lineage, lineage.transcript, lineage.said)

    async def _failed_turn(self, one: int, other: int, text: str) -> None:
        if lineage := self.alive(one):
            self.service.model.fails = True
            with pytest.raises(ModelUnreachable):
                await self.service.turn(text, session_id=lineage.ids[other % len(lineage.ids)])
            self.service.model.fails = False

    async def _rotate(self, one: int, other: int, _: str) -> None:
        lineage = self.alive(one)
        if lineage is None:
            return
        try:
            rotated = await self.service.rotations.by_hand("acme", lineage.ids[other % len(lineage.ids)])
        except NothingToCompress:
            return
        assert rotated.old_session_id == lineage.ids[-1]
        before = lineage.transcript
        (summary,) = texts([rotated.summary])
        lineage.transcript = [*before[: rotated.head], summary, *before[len(before) - rotated.tail :]]
        assert len(lineage.transcript) < len(before)
        lineage.ids.append(rotated.session_id)

    async def _fork(self, one: int, other: int, text: str) -> None:
        lineage = self.alive(one)
        turns = [(id_, made) for id_, made in self.made.items() if made.lineage is lineage]
        if lineage is None or not turns:
            return
        turn_id, made = turns[other % len(turns)]
        before = [*lineage.transcript]
        fork_id = await self.desk.fork(
            "acme", lineage.ids[other % len(lineage.ids)], session_id=f"fork-{text}", turn_id=turn_id
        )
        fork = self._new(fork_id)
        fork.transcript, fork.said = list(made.transcript), list(made.said)
        assert await self._transcript(lineage.ids[0]) == before

    async def _evict(self, one: int, _: int, __: str) -> None:
        ids = [id_ for id_, made in self.made.items() if not made.is_evicted and not made.lineage.is_deleted]
        if ids:
            response_id = ids[one % len(ids)]
            await self.service.turns.delete_response("acme", response_id)
            self.made[response_id].is_evicted = True

    async def _delete(self, one: int, other: int, _: str) -> None:
        if one % 3 == 0 and (lineage := self.alive(one)):
            await self.desk.delete("acme", lineage.ids[other % len(lineage.ids)])
            lineage.is_deleted = True

    async def _restart(self, *_: object) -> None:
        await self.service.restart()

    async def _forget_views(self, *_: object) -> None:
        await self.service.stop()
        (self.service.data / VIEWS_FILE).unlink()
        await self.service.start()

    def _new(self, session_id: str) -> Lineage:
        lineage = Lineage([session_id] if session_id else [])
        self.lineages.append(lineage)
        return lineage

    async def _transcript(self, session_id: str) -> list[str]:
        return texts((await self.service.lineages.reader.session("acme", session_id)).transcript)

    async def check(self) -> None:
        """Everything that is expected, read through every id there is."""
        alive = {lineage.ids[0] for lineage in self.lineages if not lineage.is_deleted and lineage.ids}
        for lineage in self.lineages:
            for session_id in lineage.ids:
                if lineage.is_deleted:
                    if session_id not in alive:
                        with pytest.raises(SessionNotFound):
                            await self.service.lineages.reader.session("acme", session_id)
                    continue
                session = await self.service.lineages.reader.whole_session("acme", session_id)
                assert session.session_id == lineage.ids[-1]
                assert texts(session.transcript) == lineage.transcript
                assert said_in(session) == lineage.said
                rows = await self.service.views.fetch(
                    "SELECT tip_id FROM tips WHERE tenant = ? AND session_id = ?", ("acme", session_id)
                )
                assert rows == [(lineage.ids[-1],)], tips.__doc__
        (await rebuild(self.service.log, self.service.data / "rebuilt.db", VIEWS)).close()
        await self.service.views.level()
        live, rebuilt = (Snapshot(self.service.data / name, VIEWS) for name in (VIEWS_FILE, "rebuilt.db"))
        with contextlib.closing(live), contextlib.closing(rebuilt):
            assert list(live.rows()) == list(rebuilt.rows())


def said_in(session: Session) -> list[str]:
    """All that was completed in a lineage, each message once."""
    return [text for _, turn in session.said if turn.status == "completed" for text in texts(turn.messages)]


@given(STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_life_keeps_one_tip_a_lineage_and_loses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    async def run() -> None:
        data = tmp_path_factory.mktemp("lives")
        async with running(data, summarises=False) as service:
            world = World(service)
            for index, (kind, one, other) in enumerate(steps):
                await world.step(kind, one, other, f"q{index}")
            await world.check()
            await service.restart()
            await world.check()

    asyncio.run(run())
