"""Which build a child starts from, looked up for every request and read from disk only when it changed."""

from __future__ import annotations

from llamamgr.core.cards import Build
from llamamgr.core.errors import LlamamgrError
from llamamgr.instances.store import Store
from llamamgr.instances.switching import fall_back


class CurrentBuilds:
    """Callable: instance name ("" = the configured one) → its current build; raises as ``Store.choose`` does.

    An instance's ``current`` link is swapped by rename, so one ``readlink`` tells whether what is remembered still holds.
    """

    def __init__(self, store: Store, preferred: str) -> None:
        self._store = store
        self.preferred = preferred
        self._known: dict[str, tuple[str, Build]] = {}

    def __call__(self, instance: str = "") -> Build:
        known = self._known.get(instance or self.preferred)
        if known is not None and known[0] == self._link(known[1].card.instance):
            return known[1]
        build = self._store.choose(instance, self.preferred)
        self._known[instance or self.preferred] = (self._link(build.card.instance), build)
        return build

    def former(self, build: Build) -> str:
        """See ``supervise.lease.Builds.former``."""
        card = build.card
        try:
            instance = self._store.instance(card.instance)
        except LlamamgrError:
            return ""
        former = self._store.former(card.instance) if instance.current == card.id else None
        return former.key if former else ""

    def give_up(self, build: Build, reason: str) -> Build | None:
        """See ``supervise.lease.Builds.give_up``."""
        return fall_back(self._store, build.card.instance, build.card.id, reason)

    def _link(self, instance: str) -> str:
        try:
            return str((self._store.root / instance / "current").readlink())
        except OSError:
            return ""
