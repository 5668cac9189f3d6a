"""What the daemon tells of itself over HTTP: ``/api/system/status``."""

from __future__ import annotations

import msgspec
from aiohttp import web

from llamamgr.core.config import parse_address
from llamamgr.proxy import replies
from llamamgr.proxy.services import services_of


class Status(msgspec.Struct, frozen=True):
    """``uptime_secs`` are whole seconds; ``default_model`` is None where none is configured."""

    version: str
    uptime_secs: int
    models_loaded: int
    requests_active: int
    http_endpoint: str
    default_model: str | None
    status: str


async def status(request: web.Request) -> web.Response:
    services = services_of(request)
    children = services.children.status()
    default = services.config.default_model
    told = Status(
        version=services.version,
        uptime_secs=max(0, int(services.clock() / 1e9 - services.started)),
        models_loaded=sum(child.state == "ready" for child in children),
        requests_active=sum(child.busy for child in children),
        http_endpoint=parse_address(services.config.server.host).url,
        default_model=default if default and services.shows(default) else None,
        status="stopping" if services.stopping else "running",
    )
    return replies.native(msgspec.json.encode(told))
