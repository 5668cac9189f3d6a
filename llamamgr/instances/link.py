"""llama.cpp that something else installed, used where it lies: from PATH, a package manager, or a folder.

A linked build is a folder of symbolic links to the programs, with a card like any other; nothing is copied. Whoever owns them may
replace them at any time, so the card carries a fingerprint of the server: when that has changed, it is asked and tested again, as a
new build. The links point at the path that was named, not at what it resolves to, and so follow a package manager.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llamamgr.core.cards import BORROWED, Build, BuildCard, InstanceSpec, Source
from llamamgr.core.errors import ConflictError, MissingToolError, NotFoundError, VerifyFailedError
from llamamgr.core.recipe import Recipe
from llamamgr.host.compilers import find_tool, processor
from llamamgr.host.files import locked
from llamamgr.host.paths import Paths
from llamamgr.instances.build import RPC_TARGETS, SERVER, Progress, Report
from llamamgr.instances.card_files import read_build, write_card
from llamamgr.instances.recipes import recipe_for, recipes
from llamamgr.instances.store import Store, build_id
from llamamgr.instances.verify import SelfTest, probe, self_test


def link(name: str, where: str, paths: Paths, test: SelfTest, report: Report) -> Build:
    """Let the instance ``name`` be the llama.cpp at ``where``: a folder, a ``llama-server``, or its name on PATH.

    ``NotFoundError`` when there is no llama-server, ``ConflictError`` when ``name`` is an instance that is built,
    ``VerifyFailedError`` when it answers wrongly: nothing changes then.
    """
    return _linked(name, locate_server(where), paths, test, report)


def is_unchanged(build: Build) -> bool:
    """Whether ``build`` still is what its card says: always, but for a linked one that its owner replaced or removed."""
    if build.card.source.kind != "linked":
        return True
    try:
        return fingerprint(Path(build.card.source.location)) == build.card.fingerprint
    except OSError:
        return False


def refreshed(build: Build, store: Store, paths: Paths, test: SelfTest) -> Build:
    """``build`` itself while it is what it was; tested anew as a new build when its owner replaced it.

    Costs one ``stat`` for a linked build, nothing for others. ``MissingToolError`` when the program is gone.
    """
    if is_unchanged(build):
        return build
    server = Path(build.card.source.location)
    if not server.is_file():
        raise MissingToolError(
            f"{server}, which instance {build.card.instance!r} is linked to, is gone",
            f"`llamamgr link {build.card.instance} PATH` names another",
        )
    if build.card.instance == BORROWED:
        return borrowed(server, paths, test)
    return _linked(build.card.instance, server, paths, test, lambda progress: None)


def known(server: Path, paths: Paths) -> Build | None:
    """What ``borrowed`` remembers of ``server``; None when it was not tested yet, or is another program by now."""
    folder = _shelf(server, paths)
    return read_build(folder) if folder.is_dir() else None


def borrowed(server: Path, paths: Paths, test: SelfTest) -> Build:
    """The llama.cpp around ``server`` as a build of no instance: tested once, remembered in the cache until it is replaced."""
    folder = _shelf(server, paths)
    shelf = folder.parent
    if not folder.is_dir():
        with locked(shelf / "borrowed.lock", str(server), wait=600.0):
            if not folder.is_dir():
                scratch = shelf / f".scratch-{os.getpid()}"
                shutil.rmtree(scratch, ignore_errors=True)
                try:
                    card = _card(BORROWED, folder.name, server, scratch, paths, test, lambda progress: None)
                    write_card(scratch / "build.toml", card)
                    scratch.rename(folder)
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
    return read_build(folder)


def _shelf(server: Path, paths: Paths) -> Path:
    return paths.cache / "borrowed" / f"{build_name(server)}-{fingerprint(server)}"


def locate_server(where: str) -> Path:
    """The absolute path of the ``llama-server`` that ``where`` means; ``NotFoundError`` when there is none."""
    place = Path(where).expanduser()
    if place.is_dir():
        for inside in (place / SERVER, place / "bin" / SERVER, place / "build" / "bin" / SERVER):
            if inside.is_file() and os.access(inside, os.X_OK):
                return inside.absolute()
        raise NotFoundError(
            f"there is no {SERVER} in {place}", "name the folder that holds it, or the program itself"
        )
    if place.is_file() and os.access(place, os.X_OK):
        return place.absolute()
    if os.sep not in where and (found := find_tool(where)):
        return Path(found).absolute()
    raise NotFoundError(
        f"there is no {SERVER} at {where}", "name a folder, the program itself, or its name on PATH"
    )


def fingerprint(server: Path) -> str:
    """Changes whenever the program is replaced or rewritten; links are followed."""
    info = server.stat()
    return f"{info.st_size}-{info.st_mtime_ns}"


def build_name(server: Path) -> str:
    """A fit folder name that no two servers share."""
    import hashlib

    return hashlib.sha256(os.fsencode(server)).hexdigest()[:12]


def _linked(name: str, server: Path, paths: Paths, test: SelfTest, report: Report) -> Build:
    store = Store(paths)
    with store.changing(name) as workshop:
        former = workshop.former
        if former is not None and (former.spec.source is None or former.spec.source.kind != "linked"):
            raise ConflictError(
                f"instance {name!r} is one that llamamgr builds",
                f"choose another name, or `llamamgr uninstall {name}` first",
            )
        made = workshop.scratch / "made"
        card = _card(name, "", server, made, paths, test, report)
        card = msgspec.structs.replace(
            card, id=workshop.fresh_id(build_id(card.number, card.commit, f"{card.arch}-linked"))
        )
        spec = InstanceSpec(
            name,
            arch=card.arch,
            source=card.source,
            created=card.created,
            pinned=former.spec.pinned if former else False,
            said=("source",),
        )
        built = workshop.publish(spec, card, made, why="link")
        for stale in former.builds if former else ():
            if stale.card.source == card.source:  # it describes a program that is no longer there
                shutil.rmtree(stale.root, ignore_errors=True)
        return built


def _card(
    name: str, identity: str, server: Path, made: Path, paths: Paths, test: SelfTest, report: Report
) -> BuildCard:
    """Links to the programs in ``made``, and what they can do once they have passed the self-test."""
    _lay_links(server, made)
    found = fingerprint(server)  # before it is asked: what is replaced meanwhile is asked again
    report(Progress("verify", "asking it"))
    try:
        capability = probe(made)
    except VerifyFailedError as error:
        raise VerifyFailedError(
            f"{server} is no llama-server that can be used: {error.what}",
            "name the folder of a llama.cpp's programs, or its llama-server",
        ) from None
    recipe = _recipe_of(capability.devices, paths)
    on_device: Callable[[str], None] = lambda device: report(Progress("verify", f"self-test on {device}"))  # noqa: E731
    note = self_test(made, capability, recipe, test, on_device)
    return BuildCard(
        id=identity,
        instance=name,
        arch=recipe.name,
        number=capability.number,
        commit=capability.commit,
        source=Source("linked", str(server)),
        created=time.time(),
        cpu=processor(),
        verified=True,
        verify_note=note,
        fingerprint=found,
        capability=capability,
    )


def _lay_links(server: Path, made: Path) -> None:
    """``bin/`` with a link to each program of llama.cpp beside ``server``, whatever that one is called."""
    programs = made / "bin"
    programs.mkdir(parents=True)
    (programs / SERVER).symlink_to(server)
    for path in sorted(server.parent.iterdir()):
        is_ours = path.name.startswith("llama-") or path.name in RPC_TARGETS
        if (
            is_ours
            and not (programs / path.name).is_symlink()
            and path.is_file()
            and os.access(path, os.X_OK)
        ):
            (programs / path.name).symlink_to(path)


def _recipe_of(devices: tuple[str, ...], paths: Paths) -> Recipe:
    """The arch whose devices the build sees; it was built for that, whoever built it."""
    for recipe in recipes(paths).values():
        if recipe.verify_device and any(line.startswith(recipe.verify_device) for line in devices):
            return recipe
    return recipe_for(paths, "cpu")
