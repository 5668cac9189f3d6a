"""What a request asks of the plan: the child it would need, where that may live, what it takes and what bringing it back costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from llamamgr.core.cards import Build, ModelCard
from llamamgr.core.config import Config, ModelConfig
from llamamgr.host import memory as host_memory
from llamamgr.host.gpus import gpu_memory
from llamamgr.plan.events import HOST, ChildKey, Placement, Requested
from llamamgr.plan.memory import DEFAULT_CONTEXT, MIB, Shape, best_shape
from llamamgr.plan.placement import placements
from llamamgr.supervise.lease import LoadOptions
from llamamgr.supervise.measured import Measured
from llamamgr.supervise.wishes import Wish, conflicts_of, key_of, stay_of


class Estimates:
    """Joins the configuration, the machine and what was measured; it decides nothing.

    ``card_of`` is the model of a name in the configuration's groups.
    """

    def __init__(
        self, config: Config, measured: Measured, card_of: Callable[[str], ModelCard | None] | None = None
    ) -> None:
        self.config = config
        self._measured = measured
        self._card_of = card_of or (lambda name: None)
        self._gpus: dict[str, int] = {}

    def look_at_gpus(self) -> None:
        """Ask the system what is free on each GPU; blocking."""
        self._gpus = {name: memory.free for name, memory in gpu_memory().items()}

    def key(self, model: ModelCard, build: Build, options: LoadOptions, settings: ModelConfig) -> ChildKey:
        """The child that would do. A request that names no context wants the default: somebody else's small one would not do."""
        wanted = options.context or DEFAULT_CONTEXT
        context = min(wanted, model.context) if model.context else wanted
        return key_of(model, build, options, settings, context)

    def wish(
        self,
        model: ModelCard,
        build: Build,
        options: LoadOptions,
        settings: ModelConfig,
        budget: Mapping[str, int],
    ) -> Wish:
        """The request with the shape of a child to be started for it: as many slots as ``budget`` holds."""
        slots = settings.parallel or self.config.scheduler.parallel
        whole = sum(budget.values())
        shape = best_shape(model, options.context, slots, whole, lambda one: self._need(model, build, one))
        return Wish(model, build, shape, options, settings)

    def demand(
        self,
        request: int,
        wish: Wish,
        key: ChildKey,
        places: tuple[Placement, ...],
        keep_alive: float | None,
        priority: int = 0,
    ) -> Requested:
        """The event for the plan. ``places`` are where the child lives or may live; ``priority`` is the request's own."""
        record = self._measured.record(wish.model, wish.build, wish.shape)
        return Requested(
            request=request,
            key=key,
            placements=places,
            slots=wish.shape.parallel,
            keep_alive=stay_of(self.config, wish.settings, keep_alive),
            start_key=msgspec.structs.replace(key, context=max(key.context, wish.shape.context)),
            priority=wish.settings.priority + priority,
            conflicts=conflicts_of(wish.model, self.config, self._card_of),
            reload_seconds=record.load_seconds if record else 1.0,
            pinned=wish.settings.pin,
        )

    def places(self, wish: Wish, budget: Mapping[str, int]) -> tuple[Placement, ...]:
        """Where a child of ``wish`` may live, best first: only GPUs that its build can use."""
        capability = wish.build.card.capability
        mine = {line.partition(":")[0] for line in capability.devices} if capability else set()
        gpus = {name: size for name, size in budget.items() if name in mine}
        return placements(wish.shape, gpus, on_gpu=wish.options.gpu_layers != 0)

    def budget(self, held: Iterable[Placement], pids: Iterable[int]) -> dict[str, int]:
        """What is free now and what children hold already (``held`` on GPUs, ``pids`` in main memory), less the reserve."""
        limits = self.config.scheduler
        taken: dict[str, int] = {}
        for placement in held:
            for device, size in placement.need.items():
                taken[device] = taken.get(device, 0) + size
        found = {name: free + taken.get(name, 0) - limits.gpu_reserve for name, free in self._gpus.items()}
        resident = sum(host_memory.resident(pid) for pid in pids)
        found[HOST] = limits.memory or host_memory.available() + resident - limits.reserve
        return found

    def _need(self, model: ModelCard, build: Build, shape: Shape) -> int:
        """What such a child took when it ran before (and its prompt cache, which may not have been full), else the estimate."""
        record = self._measured.record(model, build, shape)
        return record.memory + shape.prompt_cache_mib * MIB if record else shape.need
