"""Which build a child starts from, looked up for every request and read from disk only when it changed."""

from __future__ import annotations

from llamamgr.core.cards import Build
from llamamgr.instances.store import Store


class CurrentBuilds:
    """Callable: instance name ("" = the configured one) → its current build; raises as ``Store.choose`` does.

    An instance's ``current`` link is swapped by rename, so one ``readlink`` tells whether what is remembered still holds.
    """

    def __init__(self, store: Store, preferred: str) -> None:
        self._store = store
        self._preferred = preferred
        self._known: dict[str, tuple[str, Build]] = {}

    def __call__(self, name: str = "") -> Build:
        known = self._known.get(name)
        if known is not None and known[0] == self._link(known[1].card.instance):
            return known[1]
        build = self._store.choose(name, self._preferred)
        self._known[name] = (self._link(build.card.instance), build)
        return build

    def _link(self, instance: str) -> str:
        try:
            return str((self._store.root / instance / "current").readlink())
        except OSError:
            return ""
