"""The table of the SDK's methods in README.md leaves none out; and none of them takes what it can not be asked."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from openai import AsyncOpenAI

from tests.support.programs import refused
from tests.support.server import Server

README = Path(__file__).parent.parent / "README.md"
RESOURCES = ("responses", "conversations", "chat.completions", "models")
COMMON = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}


def methods(resource: Any, name: str) -> Iterator[str]:
    """The methods of a resource of the SDK and of those below it, by their dotted names."""
    for attribute, value in vars(type(resource)).items():
        if attribute.startswith(("_", "with_")):
            continue
        if inspect.isfunction(value):
            yield f"{name}.{attribute}"
        else:
            yield from methods(getattr(resource, attribute), f"{name}.{attribute}")


def resource(client: AsyncOpenAI, name: str) -> Any:
    """What a dotted name leads to."""
    found: Any = client
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_readme_has_every_method_of_the_sdk_and_no_other() -> None:
    client = AsyncOpenAI(api_key="none")
    known = [name for top in RESOURCES for name in methods(resource(client, top), top)]
    section = README.read_text().split("\n## SDK methods\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    assert sorted(named) == sorted(known)


# Bad input


class Case(NamedTuple):
    """A method with what it needs, and for each of its parameters what it can not be."""

    method: str
    good: dict[str, Any]
    bad: dict[str, Any]


HISTORY: Any = [{"role": "user", "content": "hello"}]
PAGE = {"after": "none", "limit": 0, "order": "up"}
REQUIRED = {"model": "m", "input": "hello"}
# `response`, `conversation`, `item` and `completion` stand for ids of things that are there.
CASES = (
    Case("responses.retrieve", {"response_id": "response"}, {"starting_after": "x", "stream": "x", "include": ["x"]}),
    Case("responses.input_items.list", {"response_id": "response"}, PAGE | {"include": ["x"]}),
    Case(
        "responses.compact",
        REQUIRED,
        {
            "model": 5,
            "input": 5,
            "instructions": 5,
            "previous_response_id": 5,
            "prompt_cache_key": 5,
            "prompt_cache_options": 5,
            "prompt_cache_retention": 5,
            "service_tier": 5,
            "image": 5,
        },
    ),
    Case(
        "responses.input_tokens.count",
        REQUIRED,
        {
            "conversation": 5,
            "input": 5,
            "instructions": 5,
            "model": 5,
            "parallel_tool_calls": 5,
            "personality": 5,
            "previous_response_id": 5,
            "reasoning": 5,
            "text": 5,
            "tool_choice": 5,
            "tools": 5,
            "truncation": 5,
        },
    ),
    Case("conversations.create", {}, {"items": 5, "metadata": 5}),
    Case("conversations.update", {"conversation_id": "conversation"}, {"metadata": 5}),
    Case("conversations.items.create", {"conversation_id": "conversation"}, {"items": 5, "include": ["x"]}),
    Case("conversations.items.list", {"conversation_id": "conversation"}, PAGE | {"include": ["x"]}),
    Case("conversations.items.retrieve", {"conversation_id": "conversation", "item_id": "item"}, {"include": ["x"]}),
    Case("chat.completions.update", {"completion_id": "completion"}, {"metadata": 5}),
    Case("chat.completions.list", {}, PAGE | {"metadata": {"k" * 65: "v"}, "model": "m" * 5000}),
    Case("chat.completions.messages.list", {"completion_id": "completion"}, PAGE),
)
# Padding of streams against observers, which turnlog does not do.
WITHOUT_EFFECT = {"responses.retrieve": {"include_obfuscation"}}
NEEDED: dict[str, dict[str, Any]] = {
    "conversations.items.create": {"items": HISTORY},
    "conversations.update": {"metadata": {}},
    "chat.completions.update": {"metadata": {}},
}


@pytest.mark.parametrize("case", CASES, ids=[case.method for case in CASES])
def test_every_parameter_of_a_method_has_its_bad_input(case: Case) -> None:
    method = resource(AsyncOpenAI(api_key="none"), case.method)
    known = set(inspect.signature(method).parameters) - COMMON - WITHOUT_EFFECT.get(case.method, set())
    ids = {name for name in case.good if name.endswith("_id")}
    assert set(case.bad) | ids == known


async def made(server: Server, kinds: set[str]) -> dict[str, str]:
    """Things that are there, of these kinds: their ids."""
    client, ids = server.openai, {}
    if "conversation" in kinds:
        ids["conversation"] = (await client.conversations.create(items=HISTORY)).id
    if "item" in kinds:
        (item,) = (await client.conversations.items.list(ids["conversation"])).data
        ids["item"] = item.id or ""
    if "completion" in kinds:
        completion = await client.chat.completions.create(model="m", messages=HISTORY, store=True)
        ids["completion"] = completion.id
    if "response" in kinds:
        ids["response"] = (await client.responses.create(model="m", input="hello")).id
    return ids


@pytest.mark.parametrize("case", CASES, ids=[case.method for case in CASES])
async def test_bad_input_is_400_and_named(server: Server, case: Case) -> None:
    named = {name: value for name, value in case.good.items() if name.endswith("_id")}
    ids = await made(server, set(named.values()))
    good = case.good | NEEDED.get(case.method, {}) | {name: ids[kind] for name, kind in named.items()}
    wrong = []
    for name, value in case.bad.items():
        try:
            error = await refused(_attempt(server, case.method, good | {name: value}), 400)
        except pytest.fail.Exception:
            wrong.append(f"{name}={value!r} is taken")
            continue
        if not (error.param or "").startswith(name):
            wrong.append(f"{name}={value!r}: the error names {error.param}: {error.message}")
    assert not wrong


async def _attempt(server: Server, method: str, arguments: dict[str, Any]) -> Any:
    return await resource(server.openai, method)(**arguments)
