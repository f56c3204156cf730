"""The main job: the official `openai` SDK holds conversations through turnlog, across restarts."""

from pathlib import Path

from tests.support.server import Server, serving
from tests.support.upstream import Upstream

USER = {"role": "user", "content": "hello"}


async def test_a_chat_with_a_session_header_continues_and_ignores_the_bodys_older_history(
    server: Server, upstream: Upstream
) -> None:
    headers = {"X-Hermes-Session-Id": "s1"}
    first = await server.openai.chat.completions.create(
        model="gpt-x", messages=[{"role": "user", "content": "one"}], extra_headers=headers
    )
    await server.openai.chat.completions.create(
        model="gpt-x",
        messages=[
            {"role": "user", "content": "a lie"},
            {"role": "assistant", "content": "another lie"},
            {"role": "user", "content": "two"},
        ],
        extra_headers=headers,
    )
    assert first.choices[0].message.content == "1: one"
    assert [message["content"] for message in upstream.messages[1]] == ["one", "1: one", "two"]


async def test_a_slug_survives_a_restart(data: Path, upstream: Upstream) -> None:
    for word in ("one", "two", "three"):
        async with serving(data, upstream=upstream.url) as server:
            await server.openai.responses.create(model="m", input=word, conversation="my-slug")
    assert [message["content"] for message in upstream.messages[2]] == ["one", "1: one", "two", "3: two", "three"]
