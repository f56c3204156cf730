"""/api/sessions over HTTP: what is wrong with a request is said by name, and leaves everything as it was."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest

from api import keys
from tests.support.api import call, create, fork, patch, row
from tests.support.server import Server, serving
from tests.support.upstream import Upstream

LONG = "x" * 257
BAD_IDS = ["a/b", "a\\b", "..", "a..b", "a\nb", "a\x7fb", LONG]


async def nothing_recorded(server: Server) -> None:
    assert (await server.get("/api/sessions"))["data"] == []


@pytest.mark.parametrize("name", ["id", "session_id"])
@pytest.mark.parametrize("value", BAD_IDS, ids=ascii)
async def test_an_id_that_could_not_be_a_header_is_400(server: Server, name: str, value: str) -> None:
    error = await create(server, 400, **{name: value})
    assert (error["param"], error["code"]) == (name, "invalid_session_id")
    await nothing_recorded(server)
    await create(server, id="s1")
    error = await fork(server, "s1", 400, **{name: value})
    assert (error["param"], error["code"]) == (name, "invalid_session_id")


BAD_FIELDS: list[tuple[str, Any, str]] = [
    ("id", 1, "invalid_value"),
    ("session_id", [], "invalid_value"),
    ("title", 1, "invalid_value"),
    ("title", "x" * 101, "invalid_title"),
    ("title", "a\nb", "invalid_title"),
    ("model", 1, "invalid_value"),
    ("model", LONG, "invalid_value"),
    ("system_prompt", 1, "invalid_value"),
    ("source", ["cli"], "invalid_value"),
    ("source", "a\nb", "invalid_value"),
    ("user", 1, "invalid_value"),
    ("metadata", "x", "invalid_value"),
    ("metadata", {"a": 1}, "invalid_value"),
    ("metadata", {"a": "x" * 513}, "invalid_value"),
    ("metadata", {"x" * 65: ""}, "invalid_value"),
    ("metadata", {str(n): "" for n in range(17)}, "invalid_value"),
]


@pytest.mark.parametrize(("name", "value", "code"), BAD_FIELDS, ids=lambda value: ascii(value)[:20])
async def test_a_field_that_is_wrong_is_400_and_makes_nothing(server: Server, name: str, value: Any, code: str) -> None:
    error = await create(server, 400, **{"id": "s1", name: value})
    assert error["param"].split(".")[0] == name
    assert error["code"] == code
    await nothing_recorded(server)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        *(field for field in BAD_FIELDS if field[0] in ("title", "metadata")),
        ("end_reason", 1, "invalid_value"),
        ("end_reason", LONG, "invalid_value"),
        ("end_reason", "a\nb", "invalid_value"),
        ("model", "m", "unsupported_session_field"),
        ("id", "s2", "unsupported_session_field"),
    ],
    ids=lambda value: ascii(value)[:20],
)
async def test_a_change_that_is_wrong_is_400_and_changes_nothing(
    server: Server, name: str, value: Any, code: str
) -> None:
    before = await create(server, id="s1", title="T")
    error = await patch(server, "s1", 400, **{"title": "U", name: value})
    assert error["param"].split(".")[0] == name
    assert error["code"] == code
    assert await row(server, "s1") == before


async def test_unsupported_fields_are_all_named(server: Server) -> None:
    await create(server, id="s1")
    error = await patch(server, "s1", 400, title="T", source="x", model="m")
    assert error["message"] == "Unsupported session fields: model, source"


@pytest.mark.parametrize(("name", "value"), [("turn_id", 1), ("turn_id", LONG), ("turn_id", "a\nb"), ("title", 1)])
async def test_a_fork_that_is_wrongly_asked_for_is_400(server: Server, name: str, value: Any) -> None:
    await create(server, id="s1")
    error = await fork(server, "s1", 400, id="f1", **{name: value})
    assert (error["param"], error["code"]) == (name, "invalid_value")
    await call(server, "GET", "/api/sessions/f1", 404)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b'"x"', b"\xff", b"[" * 5_000])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", ""), ("PATCH", "/s1"), ("POST", "/s1/fork"), ("POST", "/s1/chat"), ("POST", "/s1/chat/stream")],
)
async def test_a_body_that_is_no_object_is_400(server: Server, method: str, path: str, body: bytes) -> None:
    await create(server, id="s1")
    if path == "/s1/fork" and not body:
        return  # a fork needs nothing said
    error = await call(server, method, f"/api/sessions{path}", 400, data=body)
    assert error["code"] in ("invalid_json", "invalid_type")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", ""), ("PATCH", "/s1"), ("POST", "/s1/fork"), ("POST", "/s1/chat"), ("POST", "/s1/chat/stream")],
)
async def test_a_body_that_is_too_large_is_413(server: Server, method: str, path: str) -> None:
    await create(server, id="s1")
    error = await call(server, method, f"/api/sessions{path}", 413, data=io.BytesIO(b" " * 10_000_001))
    assert error["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"title": "T"}),
        ("DELETE", "", None),
        ("GET", "/messages", None),
        ("GET", "/lineage", None),
        ("POST", "/fork", {}),
        ("POST", "/chat", {"message": "x"}),
        ("POST", "/chat/stream", {"message": "x"}),
    ],
)
async def test_an_unknown_session_is_404_everywhere(server: Server, method: str, path: str, body: Any) -> None:
    for session_id in ("nope", "%2E%2E%2Fetc", "%ff%00", "x" * 300):
        error = await call(server, method, f"/api/sessions/{session_id}{path}", 404, json=body)
        assert (error["param"], error["code"]) == ("session_id", "session_not_found")
    await nothing_recorded(server)


def cursor(text: str) -> str:
    """A cursor that says something else than ours do."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


FAR = "?cursor=" + cursor('[9000000000000000,"x",1]')
BAD_QUERIES = [
    *[("limit", value, "invalid_value") for value in ("x", "-1", "1.5", "")],
    *[("offset", value, "invalid_value") for value in ("x", "-1", "1.5", "")],
    *[("include_children", value, "invalid_value") for value in ("2", "maybe", "%ff")],
    *[(name, value, "invalid_value") for name in ("source", "user", "session_key") for value in (LONG, "%00", "%0a")],
    *[
        ("cursor", value, "invalid_cursor")
        # Not base64; JSON of another shape; numbers that SQLite can not take; text that is no text.
        for value in (
            "x",
            "%00",
            "é",
            "AAAA",
            "W10",
            "WzEsMiwzXQ",
            "Wy0xLCJhIiwxXQ",
            "WzkyMjMzNzIwMzY4NTQ3NzU4MDgsImEiLDFd",
        )
    ],
    ("cursor", "WzEsIlx1ZDgwMCIsMV0", "invalid_cursor"),
]


@pytest.mark.parametrize(("name", "value", "code"), BAD_QUERIES, ids=lambda value: ascii(value)[:20])
async def test_a_query_that_is_wrong_is_400(server: Server, name: str, value: str, code: str) -> None:
    error = await call(server, "GET", f"/api/sessions?{name}={value}", 400)
    assert (error["param"], error["code"]) == (name, code)


async def test_a_cursor_and_an_offset_do_not_go_together(server: Server) -> None:
    error = await call(server, "GET", "/api/sessions?cursor=W10&offset=0", 400)
    assert (error["param"], error["code"]) == ("cursor", "mutually_exclusive_parameters")


async def test_whether_a_session_is_erased_is_said_in_no_other_words(server: Server) -> None:
    await create(server, id="s1")
    error = await call(server, "DELETE", "/api/sessions/s1?erase=x", 400)
    assert (error["param"], error["code"]) == ("erase", "invalid_value")
    await row(server, "s1")
    await call(server, "DELETE", "/api/sessions/s1?erase=false", 200)


async def test_without_keys_a_session_is_made_and_its_headers_are_refused(data: Path) -> None:
    async with serving(data, api_key="", auth=False) as server:
        await create(server, id="s1")
        headers = {"X-Hermes-Session-Key": "k"}
        error = await call(server, "POST", "/api/sessions", 403, json={}, headers=headers)
        assert error["code"] == "session_requires_key"


async def test_another_tenants_sessions_can_not_be_touched_or_told_from_none(data: Path, upstream: Upstream) -> None:
    data.mkdir()
    acme, bravo = ({"authorization": f"Bearer {keys.add(data, name, name)}"} for name in ("acme", "bravo"))
    async with serving(data, upstream=upstream.url, api_key="") as server:
        made = await call(server, "POST", "/api/sessions", 201, json={"id": "s1", "user": "ada"}, headers=acme)
        for method, path, body in (
            ("GET", "/lineage", None),
            ("PATCH", "", {"title": "T"}),
            ("DELETE", "", None),
            ("POST", "/fork", {"id": "f1"}),
            ("POST", "/chat", {"message": "x"}),
            ("POST", "/chat/stream", {"message": "x"}),
        ):
            theirs = await call(server, method, f"/api/sessions/s1{path}", 404, json=body, headers=bravo)
            nobodys = await call(server, method, f"/api/sessions/s9{path}", 404, json=body, headers=bravo)
            assert theirs | {"message": nobodys["message"]} == nobodys
        for query in ("", "?user=ada", "?include_children=1", FAR):
            assert (await call(server, "GET", f"/api/sessions{query}", 200, headers=bravo))["data"] == []
        assert await call(server, "GET", "/api/sessions/s1", 200, headers=acme) == made
        await call(server, "POST", "/api/sessions", 201, json={"id": "s1"}, headers=bravo)
        await call(server, "DELETE", "/api/sessions/s1", 200, headers=bravo)
        assert await call(server, "GET", "/api/sessions/s1", 200, headers=acme) == made
