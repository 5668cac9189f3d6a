"""Who makes way for a demand that finds no room. Only answers are given here; the scheduler acts on them."""

from __future__ import annotations

from llamamgr.plan.events import Placement
from llamamgr.plan.situation import Situation
from llamamgr.plan.state import Child, Demand, Room


class Clearance:
    """What room for ``demand`` takes, beyond what is left in ``room``.

    Children that are stopping, and what those that are gone still hold, will be out of the way whatever is decided here; those that
    the demand's own child cannot live beside must be.
    """

    def __init__(self, situation: Situation, demand: Demand, room: Room, now: float) -> None:
        self._situation = situation
        self._demand = demand
        self._room = room
        self._now = now
        self._leaving = [child for child in situation.children.values() if child.state == "stopping"]
        self._must_go = [child for child in situation.clashing(demand) if child.state != "stopping"]

    def victims(self) -> tuple[Placement, list[Child]] | None:
        """The best place that can be cleared, and the idle children that go for it; None when busy ones are in the way of all."""
        idle = [child for child in self._by_worth() if self._may_go(child)]
        if any(child not in idle for child in self._must_go):
            return None
        others = [child for child in idle if child not in self._must_go]
        for placement in self._situation.candidates(self._demand):
            found = self._enough_of(others, placement)
            if found is not None:
                return placement, [*self._must_go, *found]
        return None

    def in_the_way(self) -> list[str]:
        """The children that must drain before the demand fits the best of its places, least worth first."""
        placement = self._situation.candidates(self._demand)[0]
        after, found = self._after(), list(self._must_go)
        for child in self._by_worth():
            if not after.short_of(placement) and not self._is_crowded(found):
                break
            if child.state == "ready" and not child.pinned and child not in self._must_go:
                after.give(child.placement)
                found.append(child)
        return [child.id for child in found]

    def _enough_of(self, idle: list[Child], placement: Placement) -> list[Child] | None:
        """The first of ``idle`` that help, as few as make ``placement`` fit; None when all of them are not enough."""
        after = self._after()
        victims: list[Child] = []
        for child in idle:
            short = after.short_of(placement)
            crowded = self._is_crowded([*self._must_go, *victims])
            if not short and not crowded:
                break
            if crowded or short & child.placement.need.keys():
                victims.append(child)
                after.give(child.placement)
        fits = not after.short_of(placement) and not self._is_crowded([*self._must_go, *victims])
        return victims if fits else None

    def _after(self) -> Room:
        """The room there will be when all are gone that go in any case."""
        after = Room(self._room.left)
        for child in (*self._leaving, *self._must_go):
            after.give(child.placement)
        for residue in self._situation.residues.values():
            after.give(residue.placement)
        return after

    def _is_crowded(self, going: list[Child]) -> bool:
        return self._situation.is_crowded(len(self._leaving) + len(going))

    def _may_go(self, child: Child) -> bool:
        """An idle, unpinned child that nobody waits for; once the demand is out of patience, nobody who comes before it."""
        if not child.is_idle or child.pinned:
            return False
        limits, demand = self._situation.limits, self._demand
        rivals = [d for d in self._situation.waiting.values() if child.key.serves(d.key)]
        if self._now - demand.since >= limits.patience:
            return not any(rival.rank < demand.rank for rival in rivals)
        return not rivals and self._now - child.ready_at >= limits.min_residency

    def _by_worth(self) -> list[Child]:
        """All children, least worth keeping first: cheap to bring back, and long unused."""
        return sorted(
            self._situation.children.values(),
            key=lambda c: (c.reload_seconds / (self._now - c.used + 0.001), c.used, c.id),
        )
