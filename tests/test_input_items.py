"""GET /v1/responses/{id}/input_items: what a response was made of."""

from typing import Any

import openai
import pytest

from tests.support.api import call, rotate
from tests.support.sdk import check_item
from tests.support.server import Server
from tests.support.upstream import Reply, Upstream, refuses, says


def answering(body: dict[str, Any]) -> Reply:
    """Answers the newest message by its text."""
    return says(f"to {body['messages'][-1]['content']}")


async def respond(server: Server, text: Any, **names: Any) -> str:
    """The id of the response to an input."""
    response = await server.openai.responses.create(model="m", input=text, **names)
    return str(response.id)


async def said(server: Server, response_id: str, **query: Any) -> list[str]:
    """The texts of the items, oldest first, with every page read by the SDK; each item is one that the SDK knows."""
    page = await server.openai.responses.input_items.list(response_id, order="asc", limit=3, **query)
    items = [item.to_dict() async for item in page]
    for item in items:
        check_item(item)
    assert len({item["id"] for item in items}) == len(items)
    return [item["content"][0]["text"] for item in items]  # type: ignore[index]


async def test_the_input_is_shown_as_items(server: Server) -> None:
    response_id = await respond(server, "hello")
    page = await call(server, "GET", f"/v1/responses/{response_id}/input_items", 200)
    item_id = f"msg_{response_id.removeprefix('resp_')}_i0"
    assert page == {
        "object": "list",
        "data": [
            {
                "id": item_id,
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_text", "text": "hello"}],
            }
        ],
        "first_id": item_id,
        "last_id": item_id,
        "has_more": False,
    }


async def test_a_chained_response_includes_the_history(server: Server, upstream: Upstream) -> None:
    upstream.script = answering
    first = await respond(server, "a")
    second = await respond(server, "b", previous_response_id=first)
    third = await respond(server, "c", previous_response_id=second)
    fork = await respond(server, "d", previous_response_id=first)
    assert await said(server, third) == ["a", "to a", "b", "to b", "c"]
    assert await said(server, second) == ["a", "to a", "b"]
    assert await said(server, fork) == ["a", "to a", "d"]
    newest = await server.openai.responses.input_items.list(third)
    assert [item.content[0].text for item in newest.data][:2] == ["c", "to b"]  # type: ignore[union-attr, index]


async def test_the_history_reaches_behind_rotations_and_into_forks_of_them(server: Server, upstream: Upstream) -> None:
    upstream.script = answering
    await server.chat("a", "s1")
    await rotate(server, "s1", "s2")
    headers = {"X-Hermes-Session-Id": "s1"}
    second = await respond(server, "b", extra_headers=headers)
    third = await respond(server, "c", extra_headers=headers)
    fork = await respond(server, "d", previous_response_id=second)
    assert await said(server, third) == ["a", "to a", "b", "to b", "c"]
    assert await said(server, fork) == ["a", "to a", "b", "to b", "d"]


async def test_a_failed_turn_is_no_history(server: Server, upstream: Upstream) -> None:
    upstream.script = answering
    first = await respond(server, "a")
    upstream.script = lambda _: refuses(500)
    with pytest.raises(openai.InternalServerError):
        await respond(server, "lost", previous_response_id=first)
    upstream.script = answering
    assert await said(server, await respond(server, "b", previous_response_id=first)) == ["a", "to a", "b"]


async def test_the_list_of_a_response_that_is_not_there_is_not_found(server: Server) -> None:
    deleted, unstored = await respond(server, "a"), await respond(server, "a", store=False)
    await server.openai.responses.delete(deleted)
    for response_id in (deleted, unstored, "resp_unknown"):
        error = await call(server, "GET", f"/v1/responses/{response_id}/input_items", 404)
        assert error["code"] == "response_not_found"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=msg_unknown", "after"),
        ("include[]=everything", "include"),
        ("include=everything", "include"),
    ],
)
async def test_a_page_that_can_not_be_is_refused_by_name(server: Server, query: str, param: str) -> None:
    response_id = await respond(server, "a")
    error = await call(server, "GET", f"/v1/responses/{response_id}/input_items?{query}", 400)
    assert error["param"] == param


async def test_what_can_be_included_is_taken(server: Server) -> None:
    assert await said(server, await respond(server, "a"), include=["message.input_image.image_url"]) == ["a"]
