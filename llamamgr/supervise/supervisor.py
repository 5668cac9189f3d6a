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
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType

import msgspec

from llamamgr.core.cards import Build, ModelCard
from llamamgr.core.config import Config
from llamamgr.core.errors import BusyError, EngineError, LlamamgrError
from llamamgr.host import memory as host_memory
from llamamgr.plan.memory import Shape, best_shape
from llamamgr.plan.scheduler import (
    BudgetMeasured,
    ChildBecameReady,
    ChildExited,
    ChildKey,
    Event,
    GrantLease,
    KeepAliveChanged,
    Left,
    Limits,
    RefuseRequest,
    Requested,
    Scheduler,
    StartChild,
    StopChild,
    TimePassed,
)
from llamamgr.supervise.child import Child
from llamamgr.supervise.launch import prepare
from llamamgr.supervise.lease import NO_WISHES, ChildStatus, Lease, LoadOptions
from llamamgr.supervise.orphans import ChildrenFile, Entry, start_time

log = logging.getLogger(__name__)

_REMEMBERED_DEAD = 64


class Running(msgspec.Struct):
    """What the supervisor knows of a child beyond the plan. Times are wall clock seconds."""

    child: Child
    model: ModelCard
    build: Build
    shape: Shape
    started: float
    ready: bool = False


class Wish(msgspec.Struct, frozen=True):
    """A waiting request's own data, kept until a child is started for it."""

    model: ModelCard
    build: Build
    shape: Shape
    options: LoadOptions


class Supervisor:
    """Owns all children; an async context manager, at whose end no child is left.

    ``builds`` chooses the build for an instance name ("" = default) and raises ``MissingToolError`` when there is none.
    """

    def __init__(
        self, config: Config, builds: Callable[[str], Build], *, run: Path, state: Path, children_file: Path
    ) -> None:
        self._config = config
        self._builds = builds
        self._run = run
        self._state = state
        self._file = ChildrenFile(children_file)
        limits = config.scheduler
        self._plan = Scheduler(0, Limits(limits.max_queue, limits.max_models, limits.queue_wait))
        self._running: dict[str, Running] = {}
        self._dead: OrderedDict[str, str] = OrderedDict()
        self._grants: dict[int, asyncio.Future[str]] = {}
        self._wishes: dict[int, Wish] = {}
        self._numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = asyncio.TaskGroup()
        self._closing = False

    async def __aenter__(self) -> Supervisor:
        for orphan in await asyncio.to_thread(self._file.reap):
            log.warning(
                "reaped llama-server pid %d (%s), left by a daemon that was killed", orphan.pid, orphan.model
            )
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        for future in list(self._grants.values()):
            if not future.done():
                future.set_exception(
                    BusyError("llamamgr is shutting down", "send the request again once it runs", 5)
                )
        for running in list(self._running.values()):
            running.child.stop()
        if self._timer:
            self._timer.cancel()
        await self._tasks.__aexit__(None, None, None)  # the body's own error passes through unwrapped

    # -- for requests

    @contextlib.asynccontextmanager
    async def acquire(
        self, model: ModelCard, options: LoadOptions = NO_WISHES, *, keep_alive: float | None = None
    ) -> AsyncIterator[Lease]:
        """See ``lease.Children.acquire``."""
        if self._closing:
            raise BusyError("llamamgr is shutting down", "send the request again once it runs", 5)
        request = next(self._numbers)
        asked = asyncio.get_running_loop().time()
        try:
            child_id = await self._granted(request, model, options, keep_alive)
            running = self._running[child_id]
            waited = asyncio.get_running_loop().time() - asked
            yield Lease(
                child_id, running.child.endpoint, running.model, running.build, running.shape.context, waited
            )
        finally:
            self._grants.pop(request, None)
            self._wishes.pop(request, None)
            self._post(Left(request))

    async def _granted(
        self, request: int, model: ModelCard, options: LoadOptions, keep_alive: float | None
    ) -> str:
        build = self._builds(options.instance)
        event, wish = self._demand(request, model, build, options, keep_alive)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._grants[request] = future
        self._wishes[request] = wish
        self._post(event)
        return await future

    def _demand(
        self, request: int, model: ModelCard, build: Build, options: LoadOptions, keep_alive: float | None
    ) -> tuple[Requested, Wish]:
        stay = self._config.keep_alive_seconds if keep_alive is None else keep_alive
        variant = _variant(options)
        least = min(options.context, model.context or options.context)
        wanted = ChildKey(model.digest, build.key, variant, least)
        running = next(
            (r for i, r in self._running.items() if self._plan.children[i].key.serves(wanted)), None
        )
        if running is None:
            self._post(BudgetMeasured(self._budget()))
            shape = best_shape(model, options.context, self._config.scheduler.parallel, self._plan.budget)
        else:
            shape = running.shape
        start = ChildKey(model.digest, build.key, variant, shape.context)
        event = Requested(request, wanted, shape.need, shape.parallel, stay, start)
        return event, Wish(model, build, shape, options)

    def _budget(self) -> int:
        limits = self._config.scheduler
        if limits.memory:
            return limits.memory
        taken = sum(host_memory.resident(running.child.pid) for running in self._running.values())
        return host_memory.available() + taken - limits.reserve

    # -- for people

    async def unload(self, model: ModelCard) -> bool:
        """See ``lease.Children.unload``: at once when idle, else after the last lease."""
        known = any(running.model.digest == model.digest for running in self._running.values())
        self._post(KeepAliveChanged(model.digest, 0.0))
        return known

    def expire(self, model: ModelCard, keep_alive: float) -> None:
        """See ``lease.Children.expire``."""
        self._post(KeepAliveChanged(model.digest, keep_alive))

    def status(self) -> tuple[ChildStatus, ...]:
        """See ``lease.Children.status``."""
        found = [self._describe(child_id, running) for child_id, running in self._running.items()]
        return tuple(sorted(found, key=lambda child: -child.expires))

    def _describe(self, child_id: str, running: Running) -> ChildStatus:
        planned = self._plan.children[child_id]
        now, wall = asyncio.get_running_loop().time(), time.time()
        left = planned.keep_alive if planned.leases or planned.state == "loading" else planned.expires - now
        return ChildStatus(
            id=child_id,
            model=running.model,
            build=running.build.key,
            build_number=running.build.card.number,
            state=planned.state,
            pid=running.child.pid,
            context=running.shape.context,
            slots=running.shape.parallel,
            busy=len(planned.leases),
            queued=self._plan.queued(planned),
            memory=host_memory.resident(running.child.pid),
            memory_gpu=0,
            started=running.started,
            expires=wall + left,
        )

    async def cause_of_death(self, child: str, wait: float = 1.0) -> str | None:
        """See ``lease.Children.cause_of_death``."""
        running = self._running.get(child)
        if running is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    return await running.child.wait()
        return self._dead.get(child)

    # -- the loop's one writer

    def _post(self, event: Event) -> None:
        now = asyncio.get_running_loop().time()
        for command in self._plan.handle(event, now):
            match command:
                case StartChild(child, _, request) if not self._closing:
                    self._start(child, self._wishes[request])
                case StopChild(child, reason) if child in self._running:
                    log.info("stopping %s: %s", self._running[child].model.name, reason)
                    self._running[child].child.stop()
                case GrantLease(request, child):
                    self._settle(request, child)
                case RefuseRequest():
                    self._settle(command.request, self._refusal(command))
        self._arm(now)

    def _settle(self, request: int, outcome: str | LlamamgrError) -> None:
        future = self._grants.get(request)
        if future is None or future.done():
            return
        if isinstance(outcome, str):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    def _refusal(self, command: RefuseRequest) -> LlamamgrError:
        name = self._wishes[command.request].model.name
        match command.why:
            case "queue_full":
                return BusyError(
                    "server busy, please try again.  maximum pending requests exceeded",
                    "",
                    command.retry_after,
                )
            case "waited_too_long":
                return BusyError(
                    f"{name} could not be loaded in time: {command.detail}", "", command.retry_after
                )
            case "cooling_down":
                return BusyError(
                    f"{name} keeps failing: {command.detail}",
                    f"it is tried again in {command.retry_after} s; `llamamgr logs {name}` has the whole log",
                    command.retry_after,
                )
            case "too_big":
                return BusyError(
                    f"{name} does not fit into memory: {command.detail}",
                    "choose a smaller quant or context, or raise scheduler.memory in config.toml",
                    60,
                )
            case "load_failed":
                return EngineError(
                    f"{name} could not be loaded: {command.detail}",
                    "see the engine's log in the state folder",
                )

    def _arm(self, now: float) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        due = self._plan.deadline()
        if due < math.inf and not self._closing:
            self._timer = asyncio.get_running_loop().call_at(max(due, now + 0.001), self._post, TimePassed())

    # -- children

    def _start(self, child_id: str, wish: Wish) -> None:
        try:
            launch = prepare(
                wish.model,
                wish.build,
                wish.shape,
                wish.options,
                child=child_id,
                run=self._run,
                state=self._state,
            )
        except OSError as error:
            cause = f"llama-server could not be prepared: {error}"
            asyncio.get_running_loop().call_soon(self._post, ChildExited(child_id, cause))
            return
        if launch.unsaid:
            log.warning("build %s has no option for: %s", wish.build.key, ", ".join(launch.unsaid))

        def spawned(pid: int) -> None:
            program = launch.argv[0]
            self._file.add(
                Entry(child_id, pid, start_time(pid), program, launch.endpoint.socket, wish.model.name)
            )

        def ready() -> None:
            running.ready = True
            log.info("%s is ready after %.0f ms", wish.model.name, (time.time() - running.started) * 1000)
            self._post(ChildBecameReady(child_id))

        child = Child(
            child_id, launch, load_wait=self._config.scheduler.load_wait, on_ready=ready, on_spawned=spawned
        )
        running = Running(child, wish.model, wish.build, wish.shape, time.time())
        self._running[child_id] = running
        self._tasks.create_task(self._own(child), name=f"child {child_id}")

    async def _own(self, child: Child) -> None:
        cause = "its owner was cancelled"
        try:
            cause = await child.run()
        except Exception as error:
            # one child's surprise must not take the others down with it
            log.exception("child %s", child.id)
            cause = f"its supervision failed: {error}"
        finally:
            running = self._running.pop(child.id)
            self._file.remove(child.id)
            self._remember(child.id, cause)
            if self._plan.children[child.id].state != "stopping" and not self._closing:
                log.error("%s died: %s", running.model.name, cause)
            self._post(ChildExited(child.id, cause))

    def _remember(self, child_id: str, cause: str) -> None:
        self._dead[child_id] = cause
        while len(self._dead) > _REMEMBERED_DEAD:
            self._dead.popitem(last=False)


def _variant(options: LoadOptions) -> str:
    """The load options other than context and instance, as far as they were asked for."""
    plain = msgspec.structs.replace(options, context=0, instance="")
    return "" if plain == NO_WISHES else msgspec.json.encode(plain).decode()
