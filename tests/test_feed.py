"""GET /api/events, page by page: which events there are, whose, and what is said of a request that is not one."""

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api import keys
from api.wire.recorded import event_object
from eventstore import chain
from eventstore.events import STORED_TYPES
from eventstore.sqlite import LOG_FILE
from tests.support.api import call, create, fork, rotate
from tests.support.feed import page, pages
from tests.support.server import Server, serving
from tests.support.upstream import Upstream
from tests.test_crash import recorded

TYPES = [cls.__name__ for cls in STORED_TYPES]


def places(events: list[dict[str, Any]]) -> list[int]:
    return [event["position"] for event in events]


async def talk(server: Server) -> None:
    """Some sessions, one of them rotated, one a fork, one deleted; and a conversation."""
    await server.chat("one", "s1")
    await server.chat("two", "s1")
    await create(server, id="s2", title="two")
    await rotate(server, "s1", "s1b")
    await server.chat("three", "s1")
    await fork(server, "s1", id="s3")
    await server.openai.responses.create(model="m", input="four", conversation="slug")
    await server.chat("gone", "s4")
    await call(server, "DELETE", "/api/sessions/s4", 200)


async def test_a_page_holds_events_as_the_audit_shows_them(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await talk(server)
        got = await page(server)
    events = await recorded(data)
    assert got["data"] == msgspec.json.decode(msgspec.json.encode([event_object(event) for event in events]))
    assert got["data"][1]["data"]["items"] == [{"role": "user", "content": "one"}]
    end = {"object": "list", "has_more": False, "next_after": len(events), "head": len(events)}
    assert {name: got[name] for name in end} == end


@pytest.mark.parametrize("limit", [1, 2, 7, 1_000])
async def test_pages_follow_one_another_without_a_gap(server: Server, limit: int) -> None:
    await talk(server)
    head = (await page(server))["head"]
    assert places(await pages(server, limit=limit)) == list(range(1, head + 1))
    assert (await page(server, f"after={head}"))["data"] == []


async def test_a_session_is_found_by_every_id_of_its_lineage(server: Server) -> None:
    await talk(server)
    whole = await pages(server)
    for session_id, root_id in (("s1", "s1"), ("s1b", "s1"), ("s2", "s2"), ("s3", "s3"), ("s4", "s4")):
        expected = [event for event in whole if event["stream"] == f"lineage/default/{root_id}"]
        assert await pages(server, f"session={session_id}", limit=2) == expected
        assert expected
    error = await page(server, "session=s5", 404)
    assert (error["code"], error["param"]) == ("session_not_found", "session_id")


async def test_types_are_named_once_each_or_with_commas(server: Server) -> None:
    await talk(server)
    whole = await pages(server)
    expected = [event for event in whole if event["type"] in ("SessionStarted", "CompressionRotated")]
    assert await pages(server, "type=SessionStarted&type=CompressionRotated", limit=2) == expected
    assert await pages(server, "type=SessionStarted,CompressionRotated") == expected
    assert len(expected) == 6


filters = st.fixed_dictionaries(
    {},
    optional={
        "after": st.integers(0, 40),
        "until": st.integers(0, 40),
        "session": st.sampled_from(["s1", "s1b", "s2", "s4"]),
        "type": st.lists(st.sampled_from(TYPES), min_size=1, max_size=6).map(",".join),
        "after_version": st.integers(0, 12),
        "until_version": st.integers(0, 12),
    },
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=filters, limit=st.integers(1, 9))
async def test_any_filter_gives_what_is_left_of_the_whole_log(
    server: Server, wanted: dict[str, Any], limit: int
) -> None:
    if not (await page(server))["head"]:
        await talk(server)
    if "session" not in wanted:
        wanted = {name: value for name, value in wanted.items() if "version" not in name}
    root_id = {"s1b": "s1"}.get(wanted.get("session", ""), wanted.get("session"))
    expected = [
        event
        for event in (await page(server, "limit=1000"))["data"]
        if wanted.get("after", 0) < event["position"] <= wanted.get("until", 1_000)
        and ("session" not in wanted or event["stream"] == f"lineage/default/{root_id}")
        and ("type" not in wanted or event["type"] in wanted["type"].split(","))
        and wanted.get("after_version", 0) < event["version"] <= wanted.get("until_version", 1_000)
    ]
    got = await page(server, urlencode(wanted | {"limit": limit}))
    assert got["data"] == expected[:limit]
    assert got["has_more"] == (len(expected) > limit)


async def test_a_tenant_sees_its_own_events_only(data: Path, upstream: Upstream) -> None:
    data.mkdir()
    tenants = {name: {"authorization": f"Bearer {keys.add(data, name, name)}"} for name in ("a", "a-b", "ab")}
    async with serving(data, upstream=upstream.url) as server:
        for said in ("one", "two"):
            for headers in tenants.values():
                body = {"model": "m", "input": said, "conversation": "a/b"}
                await call(server, "POST", "/v1/responses", 200, json=body, headers=headers)
        seen = {name: await pages(server, limit=1, headers=headers) for name, headers in tenants.items()}
        session_id = seen["a"][0]["data"]["session_id"]
        for name, headers in tenants.items():
            await page(server, f"session={session_id}", 200 if name == "a" else 404, headers=headers)
        assert await pages(server) == []
    for name, events in seen.items():
        assert {event["stream"].split("/")[1] for event in events} == {name}
    everything = [position for events in seen.values() for position in places(events)]
    assert sorted(everything) == list(range(1, len(await recorded(data)) + 1))


async def test_what_was_erased_is_told_without_its_content(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("one", "s1")
        with sqlite3.connect(data / LOG_FILE) as db:
            db.execute("DROP TRIGGER events_are_never_updated")
            ((content,),) = db.execute("SELECT data FROM events WHERE position = 2").fetchall()
            db.execute("UPDATE events SET data = ? WHERE position = 2", (chain.digest(content),))
        db.close()
        before, erased, behind = await pages(server)
    assert (erased["type"], erased["data"], erased["erased"]) == ("TurnStarted", {}, True)
    assert "erased" not in before
    assert "erased" not in behind


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *((f"{name}={value}", name) for name in ("after", "until") for value in ("-1", "x", "1.5", "", "٣")),
        *((f"session=s1&{name}=x", name) for name in ("after_version", "until_version")),
        ("after_version=1", "after_version"),
        ("until_version=1", "until_version"),
        ("session=&after_version=1", "after_version"),
        ("session=%00", "session"),
        (f"session={'s' * 257}", "session"),
        *((f"limit={value}", "limit") for value in ("0", "-1", "1001", "x", "")),
        ("type=Turnstarted", "type"),
        ("type=", "type"),
        ("type=TurnStarted,", "type"),
        ("type=TurnStarted&type=x", "type"),
        ("type=Erased", "type"),
    ],
)
async def test_what_is_no_request_is_told_so(server: Server, query: str, param: str) -> None:
    for headers in ({}, {"accept": "text/event-stream"}):
        error = await page(server, query, 400, headers=headers)
        assert error["param"] == param
        assert error["code"] in ("invalid_value", "missing_required_parameter")
        assert ("TurnStarted, TurnStarted" in error["message"].replace("TurnRestarted", "TurnStarted")) == (
            param == "type"
        )


@pytest.mark.parametrize("seen", ["x", "-1", "1.0", "9" * 19, "9" * 5_000, "٣"])
async def test_a_last_event_that_there_can_not_be_is_refused(server: Server, seen: str) -> None:
    error = await page(server, "", 400, headers={"Last-Event-ID": seen})
    assert error["param"] == "Last-Event-ID"


async def test_numbers_beyond_everything_find_nothing(server: Server) -> None:
    await server.chat("one", "s1")
    for query in (f"after={9**30}", "until=0", "after=7&until=2", f"session=s1&after_version={9**30}"):
        got = await page(server, query)
        assert (got["data"], got["has_more"], got["head"]) == ([], False, 3)
    assert len(await pages(server, f"until={9**30}&session=s1&until_version={9**30}")) == 3
