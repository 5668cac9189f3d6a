"""What the handlers work with."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.core.config import Config
from llamamgr.models.create import Quantizer
from llamamgr.models.index import Index
from llamamgr.proxy.transfers import Transfers
from llamamgr.supervise.lease import Children
from llamamgr.wire.responses_memory import Memory


class Reloaded(msgspec.Struct, frozen=True):
    """What a new configuration changed: models whose children drain, and keys that only a restart brings into force."""

    drained: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


class Services(msgspec.Struct):
    """Given by the composition root. ``started`` is seconds and ``clock`` nanoseconds since the epoch; ``stop`` ends the daemon,
    ``reload`` reads its configuration anew (``ConfigError``: nothing changed).

    ``url`` is where the front listens, once it does.
    ``lag`` is the loop's lateness in seconds at a share of samples, ``answers`` those of ``/v1/responses`` that can be gone on
    from. ``stopping`` turns ``/health`` to 503. ``hostname`` is a Host that a front on loopback accepts besides ``localhost``.
    """

    children: Children
    index: Index
    config: Config
    version: str
    started: float
    stop: Callable[[], None]
    reload: Callable[[], Awaitable[Reloaded]]
    lag: Callable[[float], float] = lambda share: 0.0
    url: str = ""
    stopping: bool = False
    clock: Callable[[], int] = time.time_ns
    hostname: str = msgspec.field(default_factory=socket.gethostname)
    answers: Memory = msgspec.field(default_factory=Memory)
    transfers: Transfers = msgspec.field(default_factory=Transfers)
    quantize: Quantizer | None = None

    async def resolve(self, name: str) -> ModelCard:
        """The model of that name; off the loop when the disk must be looked at. Errors as ``Index.resolve``."""
        known = self.index.recall(name)
        return known if known is not None else await asyncio.to_thread(self.index.resolve, name)


SERVICES = web.AppKey("services", Services)


def services_of(request: web.Request) -> Services:
    return request.app[SERVICES]
