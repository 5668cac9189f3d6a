"""The supervisor's dealings with memory: measured before a start, after a load, while it runs, and once it is gone.

Nothing here holds the plan up: it is told by events when there is something to know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from llamamgr.core.cards import Build, ModelCard
from llamamgr.core.config import ModelConfig
from llamamgr.host import memory as host_memory
from llamamgr.plan.events import HOST, BudgetMeasured, Event, MemoryFreed, Placement
from llamamgr.plan.placement import better
from llamamgr.plan.scheduler import Scheduler
from llamamgr.plan.state import Room
from llamamgr.supervise.estimates import Estimates
from llamamgr.supervise.fitting import Fitting
from llamamgr.supervise.gauge import Gauge
from llamamgr.supervise.lease import LoadOptions
from llamamgr.supervise.measured import Measured
from llamamgr.supervise.running import Running
from llamamgr.supervise.threads import in_thread
from llamamgr.supervise.wishes import Wish, variant_of

log = logging.getLogger(__name__)

WAIT_SECONDS = 5.0  # for a driver to free what a process held that is gone
_POLL = 0.05
_LIST_POLL = 0.5  # where only the engine's own list tells, which costs a process
_LOOK_SECONDS = 1.0
_SAMPLE_EVERY = 5  # looks


class Memory:
    """One per supervisor; ``post`` takes its events. ``running`` is the supervisor's own table."""

    def __init__(
        self,
        plan: Scheduler,
        running: Mapping[str, Running],
        estimates: Estimates,
        measured: Measured,
        post: Callable[[Event], None],
    ) -> None:
        self.gauge = Gauge()
        self.fitting = Fitting()
        self._plan = plan
        self._running = running
        self._estimates = estimates
        self._measured = measured
        self._post = post
        self._stirs = 0
        self._left: dict[str, tuple[int, dict[str, int]]] = {}  # pid and holdings of children that are gone

    async def places(
        self, model: ModelCard, build: Build, options: LoadOptions, settings: ModelConfig
    ) -> tuple[Wish, tuple[Placement, ...]]:
        """The child to be started for a request and where it may live, by what is free now. Tells the plan the budget."""
        await self._measure(build)
        files = await in_thread(self._estimates.files, model, options, settings)
        budget = self._plan.budget
        room = Room(budget, [child.placement for child in self._plan.children.values() if child.pinned])
        gpus = {name: max(0, room.left.get(name, 0)) for name in self.gauge.usable(build, settings)}
        now = Room(budget, self._plan.taken()).left
        left = {name: max(0, now[name]) for name in gpus}
        wish = self._estimates.wish(model, build, options, settings, files, budget[HOST], gpus)
        known = self._estimates.known(wish)
        if self._estimates.is_open(wish, known, budget[HOST], gpus):
            reserve = self._estimates.config.scheduler.gpu_reserve
            on = {} if options.gpu_layers == 0 else gpus
            known = better(known, await self.fitting.known(wish, on, reserve, is_idle=left == gpus))
        return wish, self._estimates.places(wish, known, gpus, left)

    # -- a child's life

    def before_load(self, running: Running) -> None:
        """Note what is free, so that a driver that tells nothing of processes can be read by the difference."""
        devices = running.placement.gpus
        if not devices:
            return
        self._stirs += 1
        running.stirred = self._stirs
        others = [one for one in self._running.values() if set(one.placement.gpus) & set(devices)]
        if all(one.ready for one in others) and not self._plan.residues:
            running.free_before = {
                name: gpu.free for name in devices if (gpu := self.gauge.gpus.get(name)) is not None
            }

    async def after_load(self, running: Running) -> None:
        """Measure what a child took that has just become ready."""
        if running.placement.gpus:
            await self._read(running.wish.build, fresh=0.0)
            if running.stirred == self._stirs:
                running.grew = {
                    name: max(0, free - self.gauge.gpus[name].free)
                    for name, free in running.free_before.items()
                }
        self._note(running)

    def after_exit(self, running: Running) -> None:
        """Remember what it held, for those who wait until that is free."""
        if running.placement.gpus:
            self._stirs += 1
            self._left[running.child.id] = (running.child.pid, self.gauge.held(running))

    async def until_freed(self, child: str, placement: Placement, is_closing: Callable[[], bool]) -> None:
        """Wait until the GPUs have back what ``child`` held, a few seconds at most; then tell the plan."""
        pid, held = self._left.pop(child, (0, {}))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_SECONDS
        is_told = all(gpu.identity for name, gpu in self.gauge.gpus.items() if name in held)
        while held and not is_closing():
            await self._read(None, fresh=0.0)
            if self.gauge.is_free_of(placement, held, pid, self._running.values()):
                break
            if loop.time() >= deadline:
                log.warning(
                    "%s still not free %.0f s after the child %s (pid %d) ended; going on",
                    ", ".join(held), WAIT_SECONDS, child, pid,
                )  # fmt: skip
                break
            await asyncio.sleep(_POLL if is_told else _LIST_POLL)
        self._post(MemoryFreed(child))

    async def watch(self) -> None:
        """For ever: measure the budget anew while somebody waits for room, and remember the most that each child took."""
        looks = 0
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            looks += 1
            if self._plan.lacks_room():
                await self._measure(None)
            if looks % _SAMPLE_EVERY == 0:
                await self._sample()

    async def _sample(self) -> None:
        ready = [one for one in self._running.values() if one.ready]
        if any(one.placement.gpus for one in ready):
            await self._read(None)
        for one in ready:
            self._note(one)
        await in_thread(self._measured.save)

    # -- reading

    async def _measure(self, build: Build | None) -> None:
        if build is None or (build.card.capability and build.card.capability.devices):
            await self._read(build)
        pids = [one.child.pid for one in self._running.values()]
        self._post(BudgetMeasured(self.gauge.budget(self._estimates.config.scheduler, pids)))

    async def _read(self, build: Build | None, fresh: float | None = None) -> None:
        if build is None:
            build = next((one.wish.build for one in self._running.values() if one.placement.gpus), None)
        leaving = [residue.placement for residue in self._plan.residues.values()]
        running = list(self._running.values())
        if fresh is None:
            await self.gauge.read(running, leaving, build)
        else:
            await self.gauge.read(running, leaving, build, fresh)

    def _note(self, running: Running) -> None:
        pid = running.child.pid
        on_gpus = running.placement.gpus and running.placement.tier == "gpu"
        # what of it is a mapped file was only read on its way to the GPU
        main = host_memory.unshared(pid) if on_gpus else host_memory.resident(pid)
        if main:
            taken = {HOST: main} | self.gauge.held(running)
            wish = running.wish
            self._measured.note(
                wish, variant_of(wish), running.placement, taken, running.ready - running.started
            )
