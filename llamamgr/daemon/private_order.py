"""What a private server is made of: the order of a program, and what it turns out to be on this machine."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Literal

import msgspec

from llamamgr.core.cards import Build, Capability, ModelCard
from llamamgr.core.config import Config
from llamamgr.core.errors import MissingToolError
from llamamgr.core.names import is_path
from llamamgr.daemon.oracle import self_test
from llamamgr.host.paths import Paths
from llamamgr.host.settings import load_config
from llamamgr.instances.ladder import engine
from llamamgr.instances.store import Store
from llamamgr.models.index import Index
from llamamgr.models.single import card_of_file
from llamamgr.supervise.lease import LoadOptions
from llamamgr.supervise.wishes import key_of

log = logging.getLogger(__name__)

Transport = Literal["tcp", "unix"]


class Order(msgspec.Struct, frozen=True):
    """What a program asks for. ``model`` is a name of the index or a path, ``ready_timeout`` seconds that a load may take."""

    model: str
    options: LoadOptions
    parallel: int
    ready_timeout: float
    transport: Transport


class Wanted(msgspec.Struct, frozen=True):
    """An order looked up: nothing of it changes any more. ``config`` is that of the user, narrowed down to this model."""

    config: Config
    build: Build
    model: ModelCard
    options: LoadOptions

    @property
    def context(self) -> int:
        """Tokens per slot as the program, the model's settings or the general one say; 0 where none does."""
        settings = self.config.settings_of(self.model.name)
        return self.options.context or settings.context or self.config.context

    @property
    def cache_identity(self) -> str:
        """64 hex digits: the same engine, model and load options, wherever, however often and for how many at once they run."""
        settings = msgspec.structs.replace(self.config.settings_of(self.model.name), parallel=0)
        key = key_of(self.model, self.build, self.options, settings, self.context)
        return hashlib.sha256(msgspec.json.encode(key)).hexdigest()


def look_up(order: Order) -> Wanted:
    """The build and the model of an order. ``MissingToolError`` without a build, ``NotFoundError`` without the model."""
    paths = Paths.of_environment()
    config = load_config(paths)
    path = Path(order.model) if is_path(order.model) else None
    model = card_of_file(path) if path else Index(paths, config).resolve(order.model)
    settings = msgspec.structs.replace(config.settings_of(model.name), parallel=order.parallel, pin=False)
    build = engine(
        Store(paths),
        paths,
        lambda: self_test(paths),
        order.options.instance or settings.instance,
        config.instance,
        log.warning,
    )
    scheduler = msgspec.structs.replace(
        config.scheduler, parallel=order.parallel, load_wait=order.ready_timeout
    )
    own = msgspec.structs.replace(config, scheduler=scheduler, models={model.name: settings}, groups={})
    return Wanted(own, _reached_by(build, order), model, order.options)


class OneBuild(msgspec.Struct, frozen=True):
    """The builds as the supervisor of one private child sees them: this one, and none to go back to."""

    build: Build

    def recall(self, instance: str = "") -> Build:
        return self.build

    __call__ = recall

    def former(self, build: Build) -> str:
        return ""

    def give_up(self, build: Build, reason: str) -> Build | None:
        return None


def _reached_by(build: Build, order: Order) -> Build:
    """The build as this order may use it: one that is told to be without UNIX sockets listens on loopback, behind a key."""
    capability = build.card.capability or Capability("", 0, "", (), {})
    if order.transport == "tcp":
        capability = msgspec.structs.replace(capability, unix_socket=False)
    elif not capability.unix_socket:
        raise MissingToolError(
            f"the llama-server of build {build.key} has no UNIX sockets", 'leave out transport="unix"'
        )
    return Build(msgspec.structs.replace(build.card, capability=capability), build.root)
