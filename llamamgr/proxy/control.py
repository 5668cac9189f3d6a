"""The control API, on the socket in the 0700 runtime folder only: the public API and what the command line asks besides."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.core.errors import NotFoundError, UsageError
from llamamgr.proxy import gate, replies
from llamamgr.proxy.app import add_public_routes
from llamamgr.proxy.models import loaded_as
from llamamgr.proxy.services import SERVICES, Services, services_of
from llamamgr.supervise.lease import ChildStatus

_TEXTS = ("chat_template", "template", "system", "messages", "licenses")


class _Ping(msgspec.Struct):
    version: str
    pid: int
    started: float
    stopping: bool
    loop_lag_p99: float
    url: str
    flags: dict[str, str]


class _ModelBody(msgspec.Struct):
    model: str
    now: bool = False


def build_control_app(services: Services) -> web.Application:
    """All public routes and ``/control/*``. Who reaches the socket is this user, so Host and Origin are not looked at."""
    app = web.Application(client_max_size=services.config.server.body_limit)
    app[SERVICES] = services
    gate.attend(app, services)
    add_public_routes(app)
    app.router.add_route("GET", "/control/ping", ping)
    app.router.add_route("GET", "/control/ps", ps)
    app.router.add_route("POST", "/control/stop-model", stop_model)
    app.router.add_route("POST", "/control/reload", reload)
    app.router.add_route("POST", "/control/keys", reload_keys)
    app.router.add_route("POST", "/control/shutdown", shutdown)
    return app


async def ping(request: web.Request) -> web.Response:
    services = services_of(request)
    return _json(
        _Ping(
            services.version,
            os.getpid(),
            services.started,
            services.stopping,
            services.lag(0.99),
            services.url,
            services.flags,
        )
    )


async def ps(request: web.Request) -> web.Response:
    """``{"children": [ChildStatus…]}``; a child that never expires has ``expires`` null, which is what JSON has for infinity."""
    children = services_of(request).children
    await children.look()
    return _json({"children": [_told(child) for child in children.status()]})


def _told(child: ChildStatus) -> dict[str, Any]:
    """A child without the texts of its model, which `/api/show` tells."""
    told: dict[str, Any] = msgspec.to_builtins(child)
    told["model"] = {key: value for key, value in told["model"].items() if key not in _TEXTS}
    return told


async def stop_model(request: web.Request) -> web.Response:
    """``{"model": name, "now": bool}`` → ``{"stopped": bool}``: False when none ran. ``now``: do not wait for its requests."""
    try:
        body = msgspec.json.decode(await request.read(), type=_ModelBody)
    except msgspec.DecodeError as error:
        raise UsageError(f'the body must be {{"model": name}}: {error}') from None
    services = services_of(request)
    stopped = [
        await services.children.unload(model, now=body.now) for model in await _meant(services, body.model)
    ]
    return _json({"stopped": any(stopped)})


async def _meant(services: Services, name: str) -> list[ModelCard]:
    """What is loaded by that name, whose model may be gone or another one by now, and what the index has of it."""
    loaded = loaded_as(services.children, name)
    try:
        return [*loaded, await services.resolve(name)]
    except NotFoundError:
        if not loaded:
            raise
        return loaded


async def reload(request: web.Request) -> web.Response:
    """Read the configuration anew: ``Reloaded``, or 500 with file and key when it is wrong."""
    return _json(await services_of(request).reload())


async def reload_keys(request: web.Request) -> web.Response:
    """Read the API keys anew: ``{"keys": how many}``, or 500 with file and key when one is wrong."""
    reread = services_of(request).reload_keys
    return _json({"keys": await reread() if reread is not None else 0})


async def shutdown(request: web.Request) -> web.Response:
    """Ask the daemon to end; it answers first."""
    services = services_of(request)
    services.stopping = True
    services.stop()
    return _json({"stopping": True})


def _json(value: Any) -> web.Response:
    return replies.native(msgspec.json.encode(value))
