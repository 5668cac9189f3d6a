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

A child that is gone leaves a *residue* on its GPUs, whose drivers free memory late: it counts as taken until ``MemoryFreed``.

Every event ends in one pass over the waiting demands, oldest first (a priority counts as age): grant where a fitting child has a
free slot, else start a child where memory allows, else stop idle children to make room, the least worth keeping first (cheap to
bring back, long unused), else wait. Only the best placements that memory could ever hold count: a model that fits a GPU waits for
it rather than be slow for as long as it lives. A busy child is never a victim, nor a pinned one. A demand that has waited for
room longer than ``patience`` closes the children it needs gone: younger requests are not granted on them any more, so they drain
(age beats warmth). What is loaded without being asked for is modest: it takes free room, or is refused.

Times are seconds on any one monotonic clock; sizes are bytes.
"""

from __future__ import annotations

import math

import msgspec

from llamamgr.core.sizes import human_size
from llamamgr.plan.clearance import Clearance
from llamamgr.plan.events import (
    AwaitMemory,
    BudgetMeasured,
    ChildBecameReady,
    ChildExited,
    ChildKey,
    ChildLost,
    Command,
    Event,
    GrantLease,
    KeepAliveChanged,
    KeySuperseded,
    Left,
    Limits,
    MemoryFreed,
    Placement,
    Refusal,
    RefuseRequest,
    Requested,
    StartChild,
    StopChild,
    TimePassed,
    TtlChanged,
    UnloadForced,
)
from llamamgr.plan.situation import Situation
from llamamgr.plan.state import Child, Demand, Residue, Room, Troubles

_ROOM = "another model needs its memory"


class Scheduler(Situation):
    """The situation, and what changes it: ``handle(event, now)`` is the only way."""

    def __init__(self, budget: dict[str, int], limits: Limits | None = None) -> None:
        super().__init__(budget, limits or Limits())
        self._troubles = Troubles()
        self._keep_alive: dict[int, float] = {}
        self._commands: list[Command] = []
        self._born = 0
        self._now = 0.0

    def deadline(self) -> float:
        """When ``TimePassed`` is due next; infinite when nothing waits for time."""
        return self.next_due(self._now)

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
            case KeySuperseded(child, reason):
                if child in self.children:
                    self.children[child].superseded = reason
            case TtlChanged(child, ttl):
                self._limit_stay(child, ttl)
            case UnloadForced(model):
                self._unload(model)
            case MemoryFreed(child):
                self.residues.pop(child, None)
            case BudgetMeasured(budget):
                self.budget = budget
            case TimePassed():
                pass
        self._expire(now)
        self._serve_waiting(now)
        return self._commands

    # Most requests find nobody waiting and a child with a free slot, and leave nobody waiting behind. These two come to what
    # ``handle`` would, without the pass; what falls due meanwhile is for the next ``TimePassed``.

    def granted_at_once(self, event: Requested, now: float) -> str:
        """The child that ``event`` is granted, if it need not wait; else "", and it must be told to ``handle``."""
        child = None if self.waiting else self.fitting(event.key)
        if child is None or child.state != "ready" or len(child.leases) >= child.slots:
            return ""
        self._now = now
        self._grant(event, child, now)
        return child.id

    def left_at_once(self, request: int, now: float) -> bool:
        """Take ``Left`` in if nothing follows from it; else False, and it must be told to ``handle``."""
        child = None if self.waiting else self.children.get(self.leases.get(request, ""))
        if child is None or child.superseded or self._keep_alive.get(request, 0.0) <= 0:
            return False
        self._now = now
        self._left(request, now)
        return True

    def _requested(self, event: Requested, now: float) -> None:
        if self.fitting(event.key) is None and self.is_too_big(event):
            least = min(place.total for place in event.placements)
            most = sum(self.budget.values())
            detail = (
                f"it needs about {human_size(least)}, and there are {human_size(max(0, most))} for models"
            )
            self._refuse(event.request, "too_big", detail)
        elif len(self.waiting) >= self.limits.max_queue:
            self._refuse(event.request, "queue_full", f"{len(self.waiting)} requests wait already", 1)
        else:
            self.waiting[event.request] = Demand(event, now)

    def _left(self, request: int, now: float) -> None:
        self.waiting.pop(request, None)
        child = self.children.get(self.leases.pop(request, ""))
        keep_alive = self._keep_alive.pop(request, 0.0)
        if child is None:
            return
        child.leases.discard(request)
        child.used = now
        child.keep_alive = keep_alive
        child.expires = now + child.stay

    def _ready(self, child_id: str, now: float) -> None:
        child = self.children.get(child_id)
        if child is None or child.state != "loading":
            return
        child.state = "ready"
        child.used = child.ready_at = now
        child.expires = now + child.stay
        self._troubles.forgive(child.key)

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
        if child.placement.gpus:
            self.residues[child.id] = Residue(child.placement, now + self.limits.memory_wait)
            self._commands.append(AwaitMemory(child.id, child.placement))
        if child.state == "stopping":
            return
        loading = child.state == "loading" or child.was_loading
        self._troubles.note(child.key, cause, now, self.limits, loading=loading)
        if loading:
            for demand in [d for d in self.waiting.values() if child.key.serves(d.key)]:
                del self.waiting[demand.request]
                self._refuse(demand.request, "load_failed", cause)

    def _keep(self, model: str, keep_alive: float, now: float) -> None:
        for child in self.children.values():
            if child.key.model == model and child.state in ("loading", "ready"):
                child.keep_alive = keep_alive
                child.is_dismissed = keep_alive <= 0
                child.expires = now + min(keep_alive, child.ttl)  # who unloads a pinned child means it
                for request in child.leases:
                    self._keep_alive[request] = keep_alive
        for demand in self.waiting.values():
            if demand.key.model == model:
                demand.event = msgspec.structs.replace(demand.event, keep_alive=keep_alive)

    def _unload(self, model: str) -> None:
        for child in self.children.values():
            if child.key.model == model and child.state != "stopping":
                self._stop(child, "somebody wants it gone at once")

    def _limit_stay(self, child_id: str, ttl: float) -> None:
        child = self.children.get(child_id)
        if child is not None:
            child.ttl = ttl
            if child.is_idle and not child.pinned:
                child.expires = min(child.expires, child.used + ttl)

    def _expire(self, now: float) -> None:
        self.residues = {id_: residue for id_, residue in self.residues.items() if residue.until > now}
        while (
            self.waiting
            and now - (first := next(iter(self.waiting.values()))).since >= self.limits.queue_wait
        ):
            del self.waiting[first.request]
            detail = f"it waited {self.limits.queue_wait:g} s for its turn"
            self._refuse(first.request, "waited_too_long", detail, 5)
        for child in list(self.children.values()):  # after those who wanted it and gave up
            if child.is_idle and child.superseded:
                self._stop(child, child.superseded)
            elif child.is_idle and child.expires <= now and not self.is_wanted(child):
                self._stop(child, _why_expired(child))

    # -- the pass over the waiting

    def _serve_waiting(self, now: float) -> None:
        if not self.waiting:
            return
        closed: set[str] = set()
        room: Room | None = None
        held_back = False
        making_room: list[Demand] = []
        fitting: dict[ChildKey, Child | None] = {}
        for demand in self.in_order():
            key = demand.event.key
            child = fitting[key] if key in fitting else fitting.setdefault(key, self.fitting(key))
            if child is not None:
                if child.state == "ready" and child.id not in closed and len(child.leases) < child.slots:
                    del self.waiting[demand.request]
                    self._grant(demand.event, child, now)
                    self._commands.append(GrantLease(demand.request, child.id))
                continue
            if self._cooling(demand, now) or held_back or self.is_too_big(demand.event):
                continue  # what memory cannot hold since the budget shrank keeps nobody else waiting
            if any(_clash(demand, earlier) for earlier in making_room):
                continue  # or each would make room for the other for ever
            fitting.clear()  # what is started or stopped now may fit, or not fit any more
            room = room or self.room()
            if self._started(demand, room, now):
                continue
            if demand.event.modest:
                del self.waiting[demand.request]
                self._refuse(demand.request, "no_room", "other models use the memory")
                continue
            clearance = Clearance(self, demand, room, now)
            if self._made_room(clearance, room):
                making_room.append(demand)
            else:
                held_back = now - demand.since >= self.limits.patience
                closed.update(clearance.in_the_way() if held_back else ())

    def _started(self, demand: Demand, room: Room, now: float) -> bool:
        """Start the child where memory is free, if nothing it cannot live beside is there."""
        if self.is_crowded() or self.clashing(demand):
            return False
        for placement in self.candidates(demand):
            if not room.short_of(placement):
                self._start(demand, placement, now)
                room.take(placement)
                return True
        return False

    def _made_room(self, clearance: Clearance, room: Room) -> bool:
        """Stop the idle children that are in the way; the room that they and those already stopping leave is spoken for."""
        found = clearance.victims()
        if found is None:
            return False
        placement, victims = found
        for victim in victims:
            self._stop(victim, _ROOM)
        room.take(placement)
        return True

    def _cooling(self, demand: Demand, now: float) -> bool:
        trouble = self._troubles.cooling(demand.start_key, now)
        if trouble is None:
            return False
        del self.waiting[demand.request]
        self._refuse(demand.request, "cooling_down", trouble.cause, max(1, math.ceil(trouble.until - now)))
        return True

    # -- commands

    def _start(self, demand: Demand, placement: Placement, now: float) -> None:
        self._born += 1
        asked = demand.event
        child = Child(
            id=f"c{self._born}",
            key=demand.start_key,
            placement=placement,
            slots=asked.slots,
            keep_alive=asked.keep_alive,
            reload_seconds=asked.reload_seconds,
            pinned=asked.pinned,
            ttl=asked.ttl,
            conflicts=asked.conflicts,
            used=now,
        )
        self._retire_variants(child)
        self.children[child.id] = child
        self._commands.append(StartChild(child.id, child.key, demand.request, placement))

    def _retire_variants(self, newer: Child) -> None:
        """An idle child of the same model with other options has no future: requests move to the newer one."""
        for child in list(self.children.values()):
            if child.key.model == newer.key.model and child.is_idle and not self.is_wanted(child):
                self._stop(child, "the model was asked for with other options")

    def _stop(self, child: Child, reason: str) -> None:
        child.state = "stopping"
        self._commands.append(StopChild(child.id, reason))

    def _grant(self, asked: Requested, child: Child, now: float) -> None:
        request = asked.request
        child.leases.add(request)
        child.used = now
        child.expires = math.inf
        self.leases[request] = child.id
        self._keep_alive[request] = asked.keep_alive

    def _refuse(self, request: int, why: Refusal, detail: str, retry_after: int = 0) -> None:
        self._commands.append(RefuseRequest(request, why, detail, retry_after))


def _why_expired(child: Child) -> str:
    """A request that came after somebody wanted the child gone has brought a keep-alive of its own."""
    if child.is_dismissed and child.keep_alive <= 0:
        return "somebody wants it gone"
    return "its ttl ran out" if child.ttl < child.keep_alive else "its keep-alive ran out"


def _clash(one: Demand, other: Demand) -> bool:
    """Whether the children of these two may not live together."""
    return one.key.model in other.event.conflicts or other.key.model in one.event.conflicts
