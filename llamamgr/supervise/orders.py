"""What requests for one model ask of the plan, remembered from one request to the next.

Most requests ask for what the one before them asked: the same model, the same wishes, under the same configuration and build. What
was worked out then holds as long as these are the very same objects: a new configuration, a new look at the models' folders and a
new build each make new ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llamamgr.core.cards import Build, ModelCard
from llamamgr.core.config import Config
from llamamgr.plan.events import ChildKey, Placement, Requested
from llamamgr.plan.scheduler import Scheduler
from llamamgr.supervise.estimates import Estimates
from llamamgr.supervise.lease import Builds, LoadOptions
from llamamgr.supervise.memory import Memory
from llamamgr.supervise.running import Running
from llamamgr.supervise.threads import in_thread
from llamamgr.supervise.wishes import Wish, flag_arguments, merged, stay_of

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
    """Works orders out, and keeps the last one for each model that has a child."""

    def __init__(
        self,
        plan: Scheduler,
        running: Mapping[str, Running],
        builds: Builds,
        estimates: Estimates,
        memory: Memory,
    ) -> None:
        self._plan = plan
        self._running = running
        self._builds = builds
        self._estimates = estimates
        self._memory = memory
        self._known: dict[int, Order] = {}  # by id: an order keeps its model, so no other can have it

    def recall(self, model: ModelCard, asked: LoadOptions, config: Config) -> Order | None:
        """The last order for this model, if it was for the same and its child and build still are what they were."""
        order = self._known.get(id(model))
        if order is None or order.wish.model is not model or order.config is not config:
            return None
        if (order.asked is not asked and order.asked != asked) or not self._serves(order.child):
            return None
        return order if self._builds.recall(order.wish.options.instance) is order.wish.build else None

    async def work_out(self, model: ModelCard, asked: LoadOptions, config: Config) -> Order:
        """What a request for ``model`` asks of the plan now. Errors as ``Builds``, and ``ConfigError`` for flags of the model."""
        settings = config.settings_of(model.name)
        options = merged(asked, settings)
        build = await self.build_of(options.instance)
        conflicts: frozenset[str] = frozenset()
        if any(group.exclusive for group in config.groups.values()):
            conflicts = await in_thread(self._estimates.conflicts, model)
        wanted = self._estimates.key(model, build, options, settings)
        child = self._serving(wanted)
        if child:
            running = self._running[child]
            wish = Wish(model, build, running.wish.shape, options, settings, running.wish.asked)
            places: tuple[Placement, ...] = (running.placement,)
        else:
            flag_arguments(settings, build)  # a wrong flag is told before anything waits
            wish, places = await self._memory.places(model, build, options, settings)
            wish = msgspec.structs.replace(wish, asked=asked.context)
        demand = self._estimates.demand(0, wish, wanted, places, None, conflicts)
        order = Order(asked, config, wish, demand, child)
        if child:
            self._remember(order)
        return order

    async def build_of(self, instance: str) -> Build:
        """The build that ``instance`` runs now."""
        known = self._builds.recall(instance)
        return known if known is not None else await in_thread(self._builds, instance)

    def _remember(self, order: Order) -> None:
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[id(order.wish.model)] = order

    def _serving(self, wanted: ChildKey) -> str:
        """The running child that requests for ``wanted`` can use, "" when there is none."""
        for child in self._running:
            if self._serves(child) and self._plan.children[child].key.serves(wanted):
                return child
        return ""

    def _serves(self, child_id: str) -> bool:
        child = self._plan.children.get(child_id)
        return child is not None and child.state in ("loading", "ready") and not child.superseded
