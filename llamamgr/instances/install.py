"""Installing, from wish to current build: lock, prerequisites, source, build, verify, publish.

Everything happens in a scratch folder of the instance. Whatever goes wrong, and whenever somebody presses Ctrl-C, the former build
stays current; a process killed outright leaves a scratch folder that the next one removes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llamamgr.core.cards import Build, BuildCard, Capability, InstanceSpec, Source
from llamamgr.core.errors import VerifyFailedError
from llamamgr.core.recipe import Recipe
from llamamgr.host.compilers import compiler, parallel_jobs, processor
from llamamgr.host.files import disk_full_as_error
from llamamgr.host.paths import Paths
from llamamgr.instances.build import Log, Order, Progress, Report, build, size_of
from llamamgr.instances.prerequisites import require
from llamamgr.instances.recipes import build_environment, recipe_for
from llamamgr.instances.sources import Tree, is_same, obtain
from llamamgr.instances.store import Store, Workshop
from llamamgr.instances.tools import build_tools
from llamamgr.instances.verify import SelfTest, probe, self_test


class Wish(msgspec.Struct, frozen=True):
    """What somebody asked for; None and "" leave a matter as it is, or to the default of a new instance."""

    instance: str = "default"
    arch: str = ""
    source: Source | None = None
    cmake_args: tuple[str, ...] | None = None
    gpu_targets: str = ""
    rpc: bool | None = None
    jobs: int = 0
    reinstall: bool = False


class Installed(msgspec.Struct, frozen=True):
    """The outcome: the current build, and whether it was built just now."""

    build: Build
    is_new: bool


def install(wish: Wish, paths: Paths, test: SelfTest, report: Report) -> Installed:
    """Make the instance be as wished. Done at once when its current build already is so.

    Raises ``MissingToolError`` (all prerequisites in one message), ``ConflictError`` (another process is at it),
    ``SourceUnreachableError``, ``BuildFailedError``, ``DiskFullError`` or ``VerifyFailedError``; the former build stays.
    """
    store = Store(paths)
    with store.changing(wish.instance) as workshop, disk_full_as_error(store.root):
        spec = merged(workshop.former.spec if workshop.former else None, wish, paths)
        ready = None if wish.reinstall else already(workshop, spec, wish)
        if ready is not None:
            return Installed(ready, is_new=False)
        recipe = recipe_for(paths, spec.arch)
        require(recipe, git_needed=spec.source is not None and spec.source.kind == "git")
        return Installed(_make(workshop, spec, recipe, wish, paths, test, report), is_new=True)


def merged(former: InstanceSpec | None, wish: Wish, paths: Paths) -> InstanceSpec:
    """What the instance shall be: the wish where it says something, else as it was, else the defaults."""
    old = former or InstanceSpec(wish.instance, arch="auto", created=time.time())
    arch = wish.arch or old.arch
    return InstanceSpec(
        name=wish.instance,
        arch=recipe_for(paths, arch).name,
        source=wish.source if wish.source is not None else old.source,
        cmake_args=old.cmake_args if wish.cmake_args is None else wish.cmake_args,
        gpu_targets=wish.gpu_targets or old.gpu_targets,
        rpc=old.rpc if wish.rpc is None else wish.rpc,
        created=old.created,
    )


def already(workshop: Workshop, spec: InstanceSpec, wish: Wish) -> Build | None:
    """The current build when it is verified and just what ``spec`` asks for."""
    former = workshop.former
    current = former.current_build if former else None
    if former is None or current is None or not current.card.verified:
        return None
    unchanged = msgspec.structs.replace(spec, source=former.spec.source) == former.spec
    return current if unchanged and is_same(wish.source, current.card.source) else None


def _make(
    workshop: Workshop,
    spec: InstanceSpec,
    recipe: Recipe,
    wish: Wish,
    paths: Paths,
    test: SelfTest,
    report: Report,
) -> Build:
    began = time.monotonic()
    tree = _obtain(workshop, spec, paths, report)
    identity = workshop.fresh_id(build_id(tree, recipe))
    with workshop.log(identity).open("w", encoding="utf-8") as file:
        log = Log(Path(file.name), file)
        tools = build_tools(paths, _saying(report), log.line)
        order = _order(spec, recipe, wish)
        made = build(tree, order, tools, workshop.scratch, log, report)
        capability, note, fault = _verify(made, recipe, test, report)
        log.line(note)
    card = BuildCard(
        id=identity,
        instance=spec.name,
        arch=recipe.name,
        number=tree.number,
        commit=tree.commit,
        source=tree.source,
        cmake_args=order.arguments,
        created=time.time(),
        seconds=round(time.monotonic() - began, 1),
        size=size_of(made),
        cpu=processor(),
        compiler=found.line if (found := compiler()) else "",
        verified=fault is None,
        verify_note=note,
        environment=recipe.runtime_env,
        capability=capability,
    )
    published = workshop.publish(spec, card, made)
    if fault is not None:
        raise VerifyFailedError(fault.what, f"{fault.hint}; it is kept for inspection in {published.root}")
    return published


def _obtain(workshop: Workshop, spec: InstanceSpec, paths: Paths, report: Report) -> Tree:
    report(Progress("source", "getting llama.cpp"))
    return obtain(
        spec.source, paths, workshop.scratch, _saying(report), lambda line: report(Progress("source", line))
    )


def _order(spec: InstanceSpec, recipe: Recipe, wish: Wish) -> Order:
    return Order(
        arguments=(*recipe.cmake_arguments(spec.gpu_targets), *spec.cmake_args),
        rpc=spec.rpc,
        jobs=wish.jobs or parallel_jobs(),
        environment=build_environment(recipe),
    )


def _verify(
    made: Path, recipe: Recipe, test: SelfTest, report: Report
) -> tuple[Capability | None, str, VerifyFailedError | None]:
    """Its capability, a note for its card, and the fault if it has one; a faulty build is still worth looking into."""
    report(Progress("verify", "asking it"))
    capability = None
    try:
        capability = probe(made, recipe.runtime_env)
        note = self_test(
            made,
            capability,
            recipe,
            test,
            lambda device: report(Progress("verify", f"self-test on {device}")),
        )
    except VerifyFailedError as fault:
        return capability, fault.what, fault
    return capability, note, None


def build_id(tree: Tree, recipe: Recipe) -> str:
    """``b11434-0c1e570-cpu``: what it is at a glance, and a fit name for a folder."""
    commit = re.sub(r"[^A-Za-z0-9._]+", "-", tree.commit)
    return f"b{tree.number}-{commit}-{recipe.name}"


def _saying(report: Report) -> Callable[[str], None]:
    return lambda line: report(Progress("note", line))
