"""The API's description: made of what is served, true of what is answered, readable without a network."""

import asyncio
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from api.routes.table import ROUTES
from tests.support.server import KEY, serving

# What is asserted of every answer: https://schemathesis.readthedocs.io, "Checks".
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection"
)
EXAMPLES = 1  # of each route's random requests; its edge cases come besides


@pytest.mark.timeout(120)
async def test_every_route_does_as_it_is_described(tmp_path: Path) -> None:
    schemathesis = Path(sys.executable).parent / "schemathesis"
    async with serving(tmp_path / "data") as server:
        run = await asyncio.create_subprocess_exec(
            *(str(schemathesis), "run", f"{server.url}/openapi.json", "-H", f"Authorization: Bearer {KEY}"),
            *("--phases", "coverage,fuzzing", "--checks", CHECKS, "--max-examples", str(EXAMPLES)),
            *("--seed", "1", "--suppress-health-check", "all", "--no-color", "--warnings", "off"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await run.communicate()
    assert run.returncode == 0, told.decode()[-8_000:]
    assert "No issues found" in told.decode()


async def test_the_description_and_the_page_are_open_to_everybody(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        for path, media in (("/openapi.json", "application/json"), ("/docs", "text/html")):
            async with server.http.get(path, headers={"authorization": ""}) as answer:
                assert (answer.status, answer.content_type) == (200, media)


async def test_every_route_is_described_under_the_name_that_the_capabilities_have(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        described = (await server.get("/openapi.json"))["paths"]
        endpoints = (await server.get("/v1/capabilities"))["endpoints"]
    found = {
        operation["operationId"]: {"method": method.upper(), "path": path}
        for path, methods in described.items()
        for method, operation in methods.items()
    }
    assert found == {name: endpoints[name] for name in found}
    assert found.keys() == {route.name for route in ROUTES}
    assert all(operation["summary"] for methods in described.values() for operation in methods.values())


async def test_the_page_shows_every_route_and_loads_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server, server.http.get("/docs") as answer:
        page = await answer.text()
    seen = _Seen()
    seen.feed(page)
    assert seen.ids >= {route.name for route in ROUTES}
    assert not seen.tags & {"script", "link", "img", "iframe"}
    assert "url(" not in page


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids |= {value for name, value in attrs if name == "id" and value}
