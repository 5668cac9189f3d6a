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
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from llamamgr.core.cards import Build, ModelCard
from llamamgr.core.config import Config
from llamamgr.core.errors import EngineError, LlamamgrError
from llamamgr.plan.events import (
    AwaitMemory,
    ChildBecameReady,
    ChildExited,
    ChildLost,
    Event,
    GrantLease,
    KeepAliveChanged,
    KeySuperseded,
    Left,
    Limits,
    Placement,
    RefuseRequest,
    StartChild,
    StopChild,
    TimePassed,
    TtlChanged,
    UnloadForced,
)
from llamamgr.plan.scheduler import Scheduler
from llamamgr.plan.trial import Trials
from llamamgr.supervise.child import Child
from llamamgr.supervise.estimates import Estimates
from llamamgr.supervise.launch import Launch, prepare
from llamamgr.supervise.lease import NO_WISHES, Builds, ChildStatus, Endpoint, Lease, LoadOptions
from llamamgr.supervise.measured import Measured
from llamamgr.supervise.memory import Memory
from llamamgr.supervise.orders import Order, Orders
from llamamgr.supervise.orphans import ChildrenFile, Entry, start_time
from llamamgr.supervise.pace import Pace
from llamamgr.supervise.refusals import refusal_error, shutting_down
from llamamgr.supervise.running import Running, describe
from llamamgr.supervise.slots import SlotStore
from llamamgr.supervise.tally import Tally, reason_of
from llamamgr.supervise.wishes import Wish, identity_of, key_of

log = logging.getLogger(__name__)

_REMEMBERED_DEAD = 64
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
        self._config = config
        self._builds = builds
        self._run = run
        self._state = state
        self._file = ChildrenFile(children_file)
        self._plan = Scheduler({}, _limits(config))
        self._running: dict[str, Running] = {}
        self._dead: OrderedDict[str, str] = OrderedDict()
        self._grants: dict[int, asyncio.Future[str]] = {}
        self._wishes: dict[int, Wish] = {}
        self._numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._rings = 0.0  # when the timer does
        self._tasks = asyncio.TaskGroup()
        self._closing = False
        self._free = asyncio.Event()
        self._trials = Trials()
        self.tally = Tally()
        self._measured = Measured(state / "measured.json")
        self._estimates = Estimates(config, self._measured, card_of)
        self._memory = Memory(self._plan, self._running, self._estimates, self._measured, self._post)
        self._orders = Orders(self._plan, self._running, builds, self._estimates, self._memory)
        self._watches: list[asyncio.Task[None]] = []
        self._slots = SlotStore(
            state / "slots", config.scheduler.slot_cache, config.scheduler.slot_cache_from
        )

    async def __aenter__(self) -> Supervisor:
        self._loop = asyncio.get_running_loop()
        for orphan in await asyncio.to_thread(self._file.reap):
            log.warning(
                "reaped llama-server pid %d (%s), left by a daemon that was killed", orphan.pid, orphan.model
            )
        await self._tasks.__aenter__()
        for name, work in (("memory", self._memory.watch()), ("pace", self._watch_pace())):
            self._watches.append(self._tasks.create_task(work, name=f"{name} watch"))
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
    ) -> contextlib.AbstractAsyncContextManager[Lease]:
        """See ``lease.Children.acquire``."""
        return _Acquisition(self, model, options, keep_alive, priority, next(self._numbers))

    def _at_once(self, hold: _Acquisition) -> Lease | None:
        """What most requests get: a free slot of a child that runs for them. None when there is something to wait for."""
        if self._closing:
            return None
        order = self._orders.recall(hold.model, hold.asked, self._config)
        if order is None or not order.child:
            return None
        demand = order.numbered(hold.request, hold.keep_alive, hold.priority)
        child_id = self._plan.granted_at_once(demand, self._loop.time())
        running = self._running.get(child_id)
        return self._lease(hold, child_id, running, 0.0) if running is not None else None

    async def _waited(self, hold: _Acquisition) -> Lease:
        """A child held for a request. Asked anew when it died on the way here, or when its build was given up meanwhile."""
        since = time.monotonic()  # uvloop's own clock moves in milliseconds
        while True:
            if self._closing:
                raise shutting_down()
            order = self._orders.recall(hold.model, hold.asked, self._config)
            if order is None:
                order = await self._orders.work_out(hold.model, hold.asked, self._config)
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
        return Lease(child_id, endpoint, wish.model, wish.build, context, waited, tally.tokens)

    async def _granted(self, order: Order, hold: _Acquisition) -> str:
        if self._closing:
            raise shutting_down()
        demand = order.numbered(hold.request, hold.keep_alive, hold.priority)
        child_id = self._plan.granted_at_once(demand, self._loop.time())
        if child_id:
            return child_id
        future: asyncio.Future[str] = self._loop.create_future()
        self._grants[hold.request] = future
        self._wishes[hold.request] = order.wish
        self._post(demand)
        return await future

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
            key = key_of(wish.model, wish.build, wish.options, settings, running.wish.shape.context)
            if key.variant != self._plan.children[child_id].key.variant:
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
        running = self._running.get(child)
        if running is not None:
            if running.child.cause and self._closing:
                return running.child.cause  # it is told to go, and may take its time
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await running.gone.wait()
        return self._dead.get(child)

    # -- the loop's one writer

    def _post(self, event: Event) -> None:
        now = self._loop.time()
        for command in self._plan.handle(event, now):
            match command:
                case GrantLease(request, child):
                    self._settle(request, child)
                case StartChild(child, _, request, placement) if not self._closing:
                    self._start(child, self._wishes[request], placement)
                case StopChild(child, reason) if child in self._running:
                    name = self._running[child].wish.model.name
                    log.info("stopping %s: %s", name, reason)
                    self.tally.of(name).unloads[reason_of(reason)] += 1
                    self._running[child].child.stop()
                case AwaitMemory(child, placement):
                    self._tasks.create_task(
                        self._memory.until_freed(child, placement, lambda: self._closing),
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

    # -- children

    def _start(self, child_id: str, wish: Wish, placement: Placement) -> None:
        kept = self._plan.children[child_id].key.folder

        def launch() -> Launch:
            slots = self._slots.folder(kept) if self._slots.limit else None
            return prepare(
                wish,
                placement,
                child=child_id,
                run=self._run,
                state=self._state,
                slots=slots,
                gpus=self._memory.gauge.of(wish.build),
                gpu_reserve=self._config.scheduler.gpu_reserve,
            )

        def spawned(pid: int) -> None:
            program, endpoint = child.launch.argv[0], child.endpoint
            home = child.launch.environment["XDG_CONFIG_HOME"]
            entry = Entry(child_id, pid, start_time(pid), program, endpoint.socket, wish.model.name, home)
            self._file.add(entry)

        def ready() -> None:
            running.ready = time.time()
            log.info("%s is ready after %.0f ms", wish.model.name, (running.ready - running.started) * 1000)
            tally.load_seconds.observe(running.ready - running.started)
            self._post(ChildBecameReady(child_id))
            self._tasks.create_task(self._memory.after_load(running), name=f"memory of {child_id}")

        async def healthy() -> None:
            if child.launch.slots:
                tokens = await self._slots.restore(child.endpoint, kept)
                if tokens:
                    log.info("%s: %d tokens of its prompt cache are back", wish.model.name, tokens)

        async def before_stop() -> None:
            if child.launch.slots and not self._closing:
                await self._slots.save(child.endpoint, kept, wish.build.key, wish.model)

        def stuck(told: str) -> None:
            log.warning("%s: %s; it gets no new requests", wish.model.name, told)
            self._post(KeySuperseded(child_id, "one of its slots is stuck"))

        tally = self.tally.of(wish.model.name)
        tally.started()
        limits = self._config.scheduler
        try:
            child = Child(
                child_id,
                launch,
                load_wait=limits.load_wait,
                stall_wait=limits.stall_wait,
                leases=lambda: len(self._plan.children[child_id].leases),
                on_stuck=stuck,
                on_healthy=healthy,
                on_ready=ready,
                before_stop=before_stop,
                on_stopping=lambda: self.on_stopping(child.endpoint),
                on_spawned=spawned,
            )
        except OSError as error:
            cause = f"llama-server could not be prepared: {error}"
            self._loop.call_soon(self._post, ChildExited(child_id, cause))
            return
        if child.launch.unsaid:
            log.warning("build %s has no option for: %s", wish.build.key, ", ".join(child.launch.unsaid))
        self._trials.started(wish.build.key, self._loop.time())
        running = Running(child, wish, placement, time.time(), Pace(child.progress))
        self._memory.before_load(running)
        self._running[child_id] = running
        self._tasks.create_task(self._own(child), name=f"child {child_id}")

    async def _own(self, child: Child) -> None:
        cause = "its owner was cancelled"
        try:
            cause = await child.run()
            self._post(ChildLost(child.id))
            await self._judge(child, cause)
        except Exception as error:
            # one child's surprise must not take the others down with it
            log.exception("child %s", child.id)
            cause = f"its supervision failed: {error}"
        finally:
            running = self._running.pop(child.id)
            self._memory.after_exit(running)
            self._file.remove(child.id)
            self._remember(child.id, cause)
            self._post(ChildExited(child.id, cause))
            running.gone.set()

    async def _judge(self, child: Child, cause: str) -> None:
        """After an exit that nobody asked for: say it, and take the build back when it is to blame (``plan.trial``)."""
        if self._closing or self._plan.children[child.id].state == "stopping":
            return
        running = self._running[child.id]
        build, model = running.wish.build, running.wish.model
        log.error("%s died: %s", model.name, cause)
        self.tally.of(model.name).failed(cause, loading=not running.ready)
        former = await asyncio.to_thread(self._builds.former, build)
        if not running.ready and not self._measured.has_loaded(model, former):
            return
        now = self._loop.time()
        if self._trials.crashed(build.key, identity_of(model), now, former):
            taken = await asyncio.to_thread(self._builds.give_up, build, cause)
            self._trials.forget(build.key)
            if taken is not None:
                self._ask_anew(build)
                log.error(
                    "build %s keeps crashing; instance %s is back on %s",
                    build.key,
                    build.card.instance,
                    taken.key,
                )

    def _ask_anew(self, build: Build) -> None:
        """Requests that wait for a child of a build that was given up ask again (see ``_held``)."""
        for request, wish in list(self._wishes.items()):
            if wish.build.key == build.key:
                self._settle(request, EngineError(f"build {build.key} was given up"))

    async def _watch_pace(self) -> None:
        while True:
            await asyncio.sleep(_PACE_SECONDS)
            await self.look()

    def _remember(self, child_id: str, cause: str) -> None:
        self._dead[child_id] = cause
        while len(self._dead) > _REMEMBERED_DEAD:
            self._dead.popitem(last=False)


class _Acquisition:
    """One request's hold on a child, from its wait to its last byte; a generator would cost every request several µs."""

    __slots__ = ("_owner", "asked", "child", "keep_alive", "model", "priority", "request")

    def __init__(
        self,
        owner: Supervisor,
        model: ModelCard,
        asked: LoadOptions,
        keep_alive: float | None,
        priority: int,
        request: int,
    ) -> None:
        self._owner = owner
        self.model = model
        self.asked = asked
        self.keep_alive = keep_alive
        self.priority = priority
        self.request = request
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
