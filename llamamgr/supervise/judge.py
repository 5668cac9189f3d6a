"""After a death that nobody asked for: it is said and counted, and the build is taken back when it is to blame (``plan.trial``)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from llamamgr.core.cards import Build
from llamamgr.plan.trial import Trials
from llamamgr.supervise.lease import Builds
from llamamgr.supervise.measured import Measured
from llamamgr.supervise.running import Running
from llamamgr.supervise.tally import Tally
from llamamgr.supervise.threads import in_thread
from llamamgr.supervise.wishes import identity_of

log = logging.getLogger(__name__)


class Judge:
    """One per supervisor. ``measured`` knows which models ever loaded on a build, ``given_up`` is told of a build that was taken
    back.
    """

    def __init__(
        self, builds: Builds, measured: Measured, tally: Tally, given_up: Callable[[Build], None]
    ) -> None:
        self._builds = builds
        self._measured = measured
        self._tally = tally
        self._given_up = given_up
        self._trials = Trials()

    def started(self, build: Build) -> None:
        """A child of ``build`` was started."""
        self._trials.started(build.key, asyncio.get_running_loop().time())

    async def died(self, running: Running, cause: str) -> None:
        """A child died of ``cause``, while it loaded or later."""
        build, model = running.wish.build, running.wish.model
        log.error("%s died: %s", model.name, cause)
        self._tally.of(model.name).failed(cause, loading=not running.ready)
        former = await in_thread(self._builds.former, build)
        if not running.ready and not self._measured.has_loaded(model, former):
            return
        now = asyncio.get_running_loop().time()
        if self._trials.crashed(build.key, identity_of(model), now, former):
            await self._take_back(build, cause)

    async def _take_back(self, build: Build, cause: str) -> None:
        current = await in_thread(self._builds.give_up, build, cause)
        self._trials.forget(build.key)
        if current is not None:
            self._given_up(build)
            log.error(
                "build %s keeps crashing; instance %s is back on %s",
                build.key,
                build.card.instance,
                current.key,
            )
