"""Every parameter of a response: taken, translated and shown, or refused by name."""

from typing import Any, get_type_hints

import msgspec
import openai
import pydantic
import pytest
from openai.types.responses import response_create_params

from api.problem import Problem
from api.wire import responses
from api.wire.headers import Continuity
from api.wire.parameters import PARAMETERS
from tests.support.api import call
from tests.support.server import Server
from tests.support.upstream import Reply, Upstream, says

FUNCTION: dict[str, Any] = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}
SHELL: dict[str, Any] = {"type": "custom", "name": "sh"}
SCHEMA: dict[str, Any] = {"type": "json_schema", "name": "answer", "schema": {"type": "object"}}
MISSING = "missing_required_parameter"
UNSUPPORTED = "unsupported_parameter"
INVALID = "invalid_value"


def test_the_table_has_every_parameter_of_the_sdk() -> None:
    known = get_type_hints(response_create_params.ResponseCreateParamsStreaming)
    assert set(PARAMETERS) == set(known)


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": list(parts)}]}


def tool_output(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"input": [{"type": "function_call_output", "call_id": "c1", "output": list(parts)}]}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"access_programs": {"cyber": "standard"}}, "access_programs", UNSUPPORTED),
    ({"background": "yes"}, "background", INVALID),
    ({"context_management": {}}, "context_management", INVALID),
    ({"context_management": [{"type": "forget"}]}, "context_management[0].type", INVALID),
    (
        {"context_management": [{"type": "compaction", "compact_threshold": 0}]},
        "context_management[0].compact_threshold",
        INVALID,
    ),
    ({"conversation": 5}, "conversation", INVALID),
    ({"image": {"context_compression": "auto"}}, "image", UNSUPPORTED),
    ({"include": "reasoning.encrypted_content"}, "include", INVALID),
    ({"include": ["everything"]}, "include", INVALID),
    ({"include": [5]}, "include[0]", INVALID),
    ({"instructions": 5}, "instructions", INVALID),
    ({"max_output_tokens": 0}, "max_output_tokens", INVALID),
    ({"max_output_tokens": "many"}, "max_output_tokens", INVALID),
    ({"max_tool_calls": 0}, "max_tool_calls", INVALID),
    ({"metadata": {"a": 5}}, "metadata", INVALID),
    ({"metadata": {f"{n}": "x" for n in range(17)}}, "metadata", INVALID),
    ({"model": 5}, "model", INVALID),
    ({"moderation": {"model": "m"}}, "moderation", UNSUPPORTED),
    ({"parallel_tool_calls": "x"}, "parallel_tool_calls", INVALID),
    ({"previous_response_id": 5}, "previous_response_id", INVALID),
    ({"prompt": {"id": "pmpt_1"}}, "prompt", UNSUPPORTED),
    ({"prompt_cache_key": 5}, "prompt_cache_key", INVALID),
    ({"prompt_cache_options": {"mode": "never"}}, "prompt_cache_options.mode", INVALID),
    ({"prompt_cache_options": {"ttl": "1s"}}, "prompt_cache_options.ttl", INVALID),
    ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm", UNSUPPORTED),
    (
        {"prompt_cache_options": {"comparison_response_id": "resp_1"}},
        "prompt_cache_options.comparison_response_id",
        UNSUPPORTED,
    ),
    ({"prompt_cache_retention": "1y"}, "prompt_cache_retention", INVALID),
    ({"reasoning": "much"}, "reasoning", INVALID),
    ({"reasoning": {"effort": "extreme"}}, "reasoning.effort", INVALID),
    ({"reasoning": {"summary": "long"}}, "reasoning.summary", INVALID),
    ({"reasoning": {"generate_summary": "long"}}, "reasoning.generate_summary", INVALID),
    ({"reasoning": {"context": "all"}}, "reasoning.context", INVALID),
    ({"reasoning": {"mode": 5}}, "reasoning.mode", INVALID),
    ({"safety_identifier": 5}, "safety_identifier", INVALID),
    ({"safety_identifier": "x" * 129}, "safety_identifier", INVALID),
    ({"service_tier": "first"}, "service_tier", INVALID),
    ({"store": "no"}, "store", INVALID),
    ({"stream": "yes"}, "stream", INVALID),
    ({"stream_options": {"include_obfuscation": True}}, "stream_options", INVALID),
    ({"stream": True, "stream_options": {"include_obfuscation": 5}}, "stream_options.include_obfuscation", INVALID),
    ({"temperature": 2.1}, "temperature", INVALID),
    ({"text": "x"}, "text", INVALID),
    ({"text": {"format": "json"}}, "text.format", INVALID),
    ({"text": {"format": {}}}, "text.format.type", MISSING),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", INVALID),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", MISSING),
    ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema", MISSING),
    ({"text": {"format": SCHEMA | {"name": "an answer"}}}, "text.format.name", INVALID),
    ({"text": {"format": SCHEMA | {"schema": "x"}}}, "text.format.schema", INVALID),
    ({"text": {"format": SCHEMA | {"strict": "x"}}}, "text.format.strict", INVALID),
    ({"text": {"verbosity": "chatty"}}, "text.verbosity", INVALID),
    ({"tools": "x"}, "tools", INVALID),
    ({"tools": [{"type": "function"}]}, "tools[0].name", MISSING),
    ({"tools": [FUNCTION | {"name": ""}]}, "tools[0].name", INVALID),
    ({"tools": [FUNCTION, FUNCTION | {"parameters": "x"}]}, "tools[1].parameters", INVALID),
    ({"tools": [FUNCTION | {"strict": "x"}]}, "tools[0].strict", INVALID),
    ({"tools": [FUNCTION | {"description": 5}]}, "tools[0].description", INVALID),
    ({"tools": [{"type": "custom"}]}, "tools[0].name", MISSING),
    ({"tools": [SHELL | {"format": {"type": "poem"}}]}, "tools[0].format.type", INVALID),
    ({"tools": [SHELL | {"format": {"type": "grammar", "syntax": "lark"}}]}, "tools[0].format.definition", MISSING),
    *(
        ({"tools": [FUNCTION, {"type": kind}]}, "tools[1].type", "unsupported_tool")
        for kind in (
            *("file_search", "computer", "computer_use_preview", "web_search", "web_search_preview", "mcp"),
            *("code_interpreter", "programmatic_tool_calling", "image_generation", "local_shell", "shell"),
            *("namespace", "tool_search", "apply_patch"),
        )
    ),
    ({"tool_choice": "any"}, "tool_choice", INVALID),
    ({"tool_choice": 5}, "tool_choice", INVALID),
    ({"tool_choice": {}}, "tool_choice.type", MISSING),
    ({"tool_choice": "required"}, "tool_choice", INVALID),
    ({"tool_choice": {"type": "function"}, "tools": [FUNCTION]}, "tool_choice.name", MISSING),
    ({"tool_choice": {"type": "function", "name": "sing"}, "tools": [FUNCTION]}, "tool_choice", INVALID),
    ({"tool_choice": {"type": "function", "name": "look"}}, "tool_choice", INVALID),
    ({"tool_choice": {"type": "custom", "name": "look"}, "tools": [FUNCTION]}, "tool_choice", INVALID),
    ({"tool_choice": {"type": "file_search"}}, "tool_choice.type", "unsupported_tool"),
    ({"tool_choice": {"type": "allowed_tools", "tools": []}}, "tool_choice.mode", MISSING),
    ({"tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools", MISSING),
    ({"tool_choice": {"type": "allowed_tools", "mode": "never", "tools": []}}, "tool_choice.mode", INVALID),
    (
        {
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "sing"}]},
            "tools": [FUNCTION],
        },
        "tool_choice.tools[0]",
        INVALID,
    ),
    ({"top_logprobs": 21}, "top_logprobs", INVALID),
    ({"top_p": 1.1}, "top_p", INVALID),
    ({"truncation": "some"}, "truncation", INVALID),
    ({"user": 5}, "user", INVALID),
    # Input
    ({"input": 5}, "input", INVALID),
    (message({"type": "input_hologram"}), "input[0].content[0].type", "unsupported_content"),
    (message({"type": "input_text"}), "input[0].content[0].text", MISSING),
    (message({"text": "x"}), "input[0].content[0].type", MISSING),
    (message({"type": "input_image"}), "input[0].content[0].image_url", MISSING),
    (message({"type": "input_image", "image_url": ""}), "input[0].content[0].image_url", INVALID),
    (message({"type": "input_image", "image_url": {"url": "x"}}), "input[0].content[0].image_url", INVALID),
    (
        message({"type": "input_image", "image_url": "data:x", "detail": "fine"}),
        "input[0].content[0].detail",
        INVALID,
    ),
    (message({"type": "input_image", "file_id": "file_1"}), "input[0].content[0].file_id", "unsupported_content"),
    (message({"type": "image_url", "image_url": {}}), "input[0].content[0].image_url.url", INVALID),
    (message({"type": "input_file"}), "input[0].content[0].file_data", MISSING),
    (message({"type": "input_file", "file_data": 5}), "input[0].content[0].file_data", INVALID),
    (message({"type": "input_file", "file_url": "http://x"}), "input[0].content[0].file_url", "unsupported_content"),
    (message({"type": "input_audio"}), "input[0].content[0].input_audio", MISSING),
    (
        message({"type": "input_audio", "input_audio": {"data": "x"}}),
        "input[0].content[0].input_audio.format",
        MISSING,
    ),
    (tool_output({"type": "input_image"}), "input[0].output[0].image_url", MISSING),
    (tool_output({"type": "input_hologram"}), "input[0].output[0].type", "unsupported_content"),
    ({"input": [{"role": "user", "content": "x", "id": 5}]}, "input[0].id", INVALID),
    ({"input": [{"role": "user", "content": "x", "id": "a\nb"}]}, "input[0].id", INVALID),
    ({"input": [{"role": "user", "content": "x", "status": "odd"}]}, "input[0].status", INVALID),
    ({"input": [{"type": "reasoning", "summary": "x"}]}, "input[0].summary", INVALID),
    ({"input": [{"type": "reasoning", "summary": [{"type": "summary_text"}]}]}, "input[0].summary[0].text", MISSING),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type", "unsupported_item"),
]


def test_every_parameter_has_its_bad_input() -> None:
    assert {param.split(".")[0].split("[")[0] for _, param, _ in REFUSED} == set(PARAMETERS)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [pytest.param(*row, id=f"{row[1]}-{msgspec.json.encode(row[0]).decode()[:60]}") for row in REFUSED],
)
def test_what_can_not_be_asked_for_is_refused_by_name(fields: dict[str, Any], param: str, code: str) -> None:
    body = msgspec.json.encode({"model": "m", "input": "hello"} | fields)
    with pytest.raises(Problem) as refused:
        responses.turn_request(responses.decode(body), body, "acme", Continuity())
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)
    assert refused.value.message


async def test_a_refusal_comes_to_the_client_in_the_envelope(server: Server, upstream: Upstream) -> None:
    body = {"model": "m", "input": "hello", "prompt": {"id": "pmpt_1"}}
    error = await call(server, "POST", "/v1/responses", 400, json=body)
    assert (error["param"], error["code"], error["type"]) == ("prompt", UNSUPPORTED, "invalid_request_error")
    assert "'instructions'" in error["message"]
    with pytest.raises(openai.BadRequestError) as raised:
        await server.openai.responses.create(model="m", input="x", tools=[{"type": "web_search"}])
    assert raised.value.param == "tools[0].type"
    assert not upstream.requests


ALLOWED: Any = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]}
GRAMMAR: Any = {"type": "grammar", "syntax": "regex", "definition": "a+"}

# What is asked for, and what the model server is sent for it.
SENT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"temperature": 0.5, "top_p": 0.5, "parallel_tool_calls": False, "service_tier": "flex"},
        {"temperature": 0.5, "top_p": 0.5, "parallel_tool_calls": False, "service_tier": "flex"},
    ),
    ({"max_output_tokens": 9}, {"max_completion_tokens": 9}),
    ({"top_logprobs": 3}, {"top_logprobs": 3, "logprobs": True}),
    ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
    ({"include": ["file_search_call.results", "reasoning.encrypted_content"]}, {}),
    ({"safety_identifier": "a", "prompt_cache_key": "b"}, {"safety_identifier": "a", "prompt_cache_key": "b"}),
    ({"prompt_cache_retention": "24h"}, {"prompt_cache_retention": "24h"}),
    ({"prompt_cache_options": {"mode": "explicit"}}, {"prompt_cache_options": {"mode": "explicit"}}),
    ({"user": "ada"}, {"user": "ada"}),
    ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
    ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"verbosity": "low"}),
    ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    (
        {"text": {"format": SCHEMA | {"strict": True}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
            }
        },
    ),
    (
        {"tools": [FUNCTION | {"description": None}], "tool_choice": {"type": "function", "name": "look"}},
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "look", "parameters": {"type": "object"}, "strict": True},
                }
            ],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
        },
    ),
    (
        {"tools": [SHELL | {"format": GRAMMAR}], "tool_choice": {"type": "custom", "name": "sh"}},
        {
            "tools": [
                {
                    "type": "custom",
                    "custom": {
                        "name": "sh",
                        "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}},
                    },
                }
            ],
            "tool_choice": {"type": "custom", "custom": {"name": "sh"}},
        },
    ),
    (
        {"tools": [FUNCTION], "tool_choice": ALLOWED},
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "look", "parameters": {"type": "object"}, "strict": True},
                }
            ],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "look"}}]},
            },
        },
    ),
    ({"tools": [], "tool_choice": "none"}, {"tool_choice": "none"}),
    ({"truncation": "auto", "max_tool_calls": 5, "metadata": {"a": "b"}}, {}),
    ({"stream": True, "stream_options": {"include_obfuscation": False}}, {}),
    ({"prompt": None, "include": [], "stream_options": None, "tools": None, "text": {"format": None}}, {}),
    ({"top_k": 40, "vendor": {"a": [1]}}, {"top_k": 40, "vendor": {"a": [1]}}),
]


@pytest.mark.parametrize(
    ("asked", "sent"), [pytest.param(*row, id=msgspec.json.encode(row[0]).decode()[:60]) for row in SENT]
)
async def test_what_is_asked_for_reaches_the_model_by_its_chat_name(
    server: Server, upstream: Upstream, asked: dict[str, Any], sent: dict[str, Any]
) -> None:
    async with server.http.post("/v1/responses", json={"model": "m", "input": "hello"} | asked) as response:
        assert response.status == 200, await response.text()
        await response.read()
    request = upstream.requests[0]
    assert {name: value for name, value in request.items() if name not in ("model", "messages", "stream")} == (
        sent | ({"stream_options": {"include_usage": True}} if asked.get("stream") else {})
    )


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"}
CHAT_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
FILE = {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf", "detail": "low"}
CHAT_FILE = {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        (
            [{"role": "user", "content": [{"type": "input_text", "text": "see"}, IMAGE, FILE, AUDIO]}],
            [{"role": "user", "content": [{"type": "text", "text": "see"}, CHAT_IMAGE, CHAT_FILE, AUDIO]}],
        ),
        (
            [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}],
            [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file_1"}}]}],
        ),
        (
            [{"role": "user", "content": [CHAT_IMAGE, {"type": "text", "text": "chat"}]}],
            [{"role": "user", "content": [CHAT_IMAGE, {"type": "text", "text": "chat"}]}],
        ),
        (
            [CALL, {"type": "function_call_output", "call_id": "c1", "output": [IMAGE]}],
            [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c1", "content": [CHAT_IMAGE]},
            ],
        ),
        (
            [
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
                {"role": "user", "content": "please"},
            ],
            [{"role": "assistant", "content": None, "refusal": "no"}, {"role": "user", "content": "please"}],
        ),
    ],
)
async def test_parts_reach_the_model_by_their_chat_names(
    server: Server, upstream: Upstream, items: Any, messages: Any
) -> None:
    upstream.script = lambda _: Reply()
    await server.openai.responses.create(model="m", input=items, conversation="c")
    assert upstream.messages[0] == messages


class Answer(pydantic.BaseModel):
    """What the model is to answer with."""

    city: str


async def test_the_sdk_parses_structured_output(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says('{"city":"Wien"}')
    response = await server.openai.responses.parse(model="m", input="where?", text_format=Answer)
    assert response.output_parsed == Answer(city="Wien")
    wanted = upstream.requests[0]["response_format"]
    assert (wanted["type"], wanted["json_schema"]["name"], wanted["json_schema"]["strict"]) == (
        "json_schema",
        "Answer",
        True,
    )
    assert response.text
    assert response.text.format
    assert response.text.format.type == "json_schema"


async def test_what_was_thought_is_kept_shown_and_sent_back(server: Server, upstream: Upstream) -> None:
    thought = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "short"}],
        "content": [{"type": "reasoning_text", "text": "long"}],
        "encrypted_content": "gAAA",
    }
    output = {"type": "function_call_output", "call_id": "c1", "output": "seen"}
    items: list[Any] = [{"role": "user", "content": "look!"}, thought, CALL, output]
    response = await server.openai.responses.create(model="m", input=items, conversation="c")
    user, assistant, tool = upstream.messages[0]
    assert (user["content"], tool["content"]) == ("look!", "seen")
    assert assistant["reasoning_content"] == "long"
    assert assistant["tool_calls"][0]["id"] == "c1"
    shown = await server.openai.responses.input_items.list(response.id, order="asc")
    assert shown.data[1].to_dict() == thought | {"status": "completed"}
