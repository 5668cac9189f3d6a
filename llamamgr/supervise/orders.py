"""What requests for one model ask of the plan, remembered from one request to the next.

Most requests ask for what the one before them asked: the same model, the same wishes, under the same configuration and build. What
was worked out then holds as long as these are the very same objects: a new configuration, a new look at the models' folders and a
new build each make new ones.
"""

from __future__ import annotations

import msgspec

from llamamgr.core.cards import ModelCard
from llamamgr.core.config import Config
from llamamgr.plan.events import Requested
from llamamgr.supervise.lease import LoadOptions
from llamamgr.supervise.wishes import Wish, stay_of

_MOST = 256


class Order(msgspec.Struct, frozen=True):
    """A request that has no number yet. ``child`` is the one that runs for it, "" when one must be started; ``asked`` and
    ``config`` are what it was worked out from.
    """

    asked: LoadOptions
    config: Config
    wish: Wish
    demand: Requested
    child: str = ""

    def numbered(self, request: int, keep_alive: float | None, priority: int) -> Requested:
        """The event for the plan; ``keep_alive`` is the request's own, None for none, ``priority`` comes on top of the model's."""
        stay = self.demand.keep_alive
        if keep_alive is not None:
            stay = stay_of(self.config, self.wish.settings, keep_alive)
        priority += self.demand.priority
        return msgspec.structs.replace(self.demand, request=request, keep_alive=stay, priority=priority)


class Orders:
    """The last order for each model that has a child."""

    def __init__(self) -> None:
        self._known: dict[int, Order] = {}  # by id: an order keeps its model, so no other can have it

    def recall(self, model: ModelCard, asked: LoadOptions, config: Config) -> Order | None:
        """The order for the same once more; whether its child still serves and its build is current is not looked at."""
        order = self._known.get(id(model))
        if (
            order is None
            or order.wish.model is not model
            or order.config is not config
            or order.asked != asked
        ):
            return None
        return order

    def remember(self, order: Order) -> None:
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[id(order.wish.model)] = order
