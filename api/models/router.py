"""Several upstreams behind one `Model`: which of them a model's name leads to.

In this order: the upstream that lists the name in its `models`; the one whose own name stands before it ("local/llama3"
is `llama3` of the upstream `local`); the one with the longest pattern ("gpt-*") that the name begins with.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal, NamedTuple, NoReturn, TypeAlias

import msgspec
import structlog

from api.models.model import NOWHERE, Answer, Chunk, Model, ModelError, ModelInfo, ModelRefused, Prompt, Way
from api.models.refused import UNKNOWN_MODEL

ANY = "*"
Dialect: TypeAlias = Literal["chat", "responses"]

_log = structlog.get_logger()


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """A model server: its base URL, its key, what it speaks, and the names and patterns of the models asked of it."""

    name: str
    url: str
    key: str = ""
    api: Dialect = "chat"
    models: tuple[str, ...] = ()


class Route(NamedTuple):
    """Where a name leads: to which upstream, and what stands before the name that it is known by there."""

    upstream: str
    prefix: str = ""


class Routes:
    """The routes to upstreams that are known by their settings. No two of them list the same."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        listed = [(name, upstream.name) for upstream in upstreams for name in upstream.models]
        self._names = {name: Route(to) for name, to in listed if not name.endswith(ANY)}
        patterns = [(name.removesuffix(ANY), Route(to)) for name, to in listed if name.endswith(ANY)]
        own = [(f"{upstream.name}/", Route(upstream.name, f"{upstream.name}/")) for upstream in upstreams]
        self._beginnings = own + sorted(patterns, key=lambda pattern: -len(pattern[0]))
        self._told = ", ".join(sorted({*(name for name, _ in listed), *(f"{to}{ANY}" for to, _ in own)}))

    def of(self, model: str) -> Route | None:
        """Where a model's name leads; None where nowhere."""
        if route := self._names.get(model):
            return route
        return next((route for beginning, route in self._beginnings if model.startswith(beginning)), None)

    def refuse(self, model: str) -> NoReturn:
        """Raise that the name leads nowhere."""
        message = f"The model '{model}' does not exist here: no upstream is configured for it, only for {self._told}."
        raise ModelRefused(404, message, code=UNKNOWN_MODEL, param="model")


class Router:
    """All upstreams as one `Model`."""

    def __init__(self, upstreams: Sequence[Upstream], models: Mapping[str, Model]) -> None:
        self._routes = Routes(upstreams)
        self._models = models

    async def complete(self, prompt: Prompt) -> Answer:
        """See `Model.complete`."""
        route = self._route(prompt)
        answer = await self._models[route.upstream].complete(_known_there(prompt, route))
        return msgspec.structs.replace(answer, model=_known_here(answer.model, route)) if route.prefix else answer

    def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """See `Model.stream`."""
        route = self._route(prompt)
        chunks = self._models[route.upstream].stream(_known_there(prompt, route))
        return _renamed(chunks, route) if route.prefix else chunks

    def way(self, model: str) -> Way:
        """See `Model.way`."""
        route = self._routes.of(model)
        if route is None:
            return Way(NOWHERE, model)
        return self._models[route.upstream].way(model.removeprefix(route.prefix))

    async def models(self) -> list[ModelInfo]:
        """The models of all upstreams that can be reached, by names that lead to them. Raises `ModelError`."""
        lists = await asyncio.gather(*(self._listed(name) for name in self._models))
        errors = [listed for listed in lists if isinstance(listed, ModelError)]
        if len(errors) == len(lists):
            raise errors[0]
        return [entry for listed in lists if not isinstance(listed, ModelError) for entry in listed]

    async def _listed(self, upstream: str) -> list[ModelInfo] | ModelError:
        try:
            listed = await self._models[upstream].models()
        except ModelError as error:
            _log.warning("an upstream's models are not listed", upstream=upstream, code=error.code, reason=str(error))
            return error
        return [entry if self._leads(entry.id, upstream) else _own(entry, upstream) for entry in listed]

    def _leads(self, model: str, upstream: str) -> bool:
        return self._routes.of(model) == Route(upstream)

    def _route(self, prompt: Prompt) -> Route:
        return self._routes.of(prompt.model) or self._routes.refuse(prompt.model)


def _own(entry: ModelInfo, upstream: str) -> ModelInfo:
    return msgspec.structs.replace(entry, id=f"{upstream}/{entry.id}")


def _known_there(prompt: Prompt, route: Route) -> Prompt:
    if not route.prefix:
        return prompt
    return msgspec.structs.replace(prompt, model=prompt.model.removeprefix(route.prefix))


def _known_here(model: str, route: Route) -> str:
    return route.prefix + model if model else ""


async def _renamed(chunks: AsyncGenerator[Chunk, None], route: Route) -> AsyncGenerator[Chunk, None]:
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            chunk.model = _known_here(chunk.model, route)
            yield chunk
