"""Instances and builds on disk.

::

    <data>/instances/<name>/instance.toml   what is wanted
    <data>/instances/<name>/builds/<id>/    bin/ lib/ share/ build.toml   immutable once published
    <data>/instances/<name>/current         → builds/<id>, swapped by rename
    <data>/instances/<name>/history.toml    what was current when and why; builds known to be bad
    <data>/instances/<name>/logs/<id>.log   the full output of that build
    <data>/instances/<name>/.scratch-<pid>  work in progress, removed by whoever holds the lock next

Reading takes no lock and tolerates strangers: they are warned about. There are two locks for each instance: ``Store.changing`` is
held for as long as a build takes, ``Store.moving`` for the moment in which something becomes current. So an instance can be rolled
back, by a person or by the daemon, while its next build is under way.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec

from llamamgr.core.cards import Build, BuildCard, InstanceSpec
from llamamgr.core.errors import (
    ConfigError,
    ConflictError,
    InvalidNameError,
    MissingToolError,
    NotFoundError,
    PermissionDeniedError,
)
from llamamgr.core.names import parse_instance_name
from llamamgr.host.files import locked
from llamamgr.host.paths import Paths
from llamamgr.host.running import is_alive
from llamamgr.instances.card_files import folders_in, read_build, read_card, write_card
from llamamgr.instances.ledger import Event, Ledger, Why, read_ledger, write_ledger

_SCRATCH = ".scratch-"
_LOGS_KEPT = 10
_MOVING = 10.0  # seconds to wait for somebody else's switch, which takes milliseconds

Passed = Callable[[str], None]


class Instance(msgspec.Struct, frozen=True):
    """A named installation: what is wanted, its builds (newest first), the id of the current one ("" = none), its history."""

    spec: InstanceSpec
    builds: tuple[Build, ...]
    current: str
    root: str
    ledger: Ledger = Ledger()

    @property
    def current_build(self) -> Build | None:
        return next((build for build in self.builds if build.card.id == self.current), None)

    @property
    def formers(self) -> tuple[Build, ...]:
        """The builds to go back to, nearest first: once current, still there, and not known to be bad.

        An instance whose history does not reach back to its current build is taken to have had its older verified builds.
        """
        there = {build.card.id: build for build in self.builds}
        trail = self.ledger.stack(self.current)[-2::-1]
        if not trail and (now := there.get(self.current)) is not None:
            trail = tuple(
                b.card.id for b in self.builds if b.card.verified and b.card.created < now.card.created
            )
        return tuple(there[name] for name in trail if name in there and self.ledger.mark(name) is None)


class Store:
    """All instances under ``paths.instances``."""

    def __init__(self, paths: Paths) -> None:
        self.root = paths.instances
        self._locks = paths.data / "locks"

    def instances(self) -> tuple[tuple[Instance, ...], tuple[str, ...]]:
        """Every instance by name, and a warning for each thing that should not be there or cannot be read."""
        found: list[Instance] = []
        warnings: list[str] = []
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            if folder.name.startswith(".") or _is_embryo(folder):
                continue
            try:
                found.append(self._read(folder, warnings))
            except (ConfigError, PermissionDeniedError) as error:
                warnings.append(f"{error.what}; {error.hint}")
            except (InvalidNameError, NotFoundError) as error:
                warnings.append(f"{folder}: {error.what}")
        return tuple(found), tuple(warnings)

    def find(self, name: str) -> Instance | None:
        """One instance; None where there is none of that name. Errors as ``instance`` for one that cannot be read."""
        folder = self.root / parse_instance_name(name)
        return self._read(folder, []) if (folder / "instance.toml").is_file() else None

    def fallbacks(self) -> dict[str, Event]:
        """How the instances came to their builds that went back by themselves; reads no more than their histories."""
        found: dict[str, Event] = {}
        for folder in folders_in(self.root):
            event = read_ledger(folder).arrival(_target_of(folder / "current"))
            if event is not None and event.why == "fallback":
                found[folder.name] = event
        return found

    def instance(self, name: str) -> Instance:
        """One instance; ``NotFoundError`` names those there are."""
        found = self.find(name)
        if found is None:
            raise NotFoundError(f"there is no instance {name!r}", self._instead(name))
        return found

    def builds(self, name: str) -> tuple[Build, ...]:
        """The builds of an instance, newest first."""
        return self.instance(name).builds

    def build(self, name: str, build_id: str) -> Build:
        """One build; ``NotFoundError`` names those there are."""
        builds = self.builds(name)
        for build in builds:
            if build.card.id == build_id:
                return build
        there = ", ".join(build.card.id for build in builds) or "none"
        raise NotFoundError(f"instance {name!r} has no build {build_id!r}", f"its builds: {there}")

    def current(self, name: str) -> Build:
        """The build that an instance runs; ``NotFoundError`` without the instance, ``MissingToolError`` without a build."""
        build = self.instance(name).current_build
        if build is None:
            raise MissingToolError(
                f"instance {name!r} has no working build", f"run `llamamgr install --instance {name}`"
            )
        return build

    def former(self, name: str) -> Build | None:
        """The build that going back leads to; None when there is none. ``NotFoundError`` without the instance."""
        return next(iter(self.instance(name).formers), None)

    def choose(self, name: str = "", preferred: str = "default") -> Build:
        """The build of ``name``; unnamed, that of ``preferred``, else of the only instance that has one.

        ``MissingToolError`` with the command that mends it when there is nothing to choose.
        """
        if name:
            return self.current(name)
        found = self.instances()[0]
        usable = {i.spec.name: b for i in found if (b := i.current_build) is not None}
        if (build := usable.get(stand_in(preferred, usable))) is not None:
            return build
        if usable:
            raise NotFoundError(
                f"there is no instance {preferred!r}",
                f"there are: {', '.join(usable)}; `llamamgr use NAME` chooses one for all commands",
            )
        what = "no instance has a working build" if found else "no llama.cpp is installed yet"
        raise MissingToolError(what, "run `llamamgr install`")

    def stand_in(self, preferred: str) -> str:
        """The instance whose build ``choose`` takes where only ``preferred`` is said."""
        return stand_in(preferred, [i.spec.name for i in self.instances()[0] if i.current_build is not None])

    @contextlib.contextmanager
    def changing(self, name: str) -> Iterator[Workshop]:
        """The right to change one instance, with a scratch folder that is gone afterwards.

        ``ConflictError`` at once when another process has it. What dead holders left is removed first.
        """
        folder = self.root / parse_instance_name(name)
        with locked(self._locks / f"instance-{name}.lock", f"instance {name!r}"):
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
            scratch = folder / f"{_SCRATCH}{os.getpid()}"
            scratch.mkdir()
            try:
                yield Workshop(self, name, folder, scratch)
            except KeyboardInterrupt:
                self.clear_embryo(folder)
                raise
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
                _remove_when_empty(folder)

    def embryos(self) -> tuple[str, ...]:
        """Names of the folders that hold no instance: a first install is at work there, or came to nothing."""
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return tuple(f.name for f in folders if not f.name.startswith(".") and _is_embryo(f))

    def clear_embryo(self, folder: Path) -> None:
        """Forget what a first install told before it came to nothing; only inside ``changing``, which drops the empty folder."""
        if _is_embryo(folder):
            shutil.rmtree(folder / "logs", ignore_errors=True)

    @contextlib.contextmanager
    def moving(self, name: str) -> Iterator[Path]:
        """The right to say what is current, for a moment; yields the instance's folder. ``NotFoundError`` without the instance."""
        folder = self.root / parse_instance_name(name)
        if not folder.is_dir():
            raise NotFoundError(f"there is no instance {name!r}", self._instead(name))
        with locked(self._locks / f"moving-{name}.lock", f"instance {name!r}", wait=_MOVING):
            for left in folder.glob(".current-*"):
                left.unlink(missing_ok=True)
            yield folder

    def _read(self, folder: Path, warnings: list[str]) -> Instance:
        file = folder / "instance.toml"
        spec = read_card(file, InstanceSpec)
        if spec.name != parse_instance_name(folder.name):
            raise ConfigError(
                f"{file} says that it is {spec.name!r}", "the folder must be called what is said there"
            )
        builds: list[Build] = []
        for path in folders_in(folder / "builds"):
            try:
                builds.append(read_build(path))
            except (ConfigError, PermissionDeniedError) as error:
                warnings.append(f"{error.what}; {error.hint}")
        builds.sort(key=lambda build: build.card.created, reverse=True)
        return Instance(spec, tuple(builds), _target_of(folder / "current"), str(folder), read_ledger(folder))

    def _instead(self, name: str) -> str:
        if name in self.embryos():
            if _is_at_work(self.root / name):
                return "its first install is under way; wait for it to finish"
            return "a first install of it came to nothing; `llamamgr prune` removes what that left"
        names = [instance.spec.name for instance in self.instances()[0]]
        return (
            f"there are: {', '.join(names)}" if names else "none is installed; `llamamgr install` makes one"
        )


class Workshop:
    """One instance, locked, with a ``scratch`` folder on the same disk. Made by ``Store.changing``."""

    def __init__(self, store: Store, name: str, folder: Path, scratch: Path) -> None:
        self.store = store
        self.name = name
        self.folder = folder
        self.scratch = scratch

    @property
    def former(self) -> Instance | None:
        """The instance as it is now; None when this is its first build."""
        return self.store.find(self.name)

    def fresh_id(self, stem: str) -> str:
        """``stem``, with ``.2``, ``.3`` … when a build of that id exists: published builds never change."""
        taken = {path.name for path in folders_in(self.folder / "builds")}
        numbered = (stem if n == 1 else f"{stem}.{n}" for n in range(1, len(taken) + 2))
        return next(name for name in numbered if name not in taken)

    def log(self, build_id: str) -> Path:
        """Where the output of a build goes; only the newest few logs are kept."""
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        for stale in sorted(logs.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)[
            _LOGS_KEPT - 1 :
        ]:
            stale.unlink(missing_ok=True)
        return logs / f"{build_id}.log"

    def publish(
        self,
        spec: InstanceSpec,
        card: BuildCard,
        made: Path,
        *,
        why: Why = "install",
        accepted: bool = False,
        passed: Passed = lambda step: None,
    ) -> Build:
        """Let the folder ``made`` (inside the scratch) become build ``card.id`` by one rename, and current if it is verified.

        An unverified build leaves ``current`` and an existing ``instance.toml`` alone and replaces earlier ones that were never
        current, unless it is ``accepted`` as it is. ``passed`` is told each step when it is done. ``ConflictError`` when somebody
        has pinned the instance since ``spec`` was made: the build is there then, and not current.
        """
        write_card(made / "build.toml", card)
        passed("card")
        builds = self.folder / "builds"
        builds.mkdir(exist_ok=True)
        is_good = card.verified or accepted
        if not is_good:
            self._drop_unverified()
        made.rename(builds / card.id)
        passed("published")
        with self.store.moving(self.name) as folder:
            if is_good:
                self._require_loose(spec, card)
            if is_good or self.former is None:
                self._write_spec(spec)
                passed("wish")
            if is_good:
                point(folder, card.id, why, passed=passed)
        return Build(card, str(builds / card.id))

    def adopt(self, spec: InstanceSpec, build: Build, why: Why) -> None:
        """Let a build that is here already be what ``spec`` asks for, and current."""
        with self.store.moving(self.name) as folder:
            self._write_spec(spec)
            if _target_of(folder / "current") != build.card.id:
                point(folder, build.card.id, why)

    def _require_loose(self, spec: InstanceSpec, card: BuildCard) -> None:
        former = self.former
        if former is not None and former.spec.pinned and not spec.pinned:
            raise ConflictError(
                f"{self.name} was pinned meanwhile and stays at its build; {card.id} is there beside it",
                f"`llamamgr rollback {self.name} {card.id}` takes it all the same",
            )

    def _write_spec(self, spec: InstanceSpec) -> None:
        """Record what is wanted. Whether the instance is pinned may have changed during a build, and is left as it is."""
        former = self.former
        pinned = former.spec.pinned if former else spec.pinned
        write_card(self.folder / "instance.toml", msgspec.structs.replace(spec, pinned=pinned))

    def _drop_unverified(self) -> None:
        former = self.former
        if former is None:
            return
        served = {former.current, *(event.build for event in former.ledger.events)}
        for build in former.builds:
            if not build.card.verified and build.card.id not in served:
                shutil.rmtree(build.root, ignore_errors=True)


def point(
    folder: Path,
    build_id: str,
    why: Why,
    reason: str = "",
    ledger: Ledger | None = None,
    passed: Passed = lambda step: None,
) -> None:
    """Make ``build_id`` the current build of the instance in ``folder``, then write that down; only inside ``Store.moving``.

    ``ledger`` is what to add to (None = as it is on disk). A mark against the build is forgotten: somebody wants it.
    """
    now = round(time.time(), 3)
    known = read_ledger(folder) if ledger is None else ledger
    former = _target_of(folder / "current")
    if former and (not known.events or known.events[-1].build != former):
        known = known.with_event(
            Event(former, "install", now, "found as the current one")
        )  # its own line was lost
    link = folder / f".current-{os.getpid()}"
    link.symlink_to(Path("builds") / build_id)
    link.replace(folder / "current")
    passed("current")
    write_ledger(folder, known.forgetting([build_id]).with_event(Event(build_id, why, now, reason)))
    passed("history")


def stand_in(preferred: str, usable: Collection[str]) -> str:
    """The only one of the ``usable`` instances (those that have a build) where ``preferred`` is none of them; else itself."""
    return next(iter(usable)) if preferred not in usable and len(usable) == 1 else preferred


def sweep(folder: Path) -> None:
    """Remove what dead installers left in an instance's folder; only for the holder of its lock (``Store.changing``)."""
    for left in folder.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)


def _is_embryo(folder: Path) -> bool:
    """Nothing was published here yet: a first install is at work, or failed and left its log."""
    return folder.is_dir() and not (folder / "instance.toml").exists() and not (folder / "builds").exists()


def _is_at_work(folder: Path) -> bool:
    """Somebody who is alive has a scratch folder there."""
    owners = (left.name.removeprefix(_SCRATCH) for left in folder.glob(f"{_SCRATCH}*"))
    return any(owner.isdecimal() and is_alive(int(owner)) for owner in owners)


def _remove_when_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _target_of(link: Path) -> str:
    try:
        return link.readlink().name
    except OSError:
        return ""


def build_id(number: int, commit: str, arch: str) -> str:
    """``b11434-0c1e570-cpu``: what it is at a glance, and a fit name for a folder."""
    return f"b{number}-{re.sub(r'[^A-Za-z0-9._]+', '-', commit)}-{arch}"
