"""/openapi.json and /docs: the API's description, for programs and for people."""

from aiohttp import web

from api.context import DESCRIPTION


async def openapi(request: web.Request) -> web.StreamResponse:
    """This description, as OpenAPI 3.1."""
    return web.Response(body=request.app[DESCRIPTION].openapi, content_type="application/json")


async def docs(request: web.Request) -> web.StreamResponse:
    """This description, as a page to read; it needs nothing from elsewhere."""
    return web.Response(text=request.app[DESCRIPTION].page, content_type="text/html")
