"""The supervisor: the one writer. Events go into the plan; the plan's commands become processes, grants and refusals.

``_post`` is synchronous and runs on the event loop only, so no lock is needed; nothing in it waits for a process, a disk or a
network. Everything that waits lives in a task of ``_tasks`` and comes back as an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import msgspec

from llamamgr.core.cards import Build, ModelCard
from llamamgr.core.config import Config
from llamamgr.core.errors import EngineError, LlamamgrError
from llamamgr.plan.events import (
    REPLACED,
    AwaitMemory,
    Event,
    GrantLease,
    KeepAliveChanged,
    KeySuperseded,
    Left,
    Limits,
    RefuseRequest,
    StartChild,
    StopChild,
    TimePassed,
    TtlChanged,
    UnloadForced,
)
from llamamgr.plan.memory import context_of
from llamamgr.plan.scheduler import Scheduler
from llamamgr.supervise.estimates import Estimates
from llamamgr.supervise.judge import Judge
from llamamgr.supervise.lasting import lasting
from llamamgr.supervise.lease import NO_WISHES, Builds, ChildStatus, Endpoint, Lease, LoadOptions
from llamamgr.supervise.life import Means
from llamamgr.supervise.measured import Measured
from llamamgr.supervise.memory import Memory
from llamamgr.supervise.nursery import Nursery
from llamamgr.supervise.orders import Order, Orders
from llamamgr.supervise.orphans import ChildrenFile
from llamamgr.supervise.refusals import refusal_error, shutting_down
from llamamgr.supervise.running import Running, describe
from llamamgr.supervise.slots import SlotStore
from llamamgr.supervise.tally import Tally, reason_of
from llamamgr.supervise.threads import in_thread
from llamamgr.supervise.wishes import Wish, identity_of, key_of

log = logging.getLogger(__name__)

_PACE_SECONDS = 5.0  # between two looks at how quick the children are
_CUT_SECONDS = 8.0  # a child's stop sequence, and its clients being told


class Supervisor:
    """Owns all children; an async context manager, at whose end no child is left.

    ``builds`` tells which build an instance runs, and takes back one that keeps crashing; ``card_of`` the model of a
    name in the configuration's groups. ``tally`` counts what happens. ``on_stopping`` may be set: it is told of each child that is
    about to be asked to stop, so that connections kept to it are closed first (an idle one holds llama-server's exit up by 0.1 s).
    """

    def __init__(
        self,
        config: Config,
        builds: Builds,
        *,
        run: Path,
        state: Path,
        children_file: Path,
        card_of: Callable[[str], ModelCard | None] | None = None,
    ) -> None:
        self.on_stopping: Callable[[Endpoint], None] = lambda endpoint: None
        self.tally = Tally()
        self._config = config
        self._plan = Scheduler({}, _limits(config))
        self._running: dict[str, Running] = {}
        self._grants: dict[int, asyncio.Future[str]] = {}
        self._wishes: dict[int, Wish] = {}
        self._numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._rings = 0.0  # when the timer does
        self._tasks = asyncio.TaskGroup()
        self._watches: list[asyncio.Task[None]] = []
        self._closing = False
        self._free = asyncio.Event()
        self._children_file = ChildrenFile(children_file)
        measured = Measured(state / "measured.json")
        self._estimates = Estimates(config, measured, card_of)
        self._memory = Memory(self._plan, self._running, self._estimates, measured, self._post)
        self._orders = Orders(self._plan, self._running, builds, self._estimates, self._memory)
        judge = Judge(builds, measured, self.tally, self._ask_anew)
        self._nursery = Nursery(self._running, self._means(run, state), judge)

    def _means(self, run: Path, state: Path) -> Means:
        limits = self._config.scheduler
        return Means(
            plan=self._plan,
            estimates=self._estimates,
            memory=self._memory,
            slots=SlotStore(state / "slots", limits.slot_cache, limits.slot_cache_from),
            children_file=self._children_file,
            tally=self.tally,
            run=run,
            state=state,
            tasks=self._tasks,
            post=self._post,
            is_closing=self._is_closing,
            on_stopping=lambda endpoint: self.on_stopping(endpoint),
        )

    async def __aenter__(self) -> Supervisor:
        self._loop = asyncio.get_running_loop()
        for orphan in await in_thread(self._children_file.reap):
            log.warning(
                "reaped llama-server pid %d (%s), left by a daemon that was killed", orphan.pid, orphan.model
            )
        await self._tasks.__aenter__()
        for name, work in (("memory", self._memory.watch), ("pace", self._watch_pace)):
            watch = lasting(f"the watch of {name}", work)
            self._watches.append(self._tasks.create_task(watch, name=f"{name} watch"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain(0.0)
        if self._timer:
            self._timer.cancel()
        for watch in self._watches:
            watch.cancel()
        await self._tasks.__aexit__(None, None, None)  # the body's own error passes through unwrapped

    async def drain(self, seconds: float) -> None:
        """Take no new request, refuse those that wait, give the others ``seconds``, then end the children under what is left.

        Afterwards no lease is held: requests that were cut have told their clients so.
        """
        self._closing = True
        for future in list(self._grants.values()):
            if not future.done():
                future.set_exception(shutting_down())
        await self._until_free(seconds)
        for running in self._running.values():
            running.child.stop("llamamgr is shutting down")
        await self._until_free(_CUT_SECONDS)

    def _is_closing(self) -> bool:
        return self._closing

    async def _until_free(self, seconds: float) -> None:
        self._free.clear()
        if self._plan.leases:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._free.wait()

    # -- for requests

    def acquire(
        self,
        model: ModelCard,
        options: LoadOptions = NO_WISHES,
        *,
        keep_alive: float | None = None,
        priority: int = 0,
        modest: bool = False,
    ) -> contextlib.AbstractAsyncContextManager[Lease]:
        """See ``lease.Children.acquire``; a ``modest`` one takes room that is free, and is refused (``BusyError``) if none is."""
        return _Acquisition(self, model, options, keep_alive, priority, next(self._numbers), modest)

    def _at_once(self, hold: _Acquisition) -> Lease | None:
        """What most requests get: a free slot of a child that runs for them. None when there is something to wait for."""
        if self._closing:
            return None
        order = self._orders.recall(hold.model, hold.asked, self._config)
        if order is None or not order.child:
            return None
        demand = order.numbered(hold.request, hold.keep_alive, hold.priority)
        child_id = self._plan.granted_at_once(demand, self._loop.time())
        return self._lease(hold, child_id, self._running[child_id], 0.0) if child_id else None

    async def _waited(self, hold: _Acquisition) -> Lease:
        """A child held for a request. Asked anew when it died on the way here, or when its build was given up meanwhile."""
        since = time.monotonic()  # uvloop's own clock moves in milliseconds
        while True:
            if self._closing:
                raise shutting_down()
            order = self._orders.recall(hold.model, hold.asked, self._config)
            if order is None:
                order = await self._orders.work_out(hold.model, hold.asked, self._config)
                self._supersede_former(hold.model)
            try:
                child_id = await self._granted(order, hold)
            except EngineError:
                if (await self._orders.build_of(order.wish.options.instance)).key == order.wish.build.key:
                    raise
            else:
                running = self._running.get(child_id)
                if running is not None:
                    return self._lease(hold, child_id, running, time.monotonic() - since)
            self._leave(hold)

    def _lease(self, hold: _Acquisition, child_id: str, running: Running, waited: float) -> Lease:
        hold.child = child_id
        wish = running.wish
        tally = self.tally.of(wish.model.name)
        tally.wait_seconds.observe(waited)
        endpoint, context = running.child.endpoint, wish.shape.context
        return Lease(child_id, endpoint, wish.model, wish.build, context, tally.tokens)

    async def _granted(self, order: Order, hold: _Acquisition) -> str:
        if self._closing:
            raise shutting_down()
        future: asyncio.Future[str] = self._loop.create_future()
        self._grants[hold.request] = future
        self._wishes[hold.request] = order.wish
        demand = order.numbered(hold.request, hold.keep_alive, hold.priority)
        self._post(msgspec.structs.replace(demand, modest=True) if hold.modest else demand)
        return await future

    def _supersede_former(self, model: ModelCard) -> None:
        """Children of what bore the name of ``model`` before: that name leads to them no more, and they might stay for ever.

        Another model of the same former file is loaded anew when it is asked for.
        """
        for child_id, running in list(self._running.items()):
            former = running.wish.model
            if former.name == model.name and identity_of(former) != identity_of(model):
                self._post(KeySuperseded(child_id, REPLACED))

    def _leave(self, hold: _Acquisition) -> None:
        request, plan = hold.request, self._plan
        if self._grants.pop(request, None) is not None:
            del self._wishes[request]
        now = self._loop.time()
        if not plan.left_at_once(request, now):
            self._post(Left(request))
        elif not self._timer or not hold.child or plan.children[hold.child].expires < self._rings:
            self._arm(now)
        if not plan.leases:
            self._free.set()

    def reconfigure(self, config: Config) -> list[str]:
        """Take a new configuration in. Children that it would start otherwise drain; the others run on. Returns whose they are."""
        self._config = self._estimates.config = config
        self._plan.limits = _limits(config)
        drained = []
        for child_id, running in list(self._running.items()):
            wish = running.wish
            settings = config.settings_of(wish.model.name)
            context = context_of(wish.model, wish.asked or settings.context, config.context)
            key = key_of(wish.model, wish.build, wish.options, settings, context)
            if key != self._plan.children[child_id].key:
                drained.append(wish.model.name)
                self._post(KeySuperseded(child_id))
            else:
                self._post(TtlChanged(child_id, settings.ttl_seconds))
        return drained

    # -- for people

    async def unload(self, model: ModelCard, *, now: bool = False) -> bool:
        """See ``lease.Children.unload``."""
        identity = identity_of(model)
        known = any(identity_of(running.wish.model) == identity for running in self._running.values())
        self._post(UnloadForced(identity) if now else KeepAliveChanged(identity, 0.0))
        return known

    def expire(self, model: ModelCard, keep_alive: float) -> None:
        """See ``lease.Children.expire``."""
        self._post(KeepAliveChanged(identity_of(model), keep_alive))

    def status(self) -> tuple[ChildStatus, ...]:
        """See ``lease.Children.status``."""
        now = self._loop.time()
        found = [
            describe(running, self._plan, child_id, now, self._memory.gauge.held(running))
            for child_id, running in self._running.items()
        ]
        return tuple(sorted(found, key=lambda child: -child.expires))

    async def look(self) -> None:
        """See ``lease.Children.look``: asks the children that worked since the last time."""
        now = self._loop.time()
        used = {child.id: child.used for child in self._plan.children.values() if child.state == "ready"}
        due = [one for key, one in self._running.items() if used.get(key, -math.inf) >= one.pace.looked]
        await asyncio.gather(*(one.pace.look(one.child.endpoint, now) for one in due))

    async def cause_of_death(self, child: str, wait: float = 1.0) -> str | None:
        """See ``lease.Children.cause_of_death``."""
        return await self._nursery.cause_of_death(child, wait)

    def was_unloaded(self, child: str) -> bool:
        """See ``lease.Children.was_unloaded``."""
        return self._nursery.was_unloaded(child)

    # -- the loop's one writer

    def _post(self, event: Event) -> None:
        now = self._loop.time()
        for command in self._plan.handle(event, now):
            match command:
                case GrantLease(request, child):
                    self._settle(request, child)
                case StartChild(child, _, request, placement) if not self._closing:
                    self._nursery.start(child, self._wishes[request], placement)
                case StopChild(child, reason) if child in self._running:
                    name = self._running[child].wish.model.name
                    log.info("stopping %s: %s", name, reason)
                    self.tally.of(name).unloads[reason_of(reason)] += 1
                    self._running[child].child.stop()
                case AwaitMemory(child, placement):
                    self._tasks.create_task(
                        self._memory.until_freed(child, placement, self._is_closing),
                        name=f"memory of {child}",
                    )
                case RefuseRequest(request, why):
                    self.tally.refusals[why] += 1
                    self._settle(request, refusal_error(command, self._wishes[request].model.name))
        self.tally.waiting = len(self._plan.waiting)
        self._arm(now)

    def _settle(self, request: int, outcome: str | LlamamgrError) -> None:
        future = self._grants.get(request)
        if future is None or future.done():
            return
        if isinstance(outcome, str):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    def _arm(self, now: float) -> None:
        """See to it that the plan hears of its next deadline. A timer that rings too early is left alone: it costs one look."""
        due = self._plan.deadline()
        if due == math.inf or self._closing or (self._timer and self._rings <= due):
            return
        if self._timer:
            self._timer.cancel()
        self._rings = max(due, now + 0.001)
        self._timer = self._loop.call_at(self._rings, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._post(TimePassed())

    def _ask_anew(self, build: Build) -> None:
        """Requests that wait for a child of a build that was given up ask again (see ``_waited``)."""
        for request, wish in list(self._wishes.items()):
            if wish.build.key == build.key:
                self._settle(request, EngineError(f"build {build.key} was given up"))

    async def _watch_pace(self) -> None:
        while True:
            await asyncio.sleep(_PACE_SECONDS)
            await self.look()


class _Acquisition:
    """One request's hold on a child, from its wait to its last byte; a generator would cost every request several µs."""

    __slots__ = ("_owner", "asked", "child", "keep_alive", "model", "modest", "priority", "request")

    def __init__(
        self,
        owner: Supervisor,
        model: ModelCard,
        asked: LoadOptions,
        keep_alive: float | None,
        priority: int,
        request: int,
        modest: bool,
    ) -> None:
        self._owner = owner
        self.model = model
        self.asked = asked
        self.keep_alive = keep_alive
        self.priority = priority
        self.request = request
        self.modest = modest
        self.child = ""  # whose lease it has

    async def __aenter__(self) -> Lease:
        owner = self._owner
        try:
            return owner._at_once(self) or await owner._waited(self)
        except BaseException:
            owner._leave(self)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner._leave(self)


def _limits(config: Config) -> Limits:
    limits = config.scheduler
    return Limits(
        max_queue=limits.max_queue,
        max_models=limits.max_models,
        queue_wait=limits.queue_wait,
        patience=limits.patience,
        min_residency=limits.min_residency,
    )
