"""Routes whose path has no part that varies, found by one look-up.

aiohttp asks its resources in turn, makes a new match for every request and passes it through a middleware of its own: several
microseconds, and every time the same. What comes of it is kept here, one match for each such route.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web_urldispatcher import PlainResource, UrlMappingMatchInfo


class Shortcuts:
    """``handle`` does for a request what ``app`` would; all that is not as plain as can be goes the whole way."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._known: dict[tuple[str, str], tuple[UrlMappingMatchInfo, Handler]] = {}
        for resource in app.router.resources():
            if isinstance(resource, PlainResource):
                for route in resource:
                    self._known[route.method, resource.canonical] = _match(app, route), _handler(app, route)

    def handle(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        assert isinstance(request, web.Request)
        known = self._known.get((request.method, request.raw_path))
        if known is None or "Expect" in request.headers:
            return self._app._handle(request)
        request._match_info, handler = known
        return handler(request)


def _match(app: web.Application, route: web.AbstractRoute) -> UrlMappingMatchInfo:
    match = UrlMappingMatchInfo({}, route)
    match.add_app(app)
    match.freeze()
    match.current_app = app
    return match


def _handler(app: web.Application, route: web.AbstractRoute) -> Handler:
    handler: Any = route.handler
    for middleware in reversed(app.middlewares):
        handler = functools.partial(middleware, handler=handler)
    return cast("Handler", handler)
