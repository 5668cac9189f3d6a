"""Who runs, who waits, who goes: one state, events in, commands out, no clock and no process.

A *demand* asks for a child with a certain key; a *child* loads, is ready, or stops; a *lease* binds a request to a ready child.

=============  ====================================================================================
child state    leaves it by
=============  ====================================================================================
loading        ``ChildBecameReady`` → ready; ``ChildExited`` → gone, its waiters are refused with the cause
lost           from loading or ready by ``ChildLost``; ``ChildExited`` → gone, as from the state before
ready          idle and expired, unloaded, or chosen as victim → stopping; ``ChildExited`` → gone, waiters start anew
stopping       ``ChildExited`` → gone; only then is its memory free
=============  ====================================================================================

Every event ends in one pass over the waiting demands, oldest first: grant where a fitting child has a free slot, else start a
child where memory allows, else stop idle children (least recently used first) to make room, else wait. A busy child is never a
victim. A demand that has waited for room longer than ``patience`` closes the children it needs gone: younger requests are not
granted on them any more, so they drain (age beats warmth).

Times are seconds on any one monotonic clock; sizes are bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec


class ChildKey(msgspec.Struct, frozen=True):
    """What makes two children the same: model (digest), build, other load options; and the context, which may be larger."""

    model: str
    build: str
    variant: str = ""
    context: int = 0

    def serves(self, wanted: ChildKey) -> bool:
        """A running child of ``self`` can take a request for ``wanted`` without a reload."""
        return (self.model, self.build, self.variant) == (
            wanted.model,
            wanted.build,
            wanted.variant,
        ) and self.context >= wanted.context


class Limits(msgspec.Struct, frozen=True):
    """``patience`` is how long a demand lets warm children pass it; ``max_models`` 0 = as many as memory holds."""

    max_queue: int = 512
    max_models: int = 0
    queue_wait: float = 600.0
    patience: float = 10.0
    crash_window: float = 60.0
    crashes_allowed: int = 3


# ---- events -----------------------------------------------------------------------------------------------------


class Requested(msgspec.Struct, frozen=True):
    """``need`` is what a child of ``key`` takes; ``start_key`` is the key a newly started child would have (context ≥ wanted)."""

    request: int
    key: ChildKey
    need: int
    slots: int
    keep_alive: float
    start_key: ChildKey | None = None


class Left(msgspec.Struct, frozen=True):
    """A request is over: answered, failed, or its client went. Waiting demands and leases alike."""

    request: int


class ChildBecameReady(msgspec.Struct, frozen=True):
    child: str


class ChildLost(msgspec.Struct, frozen=True):
    """The process has ended and its owner is finding out why; ``ChildExited`` follows. Nothing is granted or started for it."""

    child: str


class ChildExited(msgspec.Struct, frozen=True):
    """The process is gone (or never came up); ``cause`` is for people."""

    child: str
    cause: str


class KeepAliveChanged(msgspec.Struct, frozen=True):
    """Children of ``model`` go ``keep_alive`` seconds after they are idle; 0 unloads now or after the last lease."""

    model: str
    keep_alive: float


class BudgetMeasured(msgspec.Struct, frozen=True):
    """Bytes that all children together may take."""

    budget: int


class TimePassed(msgspec.Struct, frozen=True):
    """Nothing happened but time."""


Event = (
    Requested
    | Left
    | ChildBecameReady
    | ChildLost
    | ChildExited
    | KeepAliveChanged
    | BudgetMeasured
    | TimePassed
)


# ---- commands ---------------------------------------------------------------------------------------------------


class StartChild(msgspec.Struct, frozen=True):
    child: str
    key: ChildKey
    request: int


class StopChild(msgspec.Struct, frozen=True):
    child: str
    reason: str


class GrantLease(msgspec.Struct, frozen=True):
    request: int
    child: str


Refusal = Literal["queue_full", "too_big", "waited_too_long", "load_failed", "cooling_down"]


class RefuseRequest(msgspec.Struct, frozen=True):
    """``retry_after`` is whole seconds, 0 when trying again is no use."""

    request: int
    why: Refusal
    detail: str
    retry_after: int = 0


Command = StartChild | StopChild | GrantLease | RefuseRequest


# ---- state ------------------------------------------------------------------------------------------------------


class Demand(msgspec.Struct):
    request: int
    key: ChildKey
    start_key: ChildKey
    need: int
    slots: int
    keep_alive: float
    since: float


class Child(msgspec.Struct):
    id: str
    key: ChildKey
    need: int
    slots: int
    keep_alive: float
    state: Literal["loading", "ready", "lost", "stopping"] = "loading"
    was_loading: bool = False
    leases: set[int] = msgspec.field(default_factory=set)
    used: float = 0.0
    expires: float = math.inf


class Trouble(msgspec.Struct):
    """Recent failures of one key: when they happened, until when nothing is started, and why."""

    times: list[float] = msgspec.field(default_factory=list)
    until: float = 0.0
    cause: str = ""


class Scheduler:
    """The state; ``handle(event, now)`` is the only way to change it."""

    def __init__(self, budget: int, limits: Limits | None = None) -> None:
        self.budget = budget
        self.limits = limits or Limits()
        self.children: dict[str, Child] = {}
        self.waiting: dict[int, Demand] = {}
        self.leases: dict[int, str] = {}
        self._trouble: dict[ChildKey, Trouble] = {}
        self._keep_alive: dict[int, float] = {}
        self._commands: list[Command] = []
        self._born = 0
        self._now = 0.0

    # -- reading

    def queued(self, child: Child) -> int:
        """Demands that wait for this child."""
        return sum(1 for demand in self.waiting.values() if child.key.serves(demand.key))

    def deadline(self) -> float:
        """When ``TimePassed`` is due next; infinite when nothing waits for time."""
        limits = self.limits
        due = [c.expires for c in self.children.values() if c.state == "ready" and not c.leases]
        for demand in self.waiting.values():
            due += [demand.since + limits.queue_wait, demand.since + limits.patience]
        return min((at for at in due if at > self._now), default=math.inf) if due else math.inf

    # -- changing

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event in; the commands that follow from it, in order."""
        self._now = now
        self._commands = []
        match event:
            case Requested():
                self._requested(event, now)
            case Left(request):
                self._left(request, now)
            case ChildBecameReady(child):
                self._ready(child, now)
            case ChildLost(child):
                self._lost(child)
            case ChildExited(child, cause):
                self._exited(child, cause, now)
            case KeepAliveChanged(model, keep_alive):
                self._keep(model, keep_alive, now)
            case BudgetMeasured(budget):
                self.budget = budget
            case TimePassed():
                pass
        self._expire(now)
        self._serve_waiting(now)
        return self._commands

    def _requested(self, event: Requested, now: float) -> None:
        start_key = event.start_key or event.key
        if event.need > self.budget and self._fitting(event.key) is None:
            self._refuse(
                event.request, "too_big", f"it needs about {event.need} bytes, the budget is {self.budget}"
            )
            return
        if len(self.waiting) >= self.limits.max_queue:
            self._refuse(event.request, "queue_full", f"{len(self.waiting)} requests wait already", 1)
            return
        self.waiting[event.request] = Demand(
            event.request, event.key, start_key, event.need, event.slots, event.keep_alive, now
        )

    def _left(self, request: int, now: float) -> None:
        self.waiting.pop(request, None)
        child = self.children.get(self.leases.pop(request, ""))
        keep_alive = self._keep_alive.pop(request, 0.0)
        if child is None:
            return
        child.leases.discard(request)
        child.used = now
        child.keep_alive = keep_alive
        child.expires = now + keep_alive

    def _ready(self, child_id: str, now: float) -> None:
        child = self.children.get(child_id)
        if child is None or child.state != "loading":
            return
        child.state = "ready"
        child.used = now
        child.expires = now + child.keep_alive
        trouble = self._trouble.get(child.key)
        if trouble is not None:
            trouble.until = 0.0

    def _lost(self, child_id: str) -> None:
        child = self.children.get(child_id)
        if child is not None and child.state != "stopping":
            child.was_loading = child.state == "loading"
            child.state = "lost"

    def _exited(self, child_id: str, cause: str, now: float) -> None:
        child = self.children.pop(child_id, None)
        if child is None:
            return
        for request in child.leases:
            self.leases.pop(request, None)
            self._keep_alive.pop(request, None)
        if child.state == "stopping":
            return
        loading = child.state == "loading" or child.was_loading
        self._note_trouble(child.key, cause, now, loading=loading)
        if loading:
            for demand in [d for d in self.waiting.values() if child.key.serves(d.key)]:
                del self.waiting[demand.request]
                self._refuse(demand.request, "load_failed", cause)

    def _note_trouble(self, key: ChildKey, cause: str, now: float, *, loading: bool) -> None:
        """Back off exponentially: from the second failed load in the window, or once more crashes than allowed happened."""
        trouble = self._trouble.setdefault(key, Trouble())
        trouble.times = [t for t in trouble.times if now - t < self.limits.crash_window] + [now]
        trouble.cause = cause
        excess = len(trouble.times) - (1 if loading else self.limits.crashes_allowed)
        if excess > 0:
            trouble.until = now + min(60.0, 2.0**excess)

    def _keep(self, model: str, keep_alive: float, now: float) -> None:
        for child in self.children.values():
            if child.key.model == model and child.state in ("loading", "ready"):
                child.keep_alive = keep_alive
                child.expires = now + keep_alive
                for request in child.leases:
                    self._keep_alive[request] = keep_alive

    def _expire(self, now: float) -> None:
        for child in list(self.children.values()):
            if (
                child.state == "ready"
                and not child.leases
                and child.expires <= now
                and not self._wanted(child)
            ):
                self._stop(child, "its keep-alive ran out")
        for demand in list(self.waiting.values()):
            if now - demand.since >= self.limits.queue_wait:
                del self.waiting[demand.request]
                self._refuse(
                    demand.request,
                    "waited_too_long",
                    f"it waited {self.limits.queue_wait:g} s for its turn",
                    5,
                )

    def _wanted(self, child: Child) -> bool:
        return any(child.key.serves(demand.key) for demand in self.waiting.values())

    # -- the pass over the waiting

    def _serve_waiting(self, now: float) -> None:
        closed: set[str] = set()
        reserved = 0
        held_back = False
        for demand in list(self.waiting.values()):
            child = self._fitting(demand.key)
            if child is not None:
                if child.state == "ready" and child.id not in closed and len(child.leases) < child.slots:
                    self._grant(demand, child, now)
                continue
            if self._cooling(demand, now) or held_back:
                continue
            reserved, starved = self._start_or_make_room(demand, reserved, now)
            if starved and now - demand.since >= self.limits.patience:
                held_back = True
                closed.update(self._in_the_way(demand, reserved))

    def _start_or_make_room(self, demand: Demand, reserved: int, now: float) -> tuple[int, bool]:
        """Start the child, or stop idle ones for it. Returns the memory spoken for after it, and whether it found no way yet."""
        if self._room(reserved) >= demand.need and not self._too_many():
            self._start(demand, now)
            return reserved, False
        coming = sum(c.need for c in self.children.values() if c.state == "stopping")
        leaving = sum(1 for c in self.children.values() if c.state == "stopping")
        victims: list[Child] = []
        idle = self._by_worth(c for c in self.children.values() if self._may_go_for(c, demand, now))
        for victim in [None, *idle]:
            if victim is not None:
                victims.append(victim)
            enough = self._room(reserved) + coming + sum(v.need for v in victims) >= demand.need
            if enough and not self._too_many(leaving + len(victims)):
                for each in victims:
                    self._stop(each, "another model needs its memory")
                return reserved + demand.need, False
        return reserved, True

    def _may_go_for(self, child: Child, demand: Demand, now: float) -> bool:
        """An idle child that nobody waits for; once ``demand`` is out of patience, nobody older than it."""
        if child.state != "ready" or child.leases:
            return False
        rivals = (d for d in self.waiting.values() if child.key.serves(d.key))
        if now - demand.since >= self.limits.patience:
            return not any(rival.request < demand.request for rival in rivals)
        return not any(rivals)

    def _in_the_way(self, demand: Demand, reserved: int) -> Iterator[str]:
        """The children that must drain before ``demand`` fits, least recently used first."""
        room = self._room(reserved) + sum(c.need for c in self.children.values() if c.state == "stopping")
        for child in self._by_worth(c for c in self.children.values() if c.state == "ready"):
            if room >= demand.need and not self._too_many(1):
                return
            room += child.need
            yield child.id

    @staticmethod
    def _by_worth(children: Iterable[Child]) -> list[Child]:
        return sorted(children, key=lambda child: (child.used, child.id))

    def _room(self, reserved: int) -> int:
        return self.budget - reserved - sum(child.need for child in self.children.values())

    def _too_many(self, leaving: int = 0) -> bool:
        limit = self.limits.max_models
        return bool(limit) and len(self.children) - leaving >= limit

    def _fitting(self, key: ChildKey) -> Child | None:
        found = [c for c in self.children.values() if c.state != "stopping" and c.key.serves(key)]
        return min(found, key=lambda c: (c.state != "ready", c.key.context)) if found else None

    def _cooling(self, demand: Demand, now: float) -> bool:
        trouble = self._trouble.get(demand.start_key)
        if trouble is None or trouble.until <= now:
            return False
        del self.waiting[demand.request]
        self._refuse(demand.request, "cooling_down", trouble.cause, max(1, math.ceil(trouble.until - now)))
        return True

    # -- commands

    def _start(self, demand: Demand, now: float) -> None:
        self._born += 1
        child = Child(
            f"c{self._born}", demand.start_key, demand.need, demand.slots, demand.keep_alive, used=now
        )
        self._retire_variants(child)
        self.children[child.id] = child
        self._commands.append(StartChild(child.id, child.key, demand.request))

    def _retire_variants(self, newer: Child) -> None:
        """An idle child of the same model with other options has no future: requests move to the newer one."""
        for child in list(self.children.values()):
            if (
                child.key.model == newer.key.model
                and child.state == "ready"
                and not child.leases
                and not self._wanted(child)
            ):
                self._stop(child, "the model was asked for with other options")

    def _stop(self, child: Child, reason: str) -> None:
        child.state = "stopping"
        self._commands.append(StopChild(child.id, reason))

    def _grant(self, demand: Demand, child: Child, now: float) -> None:
        del self.waiting[demand.request]
        child.leases.add(demand.request)
        child.used = now
        child.expires = math.inf
        self.leases[demand.request] = child.id
        self._keep_alive[demand.request] = demand.keep_alive
        self._commands.append(GrantLease(demand.request, child.id))

    def _refuse(self, request: int, why: Refusal, detail: str, retry_after: int = 0) -> None:
        self._commands.append(RefuseRequest(request, why, detail, retry_after))
