"""What the daemon tells of itself over HTTP: ``/api/system/status``."""

from __future__ import annotations

import math

import msgspec
from aiohttp import web

from llamamgr.proxy import replies
from llamamgr.proxy.services import services_of
from llamamgr.supervise.lease import ChildStatus


class Loaded(msgspec.Struct, frozen=True):
    """One child: what ``llamamgr ps`` shows. Sizes are bytes, ``expires`` is seconds since the epoch, None = never."""

    model: str
    state: str
    instance: str
    build: str
    pid: int
    memory: int
    memory_gpu: int
    memory_planned: int
    devices: tuple[str, ...]
    context: int
    slots: int
    busy: int
    queued: int
    tokens_per_second: float
    expires: float | None


class Status(msgspec.Struct, frozen=True):
    """``uptime_secs`` are whole seconds; ``default_model`` is None where none is configured."""

    version: str
    uptime_secs: int
    models_loaded: int
    requests_active: int
    http_endpoint: str
    default_model: str | None
    status: str
    models: tuple[Loaded, ...] = ()


async def status(request: web.Request) -> web.Response:
    services = services_of(request)
    await services.children.look()
    children = services.children.status()
    default = services.config.default_model
    told = Status(
        version=services.version,
        uptime_secs=max(0, int(services.clock() / 1e9 - services.started)),
        models_loaded=sum(child.state == "ready" for child in children),
        requests_active=sum(child.busy for child in children),
        http_endpoint=services.url or services.config.server.address.url,
        default_model=default if default and services.shows(default) else None,
        status="stopping" if services.stopping else "running",
        models=tuple(_loaded(child) for child in children if services.shows(child.model.name)),
    )
    return replies.native(msgspec.json.encode(told))


def _loaded(child: ChildStatus) -> Loaded:
    return Loaded(
        model=child.model.name,
        state=child.state,
        instance=child.build.partition("/")[0],
        build=f"b{child.build_number}",
        pid=child.pid,
        memory=child.memory,
        memory_gpu=child.memory_gpu,
        memory_planned=child.memory_planned,
        devices=child.devices,
        context=child.context,
        slots=child.slots,
        busy=child.busy,
        queued=child.queued,
        tokens_per_second=child.tokens_per_second,
        expires=child.expires if child.expires < math.inf else None,
    )
