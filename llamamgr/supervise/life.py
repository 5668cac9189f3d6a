"""The life of one child as the supervisor sees it: what is done at each of its steps, and whom that concerns.

``Child`` knows the process, ``Life`` all that is around it: the children file, the prompt cache, the plan, memory, what is counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llamamgr.plan.events import ChildBecameReady, Event, KeySuperseded, Placement
from llamamgr.plan.scheduler import Scheduler
from llamamgr.supervise.child import Child
from llamamgr.supervise.estimates import Estimates
from llamamgr.supervise.launch import Launch, prepare
from llamamgr.supervise.lease import Endpoint
from llamamgr.supervise.memory import Memory
from llamamgr.supervise.orphans import ChildrenFile, Entry, start_time
from llamamgr.supervise.pace import Pace
from llamamgr.supervise.running import Running
from llamamgr.supervise.slots import SlotStore
from llamamgr.supervise.tally import Tally
from llamamgr.supervise.wishes import Wish

log = logging.getLogger(__name__)

_SAVE_SECONDS = 20.0


class Means(msgspec.Struct, frozen=True):
    """What the supervisor lends to lives. ``run`` is the folder of sockets, ``state`` that of logs; ``estimates`` have the
    configuration of now.

    ``post`` takes the plan's events and ``tasks`` what has to be waited for; ``is_closing`` tells whether all children are to go,
    and ``on_stopping`` is told of each that is about to be asked to.
    """

    plan: Scheduler
    estimates: Estimates
    memory: Memory
    slots: SlotStore
    children_file: ChildrenFile
    tally: Tally
    run: Path
    state: Path
    tasks: asyncio.TaskGroup
    post: Callable[[Event], None]
    is_closing: Callable[[], bool]
    on_stopping: Callable[[Endpoint], None]


class Life:
    """The steps of the child that is started for ``wish``, held as ``running``; ``OSError`` when it cannot be prepared."""

    def __init__(self, child_id: str, wish: Wish, placement: Placement, means: Means) -> None:
        self._id = child_id
        self._wish = wish
        self._placement = placement
        self._means = means
        self._kept = means.plan.children[child_id].key.folder  # whose prompt cache it may have
        limits = means.estimates.config.scheduler
        child = Child(child_id, self, load_wait=limits.load_wait, stall_wait=limits.stall_wait)
        self.running = Running(child, wish, placement, time.time(), Pace(child.progress))

    def launch(self) -> Launch:
        """By the configuration of now and the GPUs as they were seen last."""
        means = self._means
        return prepare(
            self._wish,
            self._placement,
            child=self._id,
            run=means.run,
            state=means.state,
            slots=means.slots.folder(self._kept),
            gpus=means.memory.gauge.of(self._wish.build),
            gpu_reserve=means.estimates.config.scheduler.gpu_reserve,
        )

    def spawned(self, pid: int) -> None:
        """Written down, so that the next daemon can reap it."""
        launch = self.running.child.launch
        program, home = launch.argv[0], launch.environment["XDG_CONFIG_HOME"]
        socket, name = launch.endpoint.socket, self._wish.model.name
        self._means.children_file.add(Entry(self._id, pid, start_time(pid), program, socket, name, home))

    async def healthy(self) -> None:
        """The prompt cache of the one before it is put back."""
        launch = self.running.child.launch
        if launch.slots:
            tokens = await self._means.slots.restore(launch.endpoint, self._kept)
            if tokens:
                log.info("%s: %d tokens of its prompt cache are back", self._wish.model.name, tokens)

    def ready(self) -> None:
        """The plan may grant it; what it took is measured beside."""
        means, running, name = self._means, self.running, self._wish.model.name
        running.ready = time.time()
        seconds = running.ready - running.started
        log.info("%s is ready after %.0f ms", name, seconds * 1000)
        means.tally.of(name).load_seconds.observe(seconds)
        means.post(ChildBecameReady(self._id))
        means.tasks.create_task(means.memory.after_load(running), name=f"memory of {self._id}")

    def leases(self) -> int:
        """As the plan has them."""
        return len(self._means.plan.children[self._id].leases)

    def stuck(self, told: str) -> None:
        """The plan gives it no new requests."""
        log.warning("%s: %s; it gets no new requests", self._wish.model.name, told)
        self._means.post(KeySuperseded(self._id, "one of its slots is stuck"))

    async def before_stop(self) -> None:
        """Its prompt cache is saved, where there is time for it. Whatever becomes of that, it stops."""
        launch, wish, means = self.running.child.launch, self._wish, self._means
        if not launch.slots or means.is_closing():
            return
        saving = means.slots.save(
            launch.endpoint, self._kept, wish.build.key, wish.model, is_hurried=means.is_closing
        )
        try:
            async with asyncio.timeout(_SAVE_SECONDS):
                await saving
        except TimeoutError:
            log.warning("%s: its prompt cache is not saved within %g s", wish.model.name, _SAVE_SECONDS)
        except OSError as error:
            log.warning("%s: its prompt cache is not saved: %s", wish.model.name, error)

    def stopping(self) -> None:
        """Connections that are kept to it are closed first."""
        self._means.on_stopping(self.running.child.endpoint)
