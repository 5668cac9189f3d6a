"""The public address: its routes, and the application that serves them."""

from __future__ import annotations

from aiohttp import web

from llamamgr.proxy import catalogue, gate, models, native, replies
from llamamgr.proxy.routes import V1_ROUTES
from llamamgr.proxy.services import SERVICES, Services, services_of

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
    for method in ("HEAD", "GET"):
        app.router.add_route(method, "/", root)
        app.router.add_route(method, "/api/version", version)
        app.router.add_route(method, "/api/tags", catalogue.tags)
    app.router.add_route("GET", "/health", health)
    app.router.add_route("GET", "/api/ps", catalogue.running)
    app.router.add_route("POST", "/api/show", catalogue.show)
    app.router.add_route("POST", "/api/generate", native.generate)
    app.router.add_route("POST", "/api/chat", native.chat)
    models.add_model_routes(app)
    for method, path, handler in V1_ROUTES:
        app.router.add_route(method, path, handler)


async def _close_pool(app: web.Application) -> None:
    app[SERVICES].pool.close()


async def root(request: web.Request) -> web.Response:
    return web.Response(body=b"Ollama is running", headers={"Content-Type": "text/plain; charset=utf-8"})


async def version(request: web.Request) -> web.Response:
    return replies.native(b'{"version":"%s"}' % services_of(request).version.encode())


async def health(request: web.Request) -> web.Response:
    """200 while requests are taken, 503 once the daemon is stopping."""
    if services_of(request).stopping:
        return replies.native(b'{"status":"stopping"}', 503)
    return replies.native(b'{"status":"ok"}')
