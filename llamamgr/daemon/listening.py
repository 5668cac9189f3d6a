"""Where the daemon answers: the front for clients, and the control socket for the command line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from llamamgr.core.config import Address
from llamamgr.daemon.address import cannot_listen
from llamamgr.daemon.tls import Tls
from llamamgr.host.descriptors import allow_descriptors
from llamamgr.host.files import discard
from llamamgr.host.settings import place_of
from llamamgr.proxy.app import build_app
from llamamgr.proxy.connections import FrontRunner
from llamamgr.proxy.control import build_control_app
from llamamgr.proxy.services import Services
from llamamgr.proxy.site import FrontSite

_CLOSE_SECONDS = 1.0  # for connections that have nothing in flight any more
_DESCRIPTORS_EACH = 2  # a client's connection, and that to an engine
_DESCRIPTORS_OWN = 128  # children's pipes, logs, the index, libraries


@contextlib.asynccontextmanager
async def front(services: Services, address: Address, tls: Tls | None) -> AsyncIterator[Address]:
    wanted = _DESCRIPTORS_EACH * services.config.server.max_connections + _DESCRIPTORS_OWN
    most = (allow_descriptors(wanted) - _DESCRIPTORS_OWN) // _DESCRIPTORS_EACH
    runner = FrontRunner(
        build_app(services),
        lambda: services.config.server,
        services.metrics,
        max(1, most),
        shutdown_timeout=_CLOSE_SECONDS,
    )
    await runner.setup()
    try:
        try:
            context = tls.context if tls is not None else None
            wait = services.config.server.head_wait
            await FrontSite(runner, address.host, address.port, context, handshake_wait=wait).start()
        except OSError as error:
            raise cannot_listen(address, error, place_of("server.host", services.flags)) from None
        port = runner.addresses[0][1]
        yield Address(address.host, port, address.tls)
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def control(services: Services, path: Path) -> AsyncIterator[None]:
    discard(path)  # ours: the lock is held
    runner = web.AppRunner(
        build_control_app(services),
        handle_signals=False,
        access_log=None,
        shutdown_timeout=_CLOSE_SECONDS,
        handler_cancellation=True,
    )
    await runner.setup()
    try:
        former = os.umask(0o177)
        try:
            await web.UnixSite(runner, str(path), backlog=128).start()
        finally:
            os.umask(former)
        yield
    finally:
        discard(path)
        await runner.cleanup()
