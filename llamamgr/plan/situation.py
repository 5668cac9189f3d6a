"""What is the case now: who runs, who waits, what memory is taken. Only questions are answered here; nothing changes."""

from __future__ import annotations

import math

from llamamgr.plan.events import ChildKey, Limits, Placement, Requested
from llamamgr.plan.placement import best_tier
from llamamgr.plan.state import Child, Demand, Residue, Room


class Situation:
    """Children, demands in the order they came, leases (request → child), and what children that are gone may still hold."""

    def __init__(self, budget: dict[str, int], limits: Limits) -> None:
        self.budget = budget
        self.limits = limits
        self.children: dict[str, Child] = {}
        self.waiting: dict[int, Demand] = {}
        self.leases: dict[int, str] = {}
        self.residues: dict[str, Residue] = {}

    # -- who waits

    def queued(self, child: Child) -> int:
        """Demands that wait for this child."""
        return sum(1 for demand in self.waiting.values() if child.key.serves(demand.key))

    def is_wanted(self, child: Child) -> bool:
        """Somebody waits who will be granted it."""
        return not child.superseded and any(child.key.serves(d.key) for d in self.waiting.values())

    def in_order(self) -> list[Demand]:
        """The demands, oldest first; a priority counts as age."""
        waiting = list(self.waiting.values())
        if any(demand.event.priority for demand in waiting):
            waiting.sort(key=lambda demand: demand.rank)
        return waiting

    def next_due(self, now: float) -> float:
        """When time alone will change something, after ``now``; infinite when nothing waits for time."""
        limits, soonest = self.limits, math.inf
        idle = [child for child in self.children.values() if child.is_idle]
        for child in idle:
            if now < child.expires < soonest:
                soonest = child.expires
        if not self.waiting:
            return soonest
        # demands wait in the order they came, so of each limit the first that is not past is the soonest
        for limit in (limits.queue_wait, limits.patience):
            coming = (demand.since + limit for demand in self.waiting.values())
            soonest = min(soonest, next((at for at in coming if at > now), math.inf))
        due = [residue.until for residue in self.residues.values()]
        if limits.min_residency:
            due += [child.ready_at + limits.min_residency for child in idle]
        return min((at for at in due if now < at < soonest), default=soonest)

    # -- who runs

    def fitting(self, key: ChildKey) -> Child | None:
        """The child that takes requests for ``key``: a ready one before others, the smallest context that is enough."""
        best = None
        for child in self.children.values():
            if child.state == "stopping" or child.superseded or not child.key.serves(key):
                continue
            if best is None or (child.state != "ready", child.key.context) < (
                best.state != "ready",
                best.key.context,
            ):
                best = child
        return best

    def clashing(self, demand: Demand) -> list[Child]:
        """The children that its own cannot live beside."""
        model, conflicts = demand.key.model, demand.event.conflicts
        return [child for child in self.children.values() if child.clashes(model, conflicts)]

    def is_crowded(self, leaving: int = 0) -> bool:
        """There are as many children as may be, even once ``leaving`` of them are gone."""
        limit = self.limits.max_models
        return bool(limit) and len(self.children) - leaving >= limit

    # -- memory

    def taken(self) -> list[Placement]:
        """Of all children, and of those whose memory has yet to be seen free."""
        gone = [residue.placement for residue in self.residues.values()]
        return [child.placement for child in self.children.values()] + gone

    def room(self) -> Room:
        """What is left of the budget now."""
        return Room(self.budget, self.taken())

    def candidates(self, demand: Demand) -> list[Placement]:
        """The best places that memory could ever hold, best first: all but pinned children may make way."""
        pinned = [child.placement for child in self.children.values() if child.pinned]
        return best_tier(demand.event.placements, Room(self.budget, pinned))

    def is_too_big(self, asked: Requested) -> bool:
        """The whole budget could not hold it."""
        whole = Room(self.budget)
        return all(whole.short_of(place) for place in asked.placements)

    def lacks_room(self) -> bool:
        """Somebody waits for memory, and not for a child that is there or on its way."""
        return any(self.fitting(demand.key) is None for demand in self.waiting.values())
