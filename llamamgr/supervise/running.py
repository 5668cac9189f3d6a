"""A running child as the supervisor holds it, and as people see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import msgspec

from llamamgr.host import memory as host_memory
from llamamgr.plan.events import Placement
from llamamgr.plan.scheduler import Scheduler
from llamamgr.supervise.child import Child
from llamamgr.supervise.lease import ChildStatus
from llamamgr.supervise.pace import Pace
from llamamgr.supervise.wishes import Wish


class Running(msgspec.Struct):
    """What the supervisor knows of a child beyond the plan. Times are wall clock seconds.

    ``free_before`` is what was free on each GPU when it started, ``stirred`` how often children had come and gone there;
    ``grew`` is what was less free once it was ready, if nothing else could be the cause.
    """

    child: Child
    wish: Wish
    placement: Placement
    started: float
    pace: Pace
    ready: float = 0.0
    free_before: dict[str, int] = msgspec.field(default_factory=dict)
    stirred: int = 0
    grew: dict[str, int] = msgspec.field(default_factory=dict)
    gone: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


def describe(
    running: Running, plan: Scheduler, child_id: str, now: float, held: Mapping[str, int]
) -> ChildStatus:
    """One child for people; ``now`` is the plan's clock, ``held`` what it holds on GPUs if that is known."""
    planned = plan.children[child_id]
    left = planned.stay if planned.leases or planned.state == "loading" else planned.expires - now
    return ChildStatus(
        id=child_id,
        model=running.wish.model,
        build=running.wish.build.key,
        build_number=running.wish.build.card.number,
        state=planned.state,
        pid=running.child.pid,
        context=running.wish.shape.context,
        slots=running.wish.shape.parallel,
        busy=len(planned.leases),
        queued=plan.queued(planned),
        memory=host_memory.resident(running.child.pid),
        memory_gpu=sum(held.values()) or sum(planned.placement.need[name] for name in planned.placement.gpus),
        memory_devices=dict(held),
        devices=planned.placement.devices,
        pinned=planned.pinned,
        planned=planned.placement.need,
        started=running.started,
        expires=time.time() + left,
        memory_planned=planned.placement.total,
        tokens_per_second=running.pace.value(busy=bool(planned.leases)),
    )
