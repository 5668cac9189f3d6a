"""Which of an instance's builds is the current one: chosen, gone back from, fallen back from, kept.

Every switch is one rename of the ``current`` link under ``Store.moving``, which a running build does not hold: going back never
waits for the next build. Children that run keep the files of the build they were started from.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from llamamgr.core.cards import Build
from llamamgr.core.errors import ConflictError, NotFoundError
from llamamgr.instances.card_files import write_card
from llamamgr.instances.ledger import Mark, Why, read_ledger, write_ledger
from llamamgr.instances.store import Instance, Store, point


def fall_back(store: Store, name: str, bad_build_id: str, reason: str) -> Build | None:
    """``bad_build_id`` proved bad in use: mark it with ``reason`` and go back to the nearest former verified build.

    Returns the build that is current now because of this; None when nothing was switched, since there is no such build, or since
    another build is current already (the mark is made all the same). ``NotFoundError`` without the instance.
    """
    with store.moving(name) as folder:
        ledger = read_ledger(folder).with_mark(Mark(bad_build_id, reason, _now()))
        write_ledger(folder, ledger)
        instance = store.instance(name)
        target = next((build for build in instance.formers if build.card.verified), None)
        if instance.current != bad_build_id or target is None:
            return None
        point(folder, target.card.id, "fallback", f"{bad_build_id}: {reason}", ledger)
        return target


def switch(store: Store, name: str, build_id: str, reason: str = "", why: Why = "use") -> Build:
    """Make ``build_id`` current; nothing changes when it is. ``NotFoundError`` without it.

    ``ConflictError`` for a build that failed its verification and was never current.
    """
    with store.moving(name) as folder:
        instance = store.instance(name)
        build = store.build(name, build_id)
        if build_id != instance.current:
            _refuse_unfit(instance, build)
            point(folder, build_id, why, reason)
        return build


def rollback(store: Store, name: str, build_id: str = "") -> Build:
    """Go back to the build that was current before this one, or to ``build_id``, which may be written as ``b11434``.

    ``NotFoundError`` when there is none; ``ConflictError`` when ``build_id`` is current already, or unfit.
    """
    with store.moving(name) as folder:
        instance = store.instance(name)
        target = _named(instance, build_id) if build_id else _before(instance)
        if target.card.id == instance.current:
            raise ConflictError(
                f"{target.card.id} is the current build of instance {name!r} already",
                "`llamamgr instances` lists the others",
            )
        _refuse_unfit(instance, target)
        is_former = target.card.id in instance.ledger.stack(instance.current)
        point(
            folder, target.card.id, "rollback" if is_former else "use", f"from {instance.current or 'none'}"
        )
        return target


def set_pinned(store: Store, name: str, pinned: bool) -> bool:
    """Whether ``update`` passes the instance over from now on; says whether that changed anything."""
    with store.moving(name) as folder:
        spec = store.instance(name).spec
        if spec.pinned == pinned:
            return False
        write_card(folder / "instance.toml", msgspec.structs.replace(spec, pinned=pinned))
        return True


def build_named(instance: Instance, text: str) -> Build:
    """The build whose id, number (``b11434`` or ``11434``) or commit ``text`` is; the newest when several are.

    ``NotFoundError`` names those there are.
    """
    return _named(instance, text)


def _named(instance: Instance, text: str) -> Build:
    for is_meant in (
        lambda build: build.card.id == text,
        lambda build: f"b{build.card.number}" == f"b{text.removeprefix('b')}",
        lambda build: len(text) >= 4 and build.card.commit.startswith(text),
    ):
        found = [build for build in instance.builds if is_meant(build)]
        if found:
            return found[0]
    there = ", ".join(build.card.id for build in instance.builds) or "none"
    raise NotFoundError(f"instance {instance.spec.name!r} has no build {text!r}", f"its builds: {there}")


def _before(instance: Instance) -> Build:
    former = next(iter(instance.formers), None)
    if former is None:
        others = [b.card.id for b in instance.builds if b.card.id != instance.current]
        hint = f"name one of its other builds: {', '.join(others)}" if others else "it has no other build"
        raise NotFoundError(f"instance {instance.spec.name!r} has no former build to go back to", hint)
    return former


def _refuse_unfit(instance: Instance, build: Build) -> None:
    """A build that gave wrong answers serves nobody; one that was accepted without being tested has been current."""
    was_current = any(event.build == build.card.id for event in instance.ledger.events)
    if not build.card.verified and not was_current:
        raise ConflictError(
            f"build {build.card.id} of instance {instance.spec.name!r} failed its verification: {build.card.verify_note}",
            f"it is kept for inspection in {Path(build.root)}",
        )


def _now() -> float:
    return round(time.time(), 3)
