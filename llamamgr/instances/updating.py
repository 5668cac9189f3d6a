"""Bringing an instance to the newest that its source has. The new build is made and verified beside the one that runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from llamamgr.core.cards import Build
from llamamgr.core.errors import NotFoundError, UsageError
from llamamgr.host import package_index
from llamamgr.host.paths import Paths
from llamamgr.instances.build import Report
from llamamgr.instances.install import Installed, install, locate
from llamamgr.instances.ledger import Mark
from llamamgr.instances.link import refreshed
from llamamgr.instances.recipes import recipe_for
from llamamgr.instances.sources import Found
from llamamgr.instances.store import Instance, Store
from llamamgr.instances.verify import SelfTest
from llamamgr.instances.wishes import Wish, merged

Outcome = Literal["built", "switched", "relinked", "newest", "pinned", "held back"]


class Updated(msgspec.Struct, frozen=True):
    """What came of it: the build that is current now, that which was before, and for ``held back`` the bad newer one."""

    name: str
    outcome: Outcome
    build: Build | None
    former: Build | None = None
    mark: Mark | None = None


def update(wish: Wish, paths: Paths, test: SelfTest, report: Report) -> Updated:
    """Update the instance that ``wish`` names; where it says more (a version, options), the instance is changed so.

    A pinned instance is passed over. ``NotFoundError`` when there is nothing to update; else as ``install``.
    """
    store = Store(paths)
    instance = existing(store, wish.instance)
    merged(instance.spec, wish, paths)  # what it cannot have is told first
    if instance.spec.pinned:
        return Updated(wish.instance, "pinned", instance.current_build)
    former = instance.current_build
    if instance.spec.source is not None and instance.spec.source.kind == "linked":
        if former is None:
            former = store.current(wish.instance)
        now = refreshed(former, store, paths, test)
        return Updated(wish.instance, "newest" if now == former else "relinked", now, former)
    done = install(msgspec.structs.replace(wish, fresh=True), paths, test, report)
    return Updated(wish.instance, _outcome(done), done.build, former, done.held_back)


def pull(
    wish: Wish, paths: Paths, say: Callable[[str], None], log: Callable[[str], None] = lambda line: None
) -> Found:
    """Fetch what the instance would be built from, and stop there. Neither instance nor builds change."""
    store = Store(paths)
    former = store.find(wish.instance)
    spec = merged(former.spec if former else None, wish, paths)
    if spec.source is not None and spec.source.kind in ("prebuilt", "linked"):
        has = "takes release archives" if spec.source.kind == "prebuilt" else "is linked to programs"
        raise UsageError(
            f"instance {wish.instance!r} {has}, which have no source to fetch",
            "leave --pull-only out, or name a source: --repo-url URL",
        )
    found, _ = locate(spec.source, recipe_for(paths, spec.arch), paths, say, log)
    if found.source.kind == "package":
        package_index.download_source(found.source.location, found.source.ref, paths.cache / "packages", log)
    return found


def existing(store: Store, name: str) -> Instance:
    """The instance to update; ``NotFoundError`` in the words of an update."""
    try:
        return store.instance(name)
    except NotFoundError as error:
        raise NotFoundError(f"Instance {name} is not installed, nothing to update.", error.hint) from None


def _outcome(done: Installed) -> Outcome:
    if done.held_back is not None:
        return "held back"
    if done.is_new:
        return "built"
    return "switched" if done.has_moved else "newest"
