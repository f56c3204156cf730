"""Several upstreams: which one a model's name leads to, when one is asked again, and what the configuration may say."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from api.models.model import ModelRefused
from api.models.retries import RETRY_AFTER_MAX_S, Retries, seconds_in
from api.models.router import Route, Routes, Upstream
from api.models.upstream import Timeouts
from api.turns.compress import Compression
from tests.support.command import invoke
from tests.support.responses_upstream import Scripted, scripted_responses_upstream, speaks, thinks
from tests.support.server import KEY, Process, serving
from tests.support.upstream import Reply, echo, refuses, says, scripted_upstream
from tests.support.upstream import Upstream as ModelServer

# Routes


def routes(**models: tuple[str, ...]) -> Routes:
    """The routes to upstreams by their names."""
    return Routes([Upstream(name=name, url="", models=listed) for name, listed in models.items()])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-5", Route("cloud")),
        ("gpt-oss-20b", Route("oss")),
        ("gpt-oss-120b", Route("local")),
        ("o3", Route("cloud")),
        ("o3-mini", Route("rest")),
        ("local/llama3", Route("local", "local/")),
        ("local/gpt-5", Route("local", "local/")),
        ("cloud/o3", Route("cloud", "cloud/")),
        ("meta/llama3", Route("rest")),
        ("localhost", Route("rest")),
        ("local/special", Route("cloud")),
        ("", Route("rest")),
    ],
)
def test_a_name_leads_to_one_upstream(model: str, expected: Route) -> None:
    known = routes(cloud=("gpt-*", "o3", "local/special"), oss=("gpt-oss-*",), local=("gpt-oss-120b",), rest=("*",))
    assert known.of(model) == expected


def test_a_name_that_leads_nowhere_is_404_and_says_what_is_configured() -> None:
    known = routes(cloud=("gpt-*", "o3"), local=())
    assert known.of("llama3") is None
    with pytest.raises(ModelRefused, match=r"'llama3' .* only for cloud/\*, gpt-\*, local/\*, o3") as refused:
        known.refuse("llama3")
    assert (refused.value.status, refused.value.code, refused.value.param) == (404, "model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_each_model_is_asked_of_its_upstream(data: Path, upstream: ModelServer, stream: bool) -> None:
    async with scripted_responses_upstream() as other:
        cloud = Upstream(name="cloud", url=other.url, key="secret", api="responses", models=("gpt-*",))
        async with serving(data, upstream=upstream.url, upstreams=(cloud,)) as server:
            for model in ("gpt-5", "llama3", "cloud/o3"):
                made: Any = await server.openai.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": "hi"}],
                    stream=stream,
                    extra_headers={"X-Hermes-Session-Id": "s1"},
                )
                assert {chunk.model async for chunk in made} == {model} if stream else made.model == model
    assert [request["model"] for request in upstream.requests] == ["llama3"]
    assert [request["model"] for request in other.requests] == ["gpt-5", "o3"]
    assert [len(messages) for messages in (*upstream.messages, *other.messages)] == [3, 1, 5]
    assert [headers.get("Authorization") for headers in other.headers] == ["Bearer secret"] * 2
    assert "Authorization" not in upstream.headers[0]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_model_for_which_there_is_no_upstream_is_404(
    data: Path, upstream: ModelServer, path: str, stream: bool
) -> None:
    cloud = Upstream(name="cloud", url=upstream.url, models=("gpt-*",))
    body = {"model": "llama3", "stream": stream, "input": "hi", "messages": [{"role": "user", "content": "hi"}]}
    async with serving(data, upstreams=(cloud,)) as server, server.http.post(path, json=body) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert "gpt-*" in error["message"]
    assert not upstream.requests


async def test_the_summary_can_be_of_another_upstream(data: Path, upstream: ModelServer) -> None:
    async with scripted_upstream() as other:
        other.script = lambda _: says("what was said before")
        upstream.script = lambda _: says("well " * 20, usage=None)
        cheap = Upstream(name="cheap", url=other.url)
        compression = Compression(context_tokens=400, compress_at=0.25, summary_model="cheap/tiny")
        async with serving(data, upstream=upstream.url, upstreams=(cheap,), compression=compression) as server:
            session_id = "s1"
            for _ in range(8):
                _, session_id = await server.chat("hello " * 20, session_id)
            assert session_id != "s1"
    assert {request["model"] for request in other.requests} == {"tiny"}
    assert {request["model"] for request in upstream.requests} == {"m"}


async def test_a_session_can_change_upstreams_and_keeps_its_thoughts(data: Path, upstream: ModelServer) -> None:
    async with scripted_responses_upstream() as other:
        other.script = lambda _: Scripted(output=[thinks("hm"), speaks("hi")])
        cloud = Upstream(name="cloud", url=other.url, api="responses")
        async with serving(data, upstream=upstream.url, upstreams=(cloud,)) as server:
            for model in ("cloud/o3", "llama3", "cloud/o3"):
                await server.chat("hello", "s1", model=model)
    assert set(upstream.messages[0][1]) == {"role", "content"}
    assert thinks("hm") in other.requests[1]["input"]


# Asked again


@pytest.mark.parametrize(
    ("tried", "share", "asked_s", "expected"),
    [
        (0, 0.0, 0.0, 0.5),
        (0, 1.0, 0.0, 1.0),
        (1, 0.0, 0.0, 1.0),
        (2, 0.5, 0.0, 3.0),
        (0, 0.0, 2.0, 2.5),
        (0, 0.0, RETRY_AFTER_MAX_S, RETRY_AFTER_MAX_S + 0.5),
        (0, 0.0, RETRY_AFTER_MAX_S + 0.1, None),
        (3, 0.0, 0.0, None),
    ],
)
def test_the_pause_doubles_and_is_spread(tried: int, share: float, asked_s: float, expected: float | None) -> None:
    assert Retries(times=3, pause_s=1.0).pause_before(tried, share, asked_s) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [("2", 2.0), ("0.5", 0.5), ("", None), ("soon", None), ("-1", None), ("Fri, 20 Nov 2026 10:00:00 GMT", None)],
)
def test_a_retry_after_is_seconds_or_nothing(header: str, expected: float | None) -> None:
    assert seconds_in(header) == expected


def busy_first(times: int, reply: Reply) -> Any:
    """A script that refuses so often, and then answers."""
    left = iter([reply] * times)
    return lambda body: next(left, None) or echo(body)


def soon(status: int, seconds: str = "0", **headers: str) -> Reply:
    """A refusal that asks for patience."""
    return msgspec.structs.replace(refuses(status), headers={"retry-after": seconds} | headers)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_model_server_that_is_busy_for_a_moment_is_asked_again(
    data: Path, upstream: ModelServer, status: int, stream: bool
) -> None:
    upstream.script = busy_first(2, soon(status))
    async with serving(data, upstream=upstream.url) as server:
        made: Any = await server.openai.responses.create(model="m", input="hi", stream=stream)
        events = [event async for event in made] if stream else []
        assert (events[-1].response if stream else made).output_text == "1: hi"
    assert len(upstream.requests) == 3


@pytest.mark.parametrize(
    "reply",
    [
        soon(429, "60"),
        soon(503, "60"),
        refuses(429),
        refuses(503),
        soon(500),
        soon(502),
        soon(408),
        soon(429, "Fri, 20 Nov 2026 10:00:00 GMT"),
        soon(429, "0", **{"x-should-retry": "false"}),
    ],
    ids=lambda reply: f"{reply.status} {reply.headers}",
)
async def test_no_other_refusal_is_asked_again(data: Path, upstream: ModelServer, reply: Reply) -> None:
    upstream.script = busy_first(1, reply)
    async with serving(data, upstream=upstream.url) as server:
        with pytest.raises(openai.APIStatusError):
            await server.openai.responses.create(model="m", input="hi")
    assert len(upstream.requests) == 1


async def test_what_is_busy_for_too_long_is_told_with_its_retry_after(data: Path, upstream: ModelServer) -> None:
    upstream.script = lambda _: soon(429, "0.01")
    async with serving(data, upstream=upstream.url) as server:
        with pytest.raises(openai.RateLimitError) as raised:
            await server.openai.responses.create(model="m", input="hi")
    assert raised.value.response.headers["retry-after"] == "0.01"
    assert len(upstream.requests) == 3


async def test_a_model_server_that_broke_off_is_not_asked_again(data: Path, upstream: ModelServer) -> None:
    upstream.script = lambda _: says("one two", break_after=0)
    async with serving(data, upstream=upstream.url) as server:
        with pytest.raises(openai.InternalServerError):
            await server.openai.responses.create(model="m", input="hi", stream=True)
    assert len(upstream.requests) == 1


async def test_a_model_server_that_is_just_starting_is_asked_again(data: Path) -> None:
    """Nothing was sent to it, so that nothing can be doubled."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        body = b'{"choices": [{"message": {"role": "assistant", "content": "up"}}]}'
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))  # and does not listen yet
    url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    async with serving(data, upstream=url, retries=Retries(times=10, pause_s=0.01)) as server:
        asking = asyncio.create_task(server.chat("hi", "s1"))
        while not asking.done() and not (await server.get("/api/sessions"))["data"]:
            pass  # its turn is not open yet
        async with await asyncio.start_server(answer, sock=taken):
            said, _ = await asking
    assert said["choices"][0]["message"]["content"] == "up"
    assert len(heard) == 1


async def test_a_model_server_that_stays_away_is_told(data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        async with serving(data, upstream=url) as server:
            with pytest.raises(openai.InternalServerError, match="can not be reached") as raised:
                await server.openai.responses.create(model="m", input="hi")
    assert raised.value.code == "upstream_unreachable"


async def test_no_pause_goes_beyond_the_time_to_the_first_byte(data: Path, upstream: ModelServer) -> None:
    upstream.script = lambda _: soon(429, "5")
    timeouts = Timeouts(first_byte_s=4.0)
    async with serving(data, upstream=upstream.url, timeouts=timeouts) as server:
        with pytest.raises(openai.RateLimitError):
            await server.openai.responses.create(model="m", input="hi")
    assert len(upstream.requests) == 1


# The configuration file


def config(directory: Path, text: str) -> Path:
    """A configuration file that says that."""
    directory.mkdir(exist_ok=True)
    path = directory / "turnlog.toml"
    path.write_text(text)
    return path


async def test_upstreams_are_configured_in_tables(data: Path, upstream: ModelServer) -> None:
    async with scripted_responses_upstream() as other:
        tables = f"""
            upstream = "{upstream.url}"

            [upstreams.cloud]
            url = "{other.url}"
            key-env = "CLOUD_KEY"
            api = "responses"
            models = ["gpt-*", "o3"]
        """
        env = {"TURNLOG_CONFIG": str(config(data, tables)), "CLOUD_KEY": "secret"}
        process = await Process.start(data, env=env)
        try:
            for model in ("gpt-5", "llama3", "cloud/tiny"):
                await process.server.chat("hi", model=model)
        finally:
            await process.terminate()
    assert [request["model"] for request in other.requests] == ["gpt-5", "tiny"]
    assert [request["model"] for request in upstream.requests] == ["llama3"]
    assert {headers["Authorization"] for headers in other.headers} == {"Bearer secret"}
    assert "secret" not in process.log


async def test_the_default_upstream_can_speak_responses(data: Path) -> None:
    async with scripted_responses_upstream() as model:
        process = await Process.start(data, "--upstream", model.url, "--upstream-api", "responses")
        try:
            answer, _ = await process.server.chat("hi")
        finally:
            await process.terminate()
    assert answer["choices"][0]["message"]["content"] == "1: hi"


URL = 'url = "http://x/v1"\n'


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ("upstreams = 5", "upstreams are tables, [upstreams.NAME], and not 5"),
        ("[upstreams]\nx = 5", '[upstreams."x"] does not hold the settings of an upstream'),
        (f"[upstreams.x]\n{URL}weight = 5", "unknown field `weight`"),
        ("[upstreams.x]\n", "missing required field `url`"),
        ('[upstreams.x]\nurl = ""', "[upstreams.x] has no url"),
        ('[upstreams.x]\nurl = "localhost:8000"', "[upstreams.x] url expects a URL such as"),
        (f'[upstreams.x]\n{URL}api = "grpc"', "Invalid enum value 'grpc'"),
        (f'[upstreams.x]\n{URL}models = "gpt-*"', "Expected `array`, got `str`"),
        (f"[upstreams.x]\n{URL}models = [5]", "Expected `str`, got `int`"),
        (f'[upstreams.x]\n{URL}models = ["*-mini"]', "beginnings that end with"),
        (f'[upstreams.x]\n{URL}models = [""]', "beginnings that end with"),
        (f'[upstreams.x]\n{URL}key_env = "NOT_SET_ANYWHERE"', "[upstreams.x] key_env names NOT_SET_ANYWHERE, which"),
        (f'[upstreams."a/b"]\n{URL}', "[upstreams.a/b] has a name that an upstream can not have"),
        (f"[upstreams.default]\n{URL}", "[upstreams.default] has a name that an upstream can not have"),
        (
            f'[upstreams.x]\n{URL}models = ["gpt-*"]\n[upstreams.y]\n{URL}models = ["o3", "gpt-*"]',
            "[upstreams.y] and [upstreams.x] are both for the models 'gpt-*'",
        ),
        (
            f'upstream = "http://y/v1"\n[upstreams.x]\n{URL}models = ["*"]',
            "[upstreams.x] and --upstream are both for the models '*'",
        ),
    ],
)
def test_an_upstreams_settings_are_checked(tmp_path: Path, tables: str, said: str) -> None:
    config(tmp_path, tables)
    done = invoke("serve", cwd=tmp_path, TURNLOG_DATA="d", TURNLOG_API_KEY=KEY)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "turnlog.toml" in done.stderr


def test_other_commands_need_no_keys_of_upstreams(tmp_path: Path) -> None:
    config(tmp_path, f'[upstreams.x]\n{URL}key_env = "NOT_SET_ANYWHERE"')
    assert invoke("keys", "list", "--data", "d", cwd=tmp_path).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--upstream-api", "grpc"), "'grpc' is not one of 'chat', 'responses'"),
        (("--upstream-retries", "-1"), "-1 is not in the range"),
        (("--upstream-retries", "11"), "11 is not in the range"),
    ],
)
def test_bad_flags_are_refused_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = invoke("serve", *arguments, cwd=tmp_path)
    assert (done.exit_code, said in done.stderr) == (2, True)
