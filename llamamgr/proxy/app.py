"""The public address: its routes, and the application that serves them."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from llamamgr.proxy import catalogue, gate, models, native, replies
from llamamgr.proxy.routes import V1_ROUTES
from llamamgr.proxy.services import SERVICES, Services, services_of
from llamamgr.wire import ollama

__all__ = ["Services", "add_public_routes", "build_app"]


def build_app(services: Services) -> web.Application:
    """The application for the public address. Its runner must have ``handler_cancellation`` on: a client that leaves ends its
    generation.
    """
    app = web.Application(client_max_size=services.config.server.body_limit)
    app[SERVICES] = services
    gate.guard(app, services)
    app.cleanup_ctx.append(models.pulls)
    app.on_cleanup.append(_close_pool)
    add_public_routes(app)
    return app


def add_public_routes(app: web.Application) -> None:
    for method, path, handler in (*_NATIVE_ROUTES, *models.MODEL_ROUTES, *V1_ROUTES):
        app.router.add_route(method, path, handler, expect_handler=gate.welcome)


async def _close_pool(app: web.Application) -> None:
    app[SERVICES].pool.close()


async def root(request: web.Request) -> web.Response:
    return web.Response(body=b"Ollama is running", headers={"Content-Type": "text/plain; charset=utf-8"})


async def version(request: web.Request) -> web.Response:
    """Whose API this is, since clients decide by that whether they may talk to it; our own is in ``/api/system/status``."""
    return replies.native(b'{"version":"%s"}' % ollama.API_VERSION.encode())


async def health(request: web.Request) -> web.Response:
    """200 while requests are taken, 503 once the daemon is stopping."""
    if services_of(request).stopping:
        return replies.native(b'{"status":"stopping"}', 503)
    return replies.native(b'{"status":"ok"}')


_NATIVE_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    *((method, "/", root) for method in ("HEAD", "GET")),
    *((method, "/api/version", version) for method in ("HEAD", "GET")),
    *((method, "/api/tags", catalogue.tags) for method in ("HEAD", "GET")),
    ("GET", "/health", health),
    ("GET", "/api/ps", catalogue.running),
    ("POST", "/api/show", catalogue.show),
    ("POST", "/api/generate", native.generate),
    ("POST", "/api/chat", native.chat),
)
