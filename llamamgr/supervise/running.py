"""A running child as the supervisor holds it, and as people see it."""

from __future__ import annotations

import asyncio
import time

import msgspec

from llamamgr.host import memory as host_memory
from llamamgr.plan.events import HOST, Placement
from llamamgr.plan.scheduler import Scheduler
from llamamgr.supervise.child import Child
from llamamgr.supervise.lease import ChildStatus
from llamamgr.supervise.wishes import Wish


class Running(msgspec.Struct):
    """What the supervisor knows of a child beyond the plan. Times are wall clock seconds."""

    child: Child
    wish: Wish
    placement: Placement
    started: float
    ready: float = 0.0
    gone: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


def describe(running: Running, plan: Scheduler, child_id: str, now: float) -> ChildStatus:
    """One child for people; ``now`` is the plan's clock."""
    planned = plan.children[child_id]
    left = planned.keep_alive if planned.leases or planned.state == "loading" else planned.expires - now
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
        memory_gpu=sum(size for device, size in planned.placement.need.items() if device != HOST),
        devices=planned.placement.devices,
        pinned=planned.pinned,
        started=running.started,
        expires=time.time() + left,
    )
