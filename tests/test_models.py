"""The models of the upstreams: listed, kept for a minute, told apart from those that do not exist."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from api.models.catalogue import KEPT_S, Catalogue
from api.models.chat import ChatModel
from api.models.model import ModelError, ModelRefused
from api.models.retries import Retries
from api.models.router import Dialect, Upstream
from api.models.upstream import Timeouts, UpstreamServer
from tests.support.responses_upstream import scripted_responses_upstream
from tests.support.runs import events, start_run
from tests.support.server import Server, serving
from tests.support.upstream import Reply, refuses, scripted_upstream
from tests.support.upstream import Upstream as Scripted

SERVED: list[dict[str, Any]] = [
    {"id": "qwen/qwen3-8b", "object": "model", "created": 7, "owned_by": "qwen"},
    {"id": "tiny", "object": "model"},
    {"id": "odd", "created": None, "owned_by": 5, "permission": []},
]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest_asyncio.fixture
async def model(upstream: Scripted) -> AsyncIterator[ChatModel]:
    """The scripted model server, as a model."""
    server = UpstreamServer(upstream.url, "", Timeouts(), Retries(0))
    yield ChatModel(server)
    await server.close()


async def test_models_are_listed_as_the_upstream_lists_them(server: Server, upstream: Scripted) -> None:
    upstream.listed = SERVED
    listed = [entry.to_dict() async for entry in server.openai.models.list()]
    assert listed == [
        {"id": "qwen/qwen3-8b", "object": "model", "created": 7, "owned_by": "qwen"},
        {"id": "tiny", "object": "model", "created": 0, "owned_by": ""},
        {"id": "odd", "object": "model", "created": 0, "owned_by": ""},
    ]


async def test_an_upstream_may_have_no_models(server: Server, upstream: Scripted) -> None:
    upstream.listed = None  # type: ignore[assignment]  # as Ollama says it
    assert [entry async for entry in server.openai.models.list()] == []


@pytest.mark.parametrize("name", ["qwen/qwen3-8b", "tiny"])
async def test_a_model_is_retrieved_by_its_name(server: Server, upstream: Scripted, name: str) -> None:
    upstream.listed = SERVED
    assert (await server.openai.models.retrieve(name)).id == name


@pytest.mark.parametrize("name", ["qwen", "qwen/qwen3-8b/x", "Tiny", "tiny ", "x" * 5_000])
async def test_a_model_that_is_not_listed_is_404(server: Server, upstream: Scripted, name: str) -> None:
    upstream.listed = SERVED
    with pytest.raises(openai.NotFoundError) as raised:
        await server.openai.models.retrieve(name)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    assert name[:100] in raised.value.message


async def test_without_upstream_the_builtin_model_is_listed(data: Path) -> None:
    async with serving(data) as server:
        assert [entry.id async for entry in server.openai.models.list()] == ["turnlog-builtin"]
        assert (await server.openai.models.retrieve("turnlog-builtin")).owned_by == "turnlog"


async def test_a_list_is_kept_for_a_minute(model: ChatModel, upstream: Scripted) -> None:
    clock = Clock()
    catalogue = Catalogue(model, now_s=clock)
    for _ in range(3):
        assert (await catalogue.one("m1")).owned_by == "me"
    clock.now_s += KEPT_S - 1
    await catalogue.all()
    assert upstream.lists == 1
    clock.now_s += 1
    upstream.listed = SERVED
    assert len(await catalogue.all()) == 3
    assert upstream.lists == 2


async def test_a_model_that_is_not_in_the_list_is_asked_for_again(model: ChatModel, upstream: Scripted) -> None:
    clock = Clock()
    catalogue = Catalogue(model, now_s=clock)
    await catalogue.all()
    upstream.listed = SERVED
    for _ in range(2):  # asked for just now
        with pytest.raises(ModelRefused):
            await catalogue.one("tiny")
        assert upstream.lists == 1
    clock.now_s += 1
    assert (await catalogue.one("tiny")).id == "tiny"
    assert upstream.lists == 2


async def test_many_who_ask_at_once_are_one_request(model: ChatModel, upstream: Scripted) -> None:
    catalogue = Catalogue(model)
    upstream.gate.clear()
    asking = [asyncio.create_task(catalogue.all()) for _ in range(20)]
    gone = asyncio.create_task(catalogue.all())
    await upstream.wait_for_lists(1)
    gone.cancel()  # takes nothing with it
    upstream.gate.set()
    assert [len(listed) for listed in await asyncio.gather(*asking)] == [1] * 20
    assert upstream.lists == 1


async def test_a_failure_is_not_kept(upstream: Scripted) -> None:
    server = UpstreamServer(upstream.url + "/nowhere", "", Timeouts(), Retries(0))
    catalogue = Catalogue(ChatModel(server))
    for _ in range(2):
        with pytest.raises(ModelError):
            await catalogue.all()
    await server.close()


async def test_what_is_in_flight_ends_with_the_server(model: ChatModel, upstream: Scripted) -> None:
    catalogue = Catalogue(model)
    upstream.gate.clear()
    asking = asyncio.create_task(catalogue.all())
    await upstream.wait_for_lists(1)
    await catalogue.stop()
    with pytest.raises(asyncio.CancelledError):
        await asking


# Several upstreams


async def test_all_upstreams_are_listed_by_names_that_lead_to_them(data: Path, upstream: Scripted) -> None:
    async with scripted_upstream() as other:
        upstream.listed = [{"id": "tiny"}, {"id": "gpt-oss"}]
        other.listed = [{"id": "gpt-5"}, {"id": "whisper"}, {"id": "tiny"}]
        named = Upstream(name="cloud", url=other.url, models=("gpt-*",))
        async with serving(data, upstream=upstream.url, upstreams=(named,)) as server:
            listed = [entry.id async for entry in server.openai.models.list()]
            assert sorted(listed) == ["cloud/tiny", "cloud/whisper", "default/gpt-oss", "gpt-5", "tiny"]
            for name in listed:
                assert (await server.openai.models.retrieve(name)).id == name
                await server.chat("hi", model=name)
            assert [request["model"] for request in upstream.requests] == ["tiny", "gpt-oss"]
            assert [request["model"] for request in other.requests] == ["gpt-5", "whisper", "tiny"]


async def test_an_upstream_that_can_not_be_reached_is_left_out(data: Path, upstream: Scripted) -> None:
    gone = Upstream(name="gone", url="http://127.0.0.1:1/v1", models=("gone-*",))
    async with serving(data, upstream=upstream.url, upstreams=(gone,)) as server:
        assert [entry.id async for entry in server.openai.models.list()] == ["m1"]
    async with serving(data, upstreams=(gone,)) as server:
        with pytest.raises(openai.InternalServerError) as raised:
            await server.openai.models.list()
        assert raised.value.code == "upstream_unreachable"


# Models that an upstream does not know: what servers say

REFUSALS: dict[str, Reply] = {
    "OpenAI": refuses(
        404, "The model `x` does not exist or you do not have access to it.", code="model_not_found", param=None
    ),
    "OpenAI's Responses API": refuses(
        400, "The requested model 'x' does not exist.", code="model_not_found", param="model"
    ),
    "OpenAI, of a project": refuses(403, "Project `p` does not have access to model `x`", code="model_not_found"),
    "vLLM": refuses(404, "The model `x` does not exist.", type="NotFoundError", code=404),
    "vLLM of old": Reply(
        status=404,
        body={"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404},
    ),
    "Ollama": refuses(404, 'model "x" not found, try pulling it first', type="api_error"),
    "Ollama's own API": Reply(status=404, body={"error": "model 'x' not found"}),
    "llama.cpp": refuses(400, "model not found", type="invalid_request_error", code=400),
    "llama.cpp, by name": refuses(400, "model 'x' not found", type="invalid_request_error", code=400),
    "LM Studio": refuses(404, 'Model "x" not found. Please specify a valid model.', code="model_not_found"),
    "LM Studio, loading": refuses(400, 'Failed to load model "x". Error: Model does not exist.'),
    "DeepSeek": refuses(400, "Model Not Exist", code="invalid_request_error"),
    "Mistral": Reply(status=400, body={"object": "error", "message": "Invalid model: x", "type": "invalid_model"}),
    "OpenRouter": refuses(400, "x is not a valid model ID", code=400),
    "Azure": refuses(404, "The API deployment for this resource does not exist.", code="DeploymentNotFound"),
}
OTHERS: dict[str, tuple[Reply, int, str]] = {
    "a wrong path": (Reply(status=404, body={"detail": "Not Found"}), 404, "upstream_refused"),
    "a page": (Reply(status=404, body="404 page not found"), 404, "upstream_refused"),
    "too long": (refuses(400, "This model's maximum context length is 5 tokens", code="x"), 400, "x"),
    "a tool": (refuses(400, "tool 'model' is unknown to us", code="unknown_tool"), 400, "unknown_tool"),
    "a failure": (refuses(500, "model 'x' not found"), 502, "upstream_error"),
}
dialects = pytest.mark.parametrize("dialect", ["chat", "responses"])


async def each_api(server: Server, model: str) -> list[dict[str, Any]]:
    """The status and the error of a turn with that model over each API, whole and streamed, and as a run."""
    outcomes = []
    for path, body in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/responses", {"input": "hi"}),
    ):
        for stream in (False, True):
            async with server.http.post(path, json={"model": model, "stream": stream} | body) as answer:
                error = (await answer.json())["error"]
                outcomes.append({"status": answer.status, "code": error["code"], "param": error["param"]})
    return outcomes


@dialects
@pytest.mark.parametrize("reply", REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_model_that_an_upstream_does_not_know_is_404(data: Path, dialect: Dialect, reply: Reply) -> None:
    scripted = scripted_upstream() if dialect == "chat" else scripted_responses_upstream()
    async with scripted as upstream, serving(data, upstream=upstream.url, upstream_api=dialect) as server:
        upstream.script = lambda _: reply
        expected = {"status": 404, "code": "model_not_found", "param": "model"}
        assert await each_api(server, "x") == [expected] * 4
        run_id = await start_run(server, "hi", model="x")
        assert (await events(server, run_id))[-1].payload["code"] == "model_not_found"


@dialects
@pytest.mark.parametrize(("reply", "status", "code"), OTHERS.values(), ids=OTHERS.keys())
async def test_another_refusal_is_not_taken_for_that(
    data: Path, dialect: Dialect, reply: Reply, status: int, code: str
) -> None:
    scripted = scripted_upstream() if dialect == "chat" else scripted_responses_upstream()
    async with scripted as upstream, serving(data, upstream=upstream.url, upstream_api=dialect) as server:
        upstream.script = lambda _: reply
        outcomes = await each_api(server, "x")
        assert [(outcome["status"], outcome["code"]) for outcome in outcomes] == [(status, code)] * 4
