"""Removing builds that nobody needs, and whole instances. Nothing that runs is removed, nor what an instance may go back to."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from llamamgr.core.cards import Build
from llamamgr.core.errors import ConflictError, InvalidNameError
from llamamgr.core.names import parse_instance_name
from llamamgr.host import git
from llamamgr.host.files import locked
from llamamgr.host.paths import Paths
from llamamgr.host.running import processes_in
from llamamgr.instances.build import size_of
from llamamgr.instances.card_files import readable_builds
from llamamgr.instances.ledger import read_ledger, write_ledger
from llamamgr.instances.sources import archives_of, kept_sources, sources_of
from llamamgr.instances.store import Instance, Store

_HALF = "*.git.partial-*"

IsBusy = Callable[[Build], bool]


class Pruned(msgspec.Struct, frozen=True):
    """What was removed of one instance: build ids, bytes that are free now, and the builds that stay because they run."""

    name: str
    removed: tuple[str, ...]
    freed: int
    running: tuple[str, ...]


def prune(store: Store, name: str, keep: int, is_busy: IsBusy = lambda build: False) -> Pruned:
    """Remove the builds of an instance but the ``keep`` newest verified ones, the current one, its former, and those that run.

    ``is_busy`` may know of children that the list of processes does not tell. ``ConflictError`` while the instance is being built,
    ``NotFoundError`` without it.
    """
    store.instance(name)
    with store.changing(name) as workshop, store.moving(name) as folder:
        instance = store.instance(name)
        superfluous = _superfluous(instance, keep)
        running = tuple(b for b in superfluous if is_busy(b) or processes_in(Path(b.root)))
        gone = tuple(build for build in superfluous if build not in running)
        freed = 0
        for build in gone:
            aside = workshop.scratch / build.card.id
            Path(build.root).rename(aside)  # half a build is never seen
            freed += size_of(aside)
            shutil.rmtree(aside)
            (folder / "logs" / f"{build.card.id}.log").unlink(missing_ok=True)
        ids = tuple(build.card.id for build in gone)
        if any(instance.ledger.mark(removed) for removed in ids):
            write_ledger(folder, read_ledger(folder).forgetting(ids))
    return Pruned(name, ids, freed, tuple(build.card.id for build in running))


class Discarded(msgspec.Struct, frozen=True):
    """A source that was removed: the address of a mirror or the name of an archive, and the bytes that are free now."""

    name: str
    freed: int


def prune_sources(store: Store, paths: Paths) -> tuple[Discarded, ...]:
    """Remove the mirrors and source archives that no instance and no build comes from.

    What another process is just reading stays, and a mirror in whose work tree one is building. All of it can be fetched again.
    Also what clones and bisects left that were killed. Nothing while an instance cannot be read.
    """
    found, unreadable = store.instances()
    if unreadable:  # nobody knows what those were built from
        return ()
    used = [i.spec.source for i in found] + [build.card.source for i in found for build in i.builds]
    wanted = {path for source in used for path in kept_sources(source, paths)}
    there = [*sources_of(paths).glob("*.git"), *archives_of(paths).glob("*.tar.gz")]
    gone = [_discard_source(path) for path in sorted(there) if path not in wanted]
    halves = {path.name.partition(".git.partial-")[0] for path in sources_of(paths).glob(_HALF)}
    gone += [_discard_halves(sources_of(paths), mirror) for mirror in sorted(halves)]
    gone.append(_discard_bisect(paths))
    return tuple(one for one in gone if one is not None)


def prune_embryos(store: Store) -> tuple[str, ...]:
    """Remove what first installs left that came to nothing, logs included; the names. One that is at work stays."""
    removed = []
    for name in store.embryos():
        with contextlib.suppress(ConflictError, InvalidNameError), store.changing(name) as workshop:
            store.clear_embryo(workshop.folder)
            removed.append(name)
    return tuple(removed)


def _discard_source(path: Path) -> Discarded | None:
    aside = path.with_name(f".removed-{path.name}")
    try:
        with locked(path.with_suffix(".lock"), f"the source {path.name}"):
            if path.is_dir() and git.is_in_use(path):
                return None
            path.rename(aside)
    except ConflictError:
        return None
    name = git.origin(aside) if aside.is_dir() else path.name
    freed = size_of(aside) if aside.is_dir() else aside.stat().st_size
    shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
    return Discarded(name or path.name, freed)


def _discard_halves(folder: Path, mirror: str) -> Discarded | None:
    """What clones of ``mirror`` left that were killed."""
    freed = 0
    try:
        with locked(folder / f"{mirror}.lock", f"the source {mirror}.git"):
            for half in folder.glob(f"{mirror}{_HALF.removeprefix('*')}"):
                freed += size_of(half)
                shutil.rmtree(half, ignore_errors=True)
    except ConflictError:
        return None
    return Discarded(f"{mirror}.git, half of it", freed)


def _discard_bisect(paths: Paths) -> Discarded | None:
    """The folder of a bisect that was killed."""
    folder = paths.data / "bisect"
    if not folder.is_dir():
        return None
    try:
        with locked(paths.data / "locks" / "bisect.lock", "the folder of a bisect"):
            freed = size_of(folder)
            shutil.rmtree(folder, ignore_errors=True)
    except ConflictError:
        return None
    return Discarded("of a bisect that was killed", freed)


def uninstall(store: Store, name: str, is_busy: IsBusy = lambda build: False) -> int:
    """Remove an instance with all its builds, one that cannot be read, too; the bytes that are free now.

    ``ConflictError`` while one of its builds runs or another process changes it; ``NotFoundError`` without it.
    """
    if not (store.root / parse_instance_name(name) / "instance.toml").is_file():
        store.instance(name)  # tells what there is instead
    aside = store.root / f".removed-{name}-{os.getpid()}"
    with store.changing(name), store.moving(name) as folder:
        busy = [b.card.id for b in readable_builds(folder) if is_busy(b) or processes_in(Path(b.root))]
        if not busy and (running := processes_in(folder)):  # of a build whose card cannot be read
            busy = [f"pid {pid}" for pid in running]
        if busy:
            raise ConflictError(
                f"instance {name!r} is running ({', '.join(busy)})",
                "stop its models first: `llamamgr ps`, `llamamgr stop MODEL`",
            )
        folder.rename(aside)
    freed = size_of(aside)
    for left in store.root.glob(".removed-*"):  # those of processes that were killed here, too
        shutil.rmtree(left, ignore_errors=True)
    return freed


def _superfluous(instance: Instance, keep: int) -> tuple[Build, ...]:
    verified = [build.card.id for build in instance.builds if build.card.verified]
    needed = {instance.current, *verified[:keep], *(build.card.id for build in instance.formers[:1])}
    return tuple(build for build in instance.builds if build.card.id not in needed)
