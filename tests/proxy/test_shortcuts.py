"""Plain routes are found by one look-up; all others go the whole way through aiohttp."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from llamamgr.proxy.shortcuts import Shortcuts

MARK = web.AppKey("mark", str)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def tell(request: web.Request) -> web.Response:
    assert request.match_info.route.resource is not None
    return web.Response(
        text=f"{request.match_info.route.resource.canonical} {request.match_info.get('name')}"
    )


@web.middleware
async def mark(request: web.Request, handler: Handler) -> web.StreamResponse:
    answer = await handler(request)
    answer.headers["Marked"] = request.app[MARK]
    return answer


@pytest.fixture
def app() -> web.Application:
    app = web.Application(middlewares=[mark])
    app[MARK] = "yes"
    app.router.add_get("/plain", tell)
    app.router.add_get("/with/{name}", tell)
    app.freeze()
    return app


async def answered(app: web.Application, method: str, path: str, **headers: str) -> tuple[int, str, bool]:
    """Status, text, and whether aiohttp's own way was taken."""
    went = []
    whole_way = app._handle

    async def handle(request: web.Request) -> web.StreamResponse:
        went.append(request)
        return await whole_way(request)

    app._handle = handle  # type: ignore[method-assign]
    try:
        answer = await Shortcuts(app).handle(make_mocked_request(method, path, headers, app=app))
    except web.HTTPException as error:
        answer = error
    assert isinstance(answer, web.Response)
    if answer.status == 200:
        assert answer.headers["Marked"] == "yes"
    return answer.status, answer.text or "", bool(went)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_plain_path_is_answered_without_a_search(app, method):
    assert await answered(app, method, "/plain") == (200, "/plain None", False)


@pytest.mark.parametrize(
    ("method", "path", "headers", "told"),
    [
        ("GET", "/with/a", {}, (200, "/with/{name} a", True)),
        ("GET", "/plain?a=1", {}, (200, "/plain None", True)),
        ("GET", "/%70lain", {}, (200, "/plain None", True)),
        ("GET", "/plain/", {}, (404, "404: Not Found", True)),
        ("POST", "/plain", {}, (405, "405: Method Not Allowed", True)),
        ("GET", "/plain", {"Expect": "100-continue"}, (200, "/plain None", True)),
    ],
)
async def test_what_is_not_as_plain_as_can_be_goes_the_whole_way(app, method, path, headers, told):
    assert await answered(app, method, path, **headers) == told
