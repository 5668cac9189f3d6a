"""The scheduler's state: demands, children, troubles, and room on devices. Times are seconds on one monotonic clock."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import msgspec

from llamamgr.plan.events import ChildKey, Limits, Placement, Requested

PRIORITY_SECONDS = 10.0


class Demand(msgspec.Struct):
    event: Requested
    since: float

    @property
    def request(self) -> int:
        return self.event.request

    @property
    def key(self) -> ChildKey:
        return self.event.key

    @property
    def start_key(self) -> ChildKey:
        return self.event.start_key or self.event.key

    @property
    def rank(self) -> tuple[float, int]:
        """Smaller goes first: age, with priority counted as age."""
        return self.since - self.event.priority * PRIORITY_SECONDS, self.request


class Child(msgspec.Struct):
    id: str
    key: ChildKey
    placement: Placement
    slots: int
    keep_alive: float
    reload_seconds: float = 1.0
    pinned: bool = False
    ttl: float = math.inf
    conflicts: frozenset[str] = frozenset()
    state: Literal["loading", "ready", "lost", "stopping"] = "loading"
    was_loading: bool = False
    superseded: str = ""  # why it takes no new requests
    is_dismissed: bool = False  # its keep-alive is what somebody said who wants it gone
    leases: set[int] = msgspec.field(default_factory=set)
    ready_at: float = 0.0
    used: float = 0.0
    expires: float = math.inf

    @property
    def is_idle(self) -> bool:
        return self.state == "ready" and not self.leases

    @property
    def stay(self) -> float:
        """Seconds it stays once it is idle."""
        return math.inf if self.pinned else min(self.keep_alive, self.ttl)

    def clashes(self, model: str, conflicts: frozenset[str]) -> bool:
        return self.key.model in conflicts or model in self.conflicts


class Residue(msgspec.Struct, frozen=True):
    """What a child that is gone may still hold on GPUs; it counts as taken until told otherwise, or until ``until``."""

    placement: Placement
    until: float


class Trouble(msgspec.Struct):
    """Recent failures of one key: when they happened, until when nothing is started, and why."""

    times: list[float] = msgspec.field(default_factory=list)
    until: float = 0.0
    cause: str = ""


class Troubles:
    """What failed lately, by key."""

    def __init__(self) -> None:
        self._known: dict[ChildKey, Trouble] = {}

    def note(self, key: ChildKey, cause: str, now: float, limits: Limits, *, loading: bool) -> None:
        """Back off exponentially: from the second failed load in the window, or once more crashes than allowed happened."""
        window = limits.crash_window
        self._known = {k: t for k, t in self._known.items() if t.until > now or now - t.times[-1] < window}
        trouble = self._known.setdefault(key, Trouble())
        trouble.times = [t for t in trouble.times if now - t < window] + [now]
        trouble.cause = cause
        excess = len(trouble.times) - (1 if loading else limits.crashes_allowed)
        if excess > 0:
            trouble.until = now + min(60.0, 2.0**excess)

    def cooling(self, key: ChildKey, now: float) -> Trouble | None:
        """The trouble because of which nothing of ``key`` is started now."""
        trouble = self._known.get(key)
        return trouble if trouble is not None and trouble.until > now else None

    def forgive(self, key: ChildKey) -> None:
        """It works: what failed before holds nothing up any more."""
        if key in self._known:
            self._known[key].until = 0.0


class Room:
    """What is left of a budget, less what is ``taken``, device by device; a device without a budget has no room."""

    def __init__(self, budget: dict[str, int], taken: Iterable[Placement] = ()) -> None:
        self.left = dict(budget)
        for placement in taken:
            self.take(placement)

    def take(self, placement: Placement) -> None:
        for device, size in placement.need.items():
            self.left[device] = self.left.get(device, 0) - size

    def give(self, placement: Placement) -> None:
        for device, size in placement.need.items():
            self.left[device] = self.left.get(device, 0) + size

    def short_of(self, placement: Placement) -> set[str]:
        """The devices that hold too little for ``placement``."""
        return {device for device, size in placement.need.items() if size and self.left.get(device, 0) < size}
