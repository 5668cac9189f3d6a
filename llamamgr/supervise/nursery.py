"""Children from the plan's word to start one to what is remembered of it.

::

    start ── Life ── Child.run ──► cause ── ChildLost ── judged, if nobody asked for its end ── forgotten ── ChildExited
      └─ cannot be prepared ───────────────────────────────────────────────────────────────────────────────────┘

Each child has one owner, a task; whatever surprises that, the child's entries are removed and the plan is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict

from llamamgr.plan.events import ChildExited, ChildLost, Placement
from llamamgr.supervise.judge import Judge
from llamamgr.supervise.life import Life, Means
from llamamgr.supervise.running import Running
from llamamgr.supervise.wishes import Wish

log = logging.getLogger(__name__)

_REMEMBERED_DEAD = 64


class Nursery:
    """One per supervisor. ``running`` is the supervisor's own table: a child is in it from its start to its end."""

    def __init__(self, running: dict[str, Running], means: Means, judge: Judge) -> None:
        self._running = running
        self._means = means
        self._judge = judge
        self._dead: OrderedDict[str, str] = OrderedDict()
        self._unloaded: set[str] = set()  # those of the dead whose end was asked for

    def start(self, child_id: str, wish: Wish, placement: Placement) -> None:
        """Start a child for ``wish``. The end of one that cannot be prepared is told the plan later, as any other child's."""
        means, build = self._means, wish.build
        means.tally.of(wish.model.name).started()
        try:
            running = Life(child_id, wish, placement, means).running
        except OSError as error:
            cause = f"llama-server could not be prepared: {error}"
            asyncio.get_running_loop().call_soon(means.post, ChildExited(child_id, cause))
            return
        if running.child.launch.unsaid:
            log.warning("build %s has no option for: %s", build.key, ", ".join(running.child.launch.unsaid))
        asked, context = wish.options.context, wish.shape.context
        if asked > context:
            name = wish.model.name
            log.warning(
                "%s gets %d tokens of context, all it was trained for; asked were %d", name, context, asked
            )
        self._judge.started(build)
        means.memory.before_load(running)
        self._running[child_id] = running
        means.tasks.create_task(self._own(running), name=f"child {child_id}")

    async def cause_of_death(self, child_id: str, wait: float) -> str | None:
        """See ``lease.Children.cause_of_death``."""
        running = self._running.get(child_id)
        if running is not None:
            if running.child.cause and self._means.is_closing():
                return running.child.cause  # it is told to go, and may take its time
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await running.gone.wait()
        return self._dead.get(child_id)

    def was_unloaded(self, child_id: str) -> bool:
        """See ``lease.Children.was_unloaded``."""
        return child_id in self._unloaded

    async def _own(self, running: Running) -> None:
        child = running.child
        cause = "its owner was cancelled"
        try:
            cause = await child.run()
            self._means.post(ChildLost(child.id))
            if not self._is_wanted_gone(child.id):
                await self._judge.died(running, cause)
            elif not self._means.is_closing():
                self._unloaded.add(child.id)
        except Exception as error:
            # one child's surprise must not take the others down with it
            log.exception("child %s", child.id)
            cause = f"its supervision failed: {error}"
        finally:
            self._forget(running, cause)

    def _is_wanted_gone(self, child_id: str) -> bool:
        return self._means.is_closing() or self._means.plan.children[child_id].state == "stopping"

    def _forget(self, running: Running, cause: str) -> None:
        """All that is left of a child is why it died, for the requests that were on it."""
        means, child_id = self._means, running.child.id
        del self._running[child_id]
        means.memory.after_exit(running)
        means.children_file.remove(child_id)
        self._remember(child_id, cause)
        means.post(ChildExited(child_id, cause))
        running.gone.set()

    def _remember(self, child_id: str, cause: str) -> None:
        self._dead[child_id] = cause
        while len(self._dead) > _REMEMBERED_DEAD:
            self._unloaded.discard(self._dead.popitem(last=False)[0])
