"""What the handlers work with."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
from aiohttp import web

from llamamgr.core.advice import Advice
from llamamgr.core.cards import ModelCard
from llamamgr.core.config import Config
from llamamgr.core.errors import NotFoundError
from llamamgr.core.hub import parse_model_name
from llamamgr.core.keys import Key
from llamamgr.models.create import Quantizer
from llamamgr.models.index import Index
from llamamgr.proxy.keyring import Keyring
from llamamgr.proxy.making import Makers
from llamamgr.proxy.media import Fetching
from llamamgr.proxy.metrics import Metrics
from llamamgr.proxy.pool import Pool
from llamamgr.proxy.transfers import Transfers
from llamamgr.proxy.visit import current
from llamamgr.supervise.lease import Children
from llamamgr.supervise.tally import Tally
from llamamgr.wire.errors import DialectError
from llamamgr.wire.persona import Persona, persona_of, with_settings
from llamamgr.wire.responses_memory import Memory


class Reloaded(msgspec.Struct, frozen=True):
    """What a new configuration changed: models whose children drain, and keys that only a restart brings into force; and which of
    its settings will not do what they are there for.
    """

    drained: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()


class OutOfScopeError(DialectError):
    """The visitor's key is not for this model, whether there is one of that name or not: who may not use it is not told."""

    def __init__(self, name: str) -> None:
        super().__init__(
            403, f'this API key may not use the model "{name}"', param="model", code="model_not_allowed"
        )


class Services(msgspec.Struct):
    """Given by the composition root. ``started`` is seconds and ``clock`` nanoseconds since the epoch; ``stop`` ends the daemon,
    ``reload`` reads its configuration anew (``ConfigError``: nothing changed).

    ``url`` is where the front listens, once it does, ``flags`` what a command line said of it, by dotted key.
    ``lag`` is the loop's lateness in seconds at a share of samples, ``answers`` those of ``/v1/responses`` that can be gone on
    from, ``pool`` connections to children, ``fetching`` what gets media by address. ``reload_keys`` reads the API keys anew and
    tells how many there are. ``stopping`` turns ``/health`` to 503. ``hostname`` is a Host that a front on loopback takes besides
    ``localhost``. ``metrics`` are what the front counts, ``tally`` what the supervisor does.
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
    flags: dict[str, str] = {}
    stopping: bool = False
    clock: Callable[[], int] = time.time_ns
    hostname: str = msgspec.field(default_factory=socket.gethostname)
    answers: Memory = msgspec.field(default_factory=Memory)
    transfers: Transfers = msgspec.field(default_factory=Transfers)
    makers: Makers = msgspec.field(default_factory=Makers)
    pool: Pool = msgspec.field(default_factory=Pool)
    fetching: Fetching = msgspec.field(default_factory=Fetching)
    quantize: Quantizer | None = None
    keyring: Keyring = msgspec.field(default_factory=Keyring)
    reload_keys: Callable[[], Awaitable[int]] | None = None
    metrics: Metrics = msgspec.field(default_factory=Metrics)
    tally: Tally = msgspec.field(default_factory=Tally)

    async def enclosures(self, addresses: Sequence[str]) -> dict[str, str]:
        """Media by address, enclosed: all of a request no longer than a body may be. Errors as ``Fetching``."""
        return await self.fetching.enclosures(addresses, self.config.server.body_limit)

    async def resolve(self, name: str) -> ModelCard:
        """The model of that name, to be asked something. Errors as ``find``, and ``DialectError`` 403 for one of a cloud."""
        try:
            return await self.find(name)
        except NotFoundError:
            if is_of_cloud(name):
                raise DialectError(403, "ollama cloud is disabled: remote model is unavailable") from None
            raise

    async def find(self, name: str) -> ModelCard:
        """The model of that name, for the request that is being answered; off the loop when the disk must be looked at.

        Errors as ``Index.resolve``, and ``OutOfScopeError`` when the visitor's key is not for it.
        """
        try:
            known = self.index.recall(name)
            card = known if known is not None else await asyncio.to_thread(self.index.resolve, name)
        except NotFoundError:
            self.claim(name.strip())
            raise
        self._claim(card.name, name)
        return card

    def claim(self, name: str) -> None:
        """The request being answered is for a model of that name, which need not be there. Errors as ``resolve``."""
        self._claim(parse_model_name(name).short, name)

    def shows(self, model: str) -> bool:
        """True when the visitor may know of the model called ``model`` (with its tag)."""
        return self._may_use(current().key, model)

    def visible(self, cards: Iterable[ModelCard]) -> list[ModelCard]:
        """Those of ``cards`` that the visitor may know of."""
        return [card for card in cards if self.shows(card.name)]

    async def listed(self, spelled: Callable[[str], str] = str) -> list[tuple[str, ModelCard]]:
        """What the visitor may know of, latest first: each model by its name, then by its aliases as ``spelled`` writes them.

        An alias that reads like the name of a model is not told. The folders are looked at now.
        """
        listing, aliases = await asyncio.to_thread(lambda: (self.index.refresh(), self.index.aliases()))
        names = {card.name.lower() for card in listing.models}
        found: list[tuple[str, ModelCard]] = []
        for card in sorted(self.visible(listing.models), key=lambda card: -card.modified):
            others = [spelled(alias) for alias in aliases.get(card.name, ())]
            found.append((card.name, card))
            found += [(name, card) for name in others if name.lower() not in names]
        return found

    def _claim(self, model: str, asked: str) -> None:
        visit = current()
        if not self._may_use(visit.key, model):
            raise OutOfScopeError(asked)
        visit.model = model

    def _may_use(self, key: Key | None, model: str) -> bool:
        return key is None or not key.models or key.may_use(model, self.config.aliases)

    def persona_of(self, model: ModelCard) -> Persona:
        """What the model's Modelfile and its settings add to a request, as they are now."""
        return with_settings(persona_of(model), self.config.settings_of(model.name))


SERVICES = web.AppKey("services", Services)


def is_of_cloud(name: str) -> bool:
    """Whether Ollama would ask its cloud for a model of that name."""
    return name.strip().lower().endswith(("-cloud", ":cloud"))


def services_of(request: web.Request) -> Services:
    return request.app[SERVICES]
