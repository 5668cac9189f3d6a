"""What is free now, what children hold, and so what all children together may take. It asks off the loop and decides nothing.

The budget of a GPU is its size less the reserve and less what is *foreign*: held by other programs and by the driver. Foreign is
what is left of the used memory once our children's shares are taken off. Those are told by process where the driver can (not in a
container whose process numbers differ); else a child's share is what was free before its load and is not after it, and foreign
is looked at while no child of that GPU is loading and none has just gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping

from llamamgr.core.cards import Build
from llamamgr.core.config import ModelConfig, SchedulerConfig
from llamamgr.core.errors import LlamamgrError
from llamamgr.host import memory as host_memory
from llamamgr.host.gpus import Gpu, gpus, held_anywhere, listed
from llamamgr.host.processes import capture, scrubbed_environment
from llamamgr.plan.events import HOST, Placement
from llamamgr.supervise.devices import is_allowed
from llamamgr.supervise.running import Running
from llamamgr.supervise.threads import in_thread

log = logging.getLogger(__name__)

_FRESH = 0.2  # seconds for which one reading serves all who ask
_LIST_FRESH = 2.0  # the same for an engine's own list, which costs a process
_LIST_DEADLINE = 10.0
_SLACK = 32 * 1024 * 1024
_FREED = 0.9  # of what a child held; the driver rounds, and keeps a little


class Gauge:
    """The last reading of every GPU, and what it means."""

    def __init__(self) -> None:
        self.gpus: dict[str, Gpu] = {}
        self.foreign: dict[str, int] = {}
        self._told: dict[int, int] = {}  # bytes by process on devices that cannot be told apart
        self._lists: dict[str, tuple[float, dict[str, Gpu]]] = {}
        self._read_at = 0.0
        self._turn = asyncio.Lock()

    async def read(
        self,
        running: Iterable[Running],
        leaving: Iterable[Placement] = (),
        build: Build | None = None,
        fresh: float = _FRESH,
    ) -> None:
        """Look at the GPUs now, unless somebody did ``fresh`` seconds ago; also at those that only ``build`` itself can tell."""
        async with self._turn:
            if time.monotonic() - self._read_at < fresh and (build is None or self.of(build)):
                return
            pids = [one.child.pid for one in running if one.child.pid]
            try:
                found, self._told = await in_thread(self._ask, pids, build)
            except Exception:
                # a driver's surprise must not keep every model from starting; the last reading stands
                log.exception("the GPUs' memory could not be read")
                found = {}
            self._read_at = time.monotonic()
            self.gpus |= found
            gone = [placement.gpus for placement in leaving]
            for name, gpu in found.items():
                self._note(
                    gpu, [one for one in running if name in one.placement.gpus], any(name in g for g in gone)
                )

    def of(self, build: Build) -> dict[str, Gpu]:
        """The GPUs that ``build`` can use, by its own names, as far as their memory is known."""
        capability = build.card.capability
        mine = [line.partition(":")[0] for line in capability.devices] if capability else []
        known = [self.gpus[name] for name in mine if name in self.gpus]
        # a build for two interfaces sees each GPU twice: those the system tells are the surer ones
        told = [gpu for gpu in known if gpu.identity] or known
        return {gpu.name: gpu for gpu in told}

    def usable(self, build: Build, settings: ModelConfig) -> list[str]:
        """The GPUs that a model with ``settings`` may use on ``build``."""
        return [name for name in self.of(build) if is_allowed(name, settings)]

    def budget(self, limits: SchedulerConfig, pids: Iterable[int]) -> dict[str, int]:
        """Bytes that all children together may take, by device."""
        found = {
            name: max(0, gpu.total - self.foreign.get(name, 0) - limits.gpu_reserve)
            for name, gpu in self.gpus.items()
        }
        own = sum(host_memory.unshared(pid) for pid in pids)
        found[HOST] = limits.memory or host_memory.available() + own - limits.reserve
        return found

    def held(self, one: Running) -> dict[str, int]:
        """What a child holds on each of its GPUs; empty when that is not known."""
        pid, devices = one.child.pid, one.placement.gpus
        by_pid = {name: gpu.held[pid] for name in devices if (gpu := self.gpus.get(name)) and pid in gpu.held}
        if by_pid:
            return by_pid
        told = self._told.get(pid, 0)
        planned = sum(one.placement.need[name] for name in devices)
        if told and planned:
            return {name: told * one.placement.need[name] // planned for name in devices}
        return dict(one.grew)

    def is_free_of(
        self, placement: Placement, held: Mapping[str, int], pid: int, rest: Iterable[Running]
    ) -> bool:
        """The GPUs of ``placement`` have back what a child held there; ``rest`` are the children that are left."""
        others = list(rest)
        return all(
            self._has_back(name, size, pid, others) for name, size in held.items() if name in placement.need
        )

    def _has_back(self, name: str, size: int, pid: int, rest: list[Running]) -> bool:
        gpu = self.gpus.get(name)
        if gpu is None:
            return True
        if pid in gpu.held:
            return False
        ours = sum(self._share(one, name) for one in rest if name in one.placement.gpus)
        return gpu.total - gpu.free - ours <= self.foreign.get(name, 0) + (1 - _FREED) * size + _SLACK

    def _share(self, one: Running, name: str) -> int:
        return self.held(one).get(name, one.placement.need.get(name, 0))

    def _note(self, gpu: Gpu, ours: list[Running], is_settling: bool) -> None:
        used = gpu.total - gpu.free
        ready = [one for one in ours if one.ready]
        is_told = any(one.child.pid in gpu.held or one.child.pid in self._told for one in ready)
        is_quiet = len(ready) == len(ours) and not is_settling
        if is_told and not is_settling:
            held = sum(self.held(one).get(gpu.name, 0) for one in ours)
        elif is_quiet:
            held = sum(self._share(one, gpu.name) for one in ours)
        elif gpu.name in self.foreign:
            return
        else:
            held = min(used, sum(one.placement.need.get(gpu.name, 0) for one in ours))
        self.foreign[gpu.name] = max(0, used - held)

    # -- asking; in a thread

    def _ask(self, pids: list[int], build: Build | None) -> tuple[dict[str, Gpu], dict[int, int]]:
        found = gpus(pids)
        if build is None or not build.card.capability:
            return found, {}
        mine = {line.partition(":")[0] for line in build.card.capability.devices}
        if mine & found.keys() or not listed(build.card.capability.devices):
            return found, {}
        nvidia = {pid: sum(gpu.held.get(pid, 0) for gpu in found.values()) for pid in pids}
        told = {pid: size for pid in pids if (size := held_anywhere(pid) or nvidia[pid])}
        return found | self._list(build), told

    def _list(self, build: Build) -> dict[str, Gpu]:
        """What the engine itself lists, asked at most every two seconds; nothing new in between."""
        at, _ = self._lists.get(build.key, (0.0, {}))
        if time.monotonic() - at < _LIST_FRESH:
            return {}
        environment = scrubbed_environment(dict(build.card.environment))
        try:
            argv = [build.tool("llama-server"), "--list-devices"]
            outcome = capture(argv, timeout=_LIST_DEADLINE, env=environment)
        except LlamamgrError:
            return {}
        found = listed(outcome.output.splitlines()) if outcome.succeeded else {}
        self._lists[build.key] = (time.monotonic(), found)
        return found
