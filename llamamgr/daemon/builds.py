"""Which build a child starts from, looked up for every request and read from disk only when it changed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import msgspec

from llamamgr.core.cards import Build
from llamamgr.core.errors import LlamamgrError
from llamamgr.daemon.oracle import self_test
from llamamgr.host.paths import Paths
from llamamgr.instances.ladder import engine
from llamamgr.instances.store import Store
from llamamgr.instances.switching import fall_back

log = logging.getLogger(__name__)


_FRESH = 0.01


class _Known(msgspec.Struct):
    link: str
    build: Build
    looked: float


class CurrentBuilds:
    """The builds there are, as ``supervise.lease.Builds`` has them; without an instance, a llama-server on PATH is one.

    An instance's ``current`` link is swapped by rename, so one ``readlink`` tells whether what is remembered still holds; what it
    told holds for ``_FRESH`` seconds by ``clock``, which no command that switches builds can be quicker than.
    """

    def __init__(self, paths: Paths, preferred: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.preferred = preferred
        self._paths = paths
        self._store = Store(paths)
        self._root = str(self._store.root)
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def recall(self, instance: str = "") -> Build | None:
        """The build as it was found last, if nothing has changed since; costs a few system calls at most."""
        known = self._known.get(instance or self.preferred)
        if known is None:
            return None
        now = self._clock()
        if now - known.looked >= _FRESH:
            if known.link != self._link(known.build.card.instance) or not _is_unchanged(known.build):
                return None
            known.looked = now
        return known.build

    def __call__(self, instance: str = "") -> Build:
        """Look it up on disk; may test a linked build anew, which takes a second or two."""
        now = self._clock()
        build = engine(
            self._store, self._paths, lambda: self_test(self._paths), instance, self.preferred, log.warning
        )
        self._known[instance or self.preferred] = _Known(self._link(build.card.instance), build, now)
        return build

    def former(self, build: Build) -> str:
        """Key of the build to go back to; "" when there is none, or when ``build`` is not the current one."""
        card = build.card
        try:
            instance = self._store.instance(card.instance)
        except LlamamgrError:
            return ""
        former = self._store.former(card.instance) if instance.current == card.id else None
        return former.key if former else ""

    def give_up(self, build: Build, reason: str) -> Build | None:
        """Go back from ``build``; None when nothing was switched."""
        return fall_back(self._store, build.card.instance, build.card.id, reason)

    def _link(self, instance: str) -> str:
        try:
            return os.readlink(f"{self._root}/{instance}/current")  # noqa: PTH115 - asked for every request
        except OSError:
            return ""


def _is_unchanged(build: Build) -> bool:
    """Whether a linked build still is what its owner made it; others do not change."""
    if build.card.source.kind != "linked":
        return True
    from llamamgr.instances.link import is_unchanged  # brings what builds; most daemons never need it

    return is_unchanged(build)
